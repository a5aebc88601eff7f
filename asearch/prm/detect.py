"""From whatever the user has to a verifier: a URL, a function, an object."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asearch.concurrency import Memo
from asearch.errors import UsageError
from asearch.prm.base import PRM, ServedPRM, identify
from asearch.prm.causal import CausalPRM
from asearch.prm.function import FunctionPRM
from asearch.prm.pooling import OutcomePRM, PoolingPRM
from asearch.transport import is_source

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asearch.families import Family
    from asearch.path import Path


class DetectedPRM(ServedPRM):
    """A verifier by its URL: on first use it finds out how to talk to the server.

    Args:
        url: the base URL, or an `openai.AsyncOpenAI`.
        model: the served model name; None takes the first that the server lists.
        family: a `Family` or the name of one; None recognises it by the model's name.
        api_key: a bearer token.
        **options: further arguments for the client that it becomes.
    """

    def __init__(
        self,
        url: Any,
        *,
        model: str | None = None,
        family: Family | str | None = None,
        api_key: str | None = None,
        **options: Any,
    ) -> None:
        self._given = (url, {"model": model, "api_key": api_key, **options})
        options.pop("concurrency", None)
        super().__init__(url, model=model, family=family, api_key=api_key, **options)
        self._prm: Memo[None, ServedPRM] = Memo(self._detect)

    async def score(self, path: Path) -> list[float]:
        return list(await (await self._prm.get(None)).score(path))

    async def score_all(self, paths: Sequence[Path]) -> list[list[float] | Exception]:
        return await (await self._prm.get(None)).score_all(paths)

    async def connect(self) -> None:
        await (await self._prm.get(None)).connect()

    async def aclose(self) -> None:
        detected = self._prm.known(None)
        if detected is not None:
            await detected.aclose()
        await super().aclose()

    async def _detect(self, _: None) -> ServedPRM:
        found = await identify(self.endpoint, self.model, self.family)
        self.model, self.family, self.server = found.model, found.family, found.server
        url, options = self._given
        prm = prm_of(url, found.family, own=found.server == "own", **options)
        prm.endpoint = self.endpoint  # one server: one limit, one set of connections
        return prm


def prm_of(url: Any, family: Family, *, own: bool = False, **options: Any) -> ServedPRM:
    """The client for a family."""
    if family.read == "outcome":
        options.pop("concurrency", None)
        return OutcomePRM(url, **options)
    if own or family.read != "verdict":
        return PoolingPRM(url, family=family, **options)
    return CausalPRM(url, family=family, **options)


def as_prm(prm: Any, *, family: Family | str | None = None, **options: Any) -> PRM:
    """A verifier from whatever the user has.

    A PRM stays what it is, and a function becomes a `FunctionPRM`. A URL (or an `openai.AsyncOpenAI`) becomes the
    client for what the server turns out to serve; a model that is not known by its name needs `family`.

    Raises:
        UsageError: it is none of these; or, on first use, nobody knows the model by its name.
    """
    if isinstance(prm, PRM):
        return prm
    if is_source(prm) or hasattr(prm, "base_url"):
        return DetectedPRM(prm, family=family, **options)
    if callable(prm):
        return FunctionPRM(prm)
    raise UsageError(f"expected a URL, a PRM or a function as verifier, not {type(prm).__name__}")
