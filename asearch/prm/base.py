"""What every verifier is, and what those behind HTTP share."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from asearch.client import make_endpoint, served_model
from asearch.concurrency import Memo, together
from asearch.errors import EndpointError, NotFound, ProtocolError, UsageError
from asearch.families import FAMILIES, Family, by_name, recognise, spoken
from asearch.prm.tokens import Counter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asearch.path import Path
    from asearch.transport import Endpoint, Json

OWN_SERVER = "asearch-prm-server"  # how this project's PRM server introduces itself in /v1/models


@runtime_checkable
class PRM(Protocol):
    """A verifier: it scores the steps of a path that have no score yet."""

    async def score(self, path: Path) -> Sequence[float]:
        """The scores, in [0, 1], of `path.unscored`, in order."""
        ...

    async def connect(self) -> None:
        """Find out what the server is; raises an EndpointError that says what is wrong."""
        ...

    async def aclose(self) -> None:
        """Close the connections."""
        ...


class Reading:
    """A path as a verifier reads it: the steps that say something, and which of them want a score.

    A blank step gets the score of what stands before it; a blank beginning has said nothing right and gets 0.

    Args:
        path: the path to be scored.
    """

    def __init__(self, path: Path) -> None:
        chain = path.chain
        first = len(chain) - len(path.unscored)
        self.said, last = spoken([step.text for step in chain])
        self._asked = last[first:]
        self._known: dict[int, float | None] = {-1: 0.0}
        if first and last[first - 1] in self._asked:  # what is asked first says nothing new
            self._known[last[first - 1]] = chain[last.index(last[first - 1])].score
        self.new = sorted(set(self._asked) - self._known.keys())

    def spread(self, scores: Sequence[float]) -> list[float]:
        """Scores of `new` -> scores of the path's unscored steps."""
        known = self._known | dict(zip(self.new, scores, strict=True))
        return [known[place] or 0.0 for place in self._asked]


def says_one_thing(path: Path) -> bool:
    """Whether all that wants a score is the last step, and that says something: so it nearly always is in a search."""
    return len(path.unscored) == 1 and path.step is not None and bool(path.step.text.strip())


class ServedPRM(ABC):
    """A verifier behind HTTP: one endpoint, one model, one family.

    Args:
        url: the base URL, or an `openai.AsyncOpenAI`.
        model: the served model name; None takes the first that the server lists.
        family: a `Family` or the name of one; None recognises it by the model's name.
        api_key: a bearer token.
        **endpoint: further arguments for `Endpoint`.
    """

    def __init__(
        self,
        url: Any,
        *,
        model: str | None = None,
        family: Family | str | None = None,
        api_key: str | None = None,
        **endpoint: Any,
    ) -> None:
        self.endpoint: Endpoint = make_endpoint(url, api_key=api_key, **{"role": "prm", **endpoint})
        self.model = model
        self.family = as_family(family)
        self.server = "other"
        self._tokens_of = Counter(lambda: self.endpoint, lambda: self.model)
        self._connected: Memo[None, None] = Memo(self._connect)

    def __repr__(self) -> str:
        family = self.family.name if self.family else None
        return f"{type(self).__name__}({self.endpoint.url!r}, model={self.model!r}, family={family!r})"

    @abstractmethod
    async def score(self, path: Path) -> list[float]:
        """The scores of `path.unscored`, in order."""

    async def score_all(self, paths: Sequence[Path]) -> list[list[float] | Exception]:
        """As `score` for each path at once; where one failed, its exception stands in its place."""

        async def one(path: Path) -> list[float] | Exception:
            try:
                return await self.score(path)
            except EndpointError as failure:
                return failure

        return await together(one(path) for path in paths)

    async def connect(self) -> None:
        await self._connected.get(None)

    async def aclose(self) -> None:
        await self.endpoint.aclose()

    async def _connect(self, _: None) -> None:
        found = await identify(self.endpoint, self.model, self.family)
        self.model, self.family, self.server = found.model, found.family, found.server

    @property
    def _reader(self) -> Family:
        """The family, once it is known."""
        assert self.family is not None  # noqa: S101 - connect() has found it or raised
        return self.family


