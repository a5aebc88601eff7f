"""Verifiers that need no server: any function of the problem and the steps."""

from __future__ import annotations

import inspect
import math
from typing import TYPE_CHECKING, Any

from asearch.errors import ProtocolError
from asearch.usage import ledger

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from asearch.path import Path


class FunctionPRM:
    """A plain async (or ordinary) function as verifier: tests, a heuristic, a judge.

    Args:
        function: takes the problem's text and the list of step texts; returns one score per step, or one number for
            the whole (an outcome reward), which then stands for each new step.
    """

    def __init__(self, function: Callable[[str, list[str]], Awaitable[Any] | Any]) -> None:
        self._function = function

    def __repr__(self) -> str:
        return f"FunctionPRM({getattr(self._function, '__name__', self._function)!r})"

    async def connect(self) -> None:
        """There is nothing to connect to."""

    async def aclose(self) -> None:
        """There is nothing to close."""

    async def score(self, path: Path) -> list[float]:
        new = len(path.unscored)
        if not new:
            return []
        ledger.get().open_call()
        texts = [step.text for step in path.chain]
        with ledger.get().outstanding("prm"):
            value = self._function(path.problem.text, texts)
            if inspect.isawaitable(value):
                value = await value
        scores = _as_scores(value, new)
        if len(scores) not in (new, len(texts)):
            raise ProtocolError(f"the verifier returned {len(scores)} scores for {len(texts)} steps")
        if not all(math.isfinite(score) for score in scores):
            raise ProtocolError("the verifier returned NaN or infinity")
        ledger.get().book(scored=new)
        return scores[-new:]


def _as_scores(value: Any, new: int) -> list[float]:
    try:
        return [float(value)] * new if isinstance(value, int | float) else [float(v) for v in value]
    except (TypeError, ValueError):
        raise ProtocolError(f"the verifier returned {type(value).__name__}, not a number or a list of them") from None
