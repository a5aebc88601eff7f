"""Process reward models: whatever can say how likely a solution is right so far, step by step.

The models are causal: the score of a step depends only on what stands before it. So a path keeps the scores that it
has, and only its new steps are scored.
"""

from __future__ import annotations

import inspect
import math
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from asearch.client import make_endpoint, served_model
from asearch.concurrency import Batcher, Memo, together
from asearch.errors import ProtocolError, UsageError
from asearch.families import EMBEDDED, FAMILIES, Family
from asearch.usage import ledger

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from asearch.path import Path
    from asearch.transport import Json


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


class CausalPRM:
    """A causal language model as PRM, over vLLM's `/v1/completions`.

    The score of a step is softmax over the logits of the family's two verdict tokens: `logprob_token_ids` returns
    exactly these two (vLLM 0.32; error below 4e-7 against a plain forward pass), the prefix cache makes each call cost
    the new step only, and a prefix that is too long is an error instead of a cut one.

    Args:
        url: the base URL, or an `openai.AsyncOpenAI`.
        model: the served model name; None takes the first that the server lists.
        family: a `Family` or the name of one.
        **endpoint: further arguments for `Endpoint`.
    """

    def __init__(
        self,
        url: Any,
        *,
        model: str | None = None,
        family: Family | str = EMBEDDED,
        api_key: str | None = None,
        concurrency: int = 4,
        **endpoint: Any,
    ) -> None:
        self.endpoint = make_endpoint(url, api_key=api_key, **endpoint)
        self.model = model
        self.family = as_family(family)
        self.verdicts: tuple[int, int] = (-1, -1)
        self._connected: Memo[None, None] = Memo(self._connect)
        self._scores: Memo[str, float] = Memo(self._score_prefix)
        self._batcher: Batcher[str, tuple[float, int, bool]] = Batcher(
            self._ask, concurrency=concurrency, max_items=64, max_cost=400_000, cost=len
        )

    def __repr__(self) -> str:
        return f"CausalPRM({self.endpoint.url!r}, model={self.model!r}, family={self.family.name!r})"

    async def connect(self) -> None:
        await self._connected.get(None)

    async def aclose(self) -> None:
        await self._batcher.aclose()
        await self.endpoint.aclose()

    async def score(self, path: Path) -> list[float]:
        await self.connect()
        texts = [step.text for step in path.chain]
        known = len(texts) - len(path.unscored)
        prefixes = [self.family.render(path.problem, texts[: i + 1]) for i in range(known, len(texts))]
        book = ledger.get()
        book.open_call()
        # A text has at most as many tokens as bytes: the only bound known before the answer.
        async with book.reserved(sum(len(prefix.encode()) for prefix in prefixes)):
            return await together(self._scores.get(prefix) for prefix in prefixes)

    async def _score_prefix(self, prefix: str) -> float:
        score, tokens, first = await self._batcher.submit(prefix)
        ledger.get().book(prm_requests=int(first), prm_tokens=tokens, scored=1)
        return score

    async def _ask(self, prefixes: list[str]) -> list[tuple[float, int, bool]]:
        body = {
            "model": self.model,
            "prompt": prefixes,
            "max_tokens": 1,
            "temperature": 0.0,
            "add_special_tokens": False,
            "logprobs": 0,  # must be set for logprob_token_ids to be read
            "logprob_token_ids": list(self.verdicts),
            "return_tokens_as_token_ids": True,
        }
        reply = await self.endpoint.post("/v1/completions", body, units=len(prefixes))
        choices = reply.get("choices")
        if not isinstance(choices, list) or len(choices) != len(prefixes):
            raise ProtocolError(f"asked for {len(prefixes)} scores and got another number", endpoint=self.endpoint.url)
        scores = [self._verdict(choice) for choice in sorted(choices, key=lambda c: int(c["index"]))]
        total = (reply.get("usage") or {}).get("prompt_tokens") or 0
        shares = divide(total, [len(prefix) for prefix in prefixes])
        return [(score, share, i == 0) for i, (score, share) in enumerate(zip(scores, shares, strict=True))]

    def _verdict(self, choice: Json) -> float:
        try:
            top = choice["logprobs"]["top_logprobs"][0]
            good, bad = (float(top[f"token_id:{token}"]) for token in self.verdicts)
        except (KeyError, TypeError, IndexError, ValueError):
            raise ProtocolError(
                "the reply lacks the log-probabilities of the verdict tokens; does the server know logprob_token_ids?",
                endpoint=self.endpoint.url,
            ) from None
        if math.isnan(good) or math.isnan(bad):
            raise ProtocolError("the verifier answered NaN", endpoint=self.endpoint.url)
        return 1.0 / (1.0 + math.exp(min(700.0, bad - good)))

    async def _connect(self, _: None) -> None:
        self.model, _length = await served_model(self.endpoint, self.model)
        good, bad = self.family.good, self.family.bad
        self.verdicts = (await self._token(good), await self._token(bad))

    async def _token(self, token: str | int) -> int:
        if isinstance(token, int):
            return token
        body = {"model": self.model, "prompt": token, "add_special_tokens": False}
        tokens = (await self.endpoint.post("/tokenize", body)).get("tokens")
        if not isinstance(tokens, list) or len(tokens) != 1:
            raise ProtocolError(
                f"{token!r} is not one token here, so this is no {self.family.name} model", endpoint=self.endpoint.url
            )
        return int(tokens[0])


class FunctionPRM:
    """A plain async (or ordinary) function as verifier: tests, a heuristic, a judge.

    Args:
        function: takes the problem's text and the list of step texts; returns one score per step, or one number for
            the whole (an outcome reward), which then stands for each new step.
    """

    def __init__(self, function: Callable[[str, list[str]], Awaitable[Any] | Any]) -> None:
        self._function = function

    async def connect(self) -> None:
        """There is nothing to connect to."""

    async def aclose(self) -> None:
        """There is nothing to close."""

    async def score(self, path: Path) -> list[float]:
        ledger.get().open_call()
        texts = [step.text for step in path.chain]
        value = self._function(path.problem.text, texts)
        if inspect.isawaitable(value):
            value = await value
        new = len(path.unscored)
        scores = [float(value)] * new if isinstance(value, int | float) else [float(v) for v in value]
        if len(scores) not in (new, len(texts)):
            raise ProtocolError(f"the verifier returned {len(scores)} scores for {len(texts)} steps")
        if any(math.isnan(score) for score in scores):
            raise ProtocolError("the verifier returned NaN")
        ledger.get().book(scored=new)
        return scores[-new:]


def divide(total: int, sizes: Sequence[int]) -> list[int]:
    """Share out a total in proportion to sizes, in whole numbers that add up to it."""
    shares: list[int] = []
    done = so_far = 0
    everything = sum(sizes) or 1
    for size in sizes:
        so_far += size
        shares.append(total * so_far // everything - done)
        done += shares[-1]
    return shares


def as_family(family: Family | str) -> Family:
    """A family by name, or as it is."""
    if isinstance(family, Family):
        return family
    if family not in FAMILIES:
        raise UsageError(f"unknown PRM family {family!r}; known are {', '.join(sorted(FAMILIES))}")
    return FAMILIES[family]


def as_prm(prm: Any, **options: Any) -> PRM:
    """A PRM stays what it is; a URL becomes a CausalPRM, a function a FunctionPRM."""
    if isinstance(prm, PRM):
        return prm
    if callable(prm):
        return FunctionPRM(prm)
    return CausalPRM(prm, **options)