@dataclass(frozen=True, slots=True)
class Identity:
    """What a server turned out to be.

    Args:
        model: the name to ask for.
        family: how the model reads solutions.
        server: "own" for this project's PRM server, "tgi", or "other" (vLLM and its like).
    """

    model: str
    family: Family
    server: str


async def identify(endpoint: Endpoint, model: str | None, family: Family | None) -> Identity:
    """Find out what is served, and of which family it is where the caller has not said.

    Raises:
        UsageError: nobody knows that model by its name.
        EndpointError: this is no model server, or it has no such model.
    """
    info = None
    try:
        name, length = await served_model(endpoint, model)
        card = await _card(endpoint, name)
        info = await _tgi_info(endpoint) if length is None else None
    except (NotFound, ProtocolError):
        info, card = await _tgi_info(endpoint), {}
        if info is None:
            raise
        name = model or str(info["model_id"])
    names = [name, card.get("root"), (info or {}).get("model_id")]
    known = family or FAMILIES.get(str(card.get("family"))) or recognise(*(str(n) for n in names if n))
    if known is None:
        raise UsageError(
            f"{endpoint.url} serves {name!r}, which is no process reward model that is known by name; "
            f"pass family=..., one of {', '.join(FAMILIES)}"
        )
    server = "tgi" if info else "own" if card.get("owned_by") == OWN_SERVER else "other"
    return Identity(name, known, server)


async def _card(endpoint: Endpoint, model: str) -> Json:
    """What the server says of a model; its `root`, the path or id it came from, tells more than a name."""
    try:
        models = (await endpoint.get("/v1/models")).get("data")
    except NotFound:
        return {}
    cards = models if isinstance(models, list) else []
    return next((card for card in cards if isinstance(card, dict) and card.get("id") == model), {})


async def _tgi_info(endpoint: Endpoint) -> Json | None:
    """What a text-generation-inference server says of itself; None from others."""
    try:
        info = await endpoint.get("/info")
    except (NotFound, ProtocolError):
        return None
    return info if "model_id" in info and "max_client_batch_size" in info else None


def as_family(family: Family | str | None) -> Family | None:
    """A family by name, or as it is."""
    return by_name(family) if isinstance(family, str) else family


def softmax_first(first: float, second: float) -> float:
    """The first of the softmax over two logits (or log-probabilities); NaN stays NaN."""
    if math.isnan(first) or math.isnan(second):
        return math.nan
    return 1.0 / (1.0 + math.exp(min(700.0, second - first)))


def checked(score: float, endpoint: Endpoint) -> float:
    """A score, if it is a probability.

    Raises:
        ProtocolError: it is NaN or outside [0, 1].
    """
    if math.isnan(score):
        raise ProtocolError("the verifier answered NaN: are its weights sound?", endpoint=endpoint.url)
    if not -1e-6 <= score <= 1 + 1e-6:
        raise ProtocolError(
            f"the verifier answered {score:g}, which is no probability: the server must apply the activation, "
            "and the family must fit the model",
            endpoint=endpoint.url,
        )
    return min(1.0, max(0.0, score))


def listed(reply: Json, key: str, count: int, endpoint: Endpoint) -> list[Json]:
    """The items of a reply in the order of the request.

    Raises:
        ProtocolError: they are not as many as were asked for.
    """
    items = reply.get(key)
    if not isinstance(items, list) or len(items) != count or not all(isinstance(item, dict) for item in items):
        got = len(items) if isinstance(items, list) else "none"
        raise ProtocolError(f"asked for {count} scores and got {got}", endpoint=endpoint.url)
    return sorted(items, key=lambda item: int(item.get("index", 0)))
