"""What all strategies have in common."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from asearch.concurrency import together
from asearch.errors import UsageError
from asearch.jury import Select, check_select
from asearch.path import Path, Sampling
from asearch.scoring import Reduction, reduce_scores

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from asearch.search import Search


@dataclass(frozen=True, kw_only=True)
class Strategy:
    """What all strategies have in common.

    Args:
        n: the budget: how many solutions are sampled, or how many paths a tree search keeps under way.
        temperature: of the policy.
        top_p: of the policy.
        max_tokens: generated tokens for one solution.
        reduction: how the step scores of a path become its value: "last", "min", "prod" or "mean".
        select: how candidates become an answer: "weighted" by value, "majority", or the single "best".
    """

    name: ClassVar[str]
    needs_prm: ClassVar[bool] = True
    uses_prm: ClassVar[bool] = True  # False: a PRM that is given is not even connected to
    stepwise: ClassVar[bool] = False  # grows step by step, so the server must be able to continue a given beginning
    n: int = 16
    temperature: float = 0.8
    top_p: float = 1.0
    max_tokens: int = 2048
    reduction: Reduction = "last"
    select: Select = "weighted"

    def check(self) -> None:
        """Refuse what cannot work before the first request.

        Raises:
            UsageError: in one sentence that says what would be valid.
        """
        check_whole("n", self.n, 1)
        check_whole("max_tokens", self.max_tokens, 1)
        check_number("temperature", self.temperature)
        if self.temperature < 0 or (self.temperature == 0 and self.n > 1):
            raise UsageError(f"{self.name} with n={self.n} needs a temperature above 0: at 0 all samples are the same")
        check_number("top_p", self.top_p)
        if not 0 < self.top_p <= 1:
            raise UsageError(f"top_p must be above 0 and at most 1, not {self.top_p}")
        try:
            reduce_scores([1.0], self.reduction)
        except ValueError as failure:
            raise UsageError(str(failure)) from None
        check_select(self.select)

    async def run(self, search: Search) -> Sequence[Path]:
        """Search, and return the candidates in the order of their ids."""
        raise NotImplementedError

    @property
    def sampling(self) -> Sampling:
        return Sampling(temperature=self.temperature, top_p=self.top_p, max_tokens=self.max_tokens)

    def describe(self) -> dict[str, Any]:
        """Name and options as plain data."""
        return {"name": self.name, **asdict(self)}


@dataclass(frozen=True, kw_only=True)
class TreeStrategy(Strategy):
    """What the strategies that grow step by step have in common.

    Args:
        depth: steps after which a path is given up.
        lookahead: greedy steps by which each candidate step is continued before it is judged (lookahead search of Snell
            et al. 2024); the continuation is scored, and not kept.
    """

    stepwise: ClassVar[bool] = True
    depth: int = 40
    lookahead: int = 0

    def check(self) -> None:
        super().check()
        check_whole("depth", self.depth, 1)
        check_whole("lookahead", self.lookahead, 0)

    async def worths(self, search: Search, children: Sequence[Path]) -> list[float]:
        """What each child is worth: its value, or that of its greedy continuation."""
        if self.lookahead:
            children = await together(search.look_ahead(child, self.lookahead) for child in children)
        return [search.value(child) for child in children]

    async def ranked(self, search: Search, children: Sequence[Path]) -> list[Path]:
        """Children by what they are worth, best first; among equals the first in the tree."""
        worths = await self.worths(search, children)
        order = sorted(range(len(children)), key=lambda i: (-worths[i], children[i].id))
        return [children[i] for i in order]


def most_finished(paths: Iterable[Path]) -> list[Path]:
    """The paths that came to their end; where none did, those that ran out of room; else what there is."""
    paths = list(paths)
    complete = [path for path in paths if path.complete]
    return complete or [path for path in paths if path.finished] or paths


def check_whole(name: str, value: Any, least: int) -> None:
    """Refuse what is no whole number of at least `least`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise UsageError(f"{name} must be a whole number of at least {least}, not {value!r}")


def check_number(name: str, value: Any) -> None:
    """Refuse what is no finite number."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise UsageError(f"{name} must be a finite number, not {value!r}")


def check_divides(name: str, part: int, n: int, strategy: str) -> None:
    """Refuse an n that does not split evenly, and name the nearest that does."""
    if n % part:
        nearest = max(part, round(n / part) * part)
        raise UsageError(f"n of {strategy} must be a multiple of {name}={part}, not {n}; try n={nearest}")
