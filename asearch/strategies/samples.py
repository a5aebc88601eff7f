"""Independent whole solutions: greedy, majority, best-of-N. They differ in who judges and how the votes are counted."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from asearch.concurrency import as_completed, together
from asearch.errors import UsageError
from asearch.jury import Poll, Select
from asearch.strategies.base import Strategy, check_number

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from asearch.path import Path
    from asearch.search import Search


@dataclass(frozen=True, kw_only=True)
class Greedy(Strategy):
    """One solution at temperature 0; scored if there is a PRM."""

    name: ClassVar[str] = "greedy"
    needs_prm: ClassVar[bool] = False
    n: int = 1
    temperature: float = 0.0
    select: Select = "best"

    def check(self) -> None:
        if self.n != 1:
            raise UsageError(f"greedy decoding gives one solution: n must be 1, not {self.n}")
        if self.temperature != 0:
            raise UsageError(f"greedy decoding has temperature 0, not {self.temperature}; best_of_n samples above it")
        super().check()

    async def run(self, search: Search) -> Sequence[Path]:
        paths = await search.judge(await search.complete(1))
        await search.finish(paths)
        return paths


@dataclass(frozen=True, kw_only=True)
class BestOfN(Strategy):
    """n independent solutions, scored; the answer with the largest sum of values (or the best, `select="best"`).

    Every sample is scored the moment it ends, while others are still being written.

    Args:
        early_stop: cancel what still runs once the leading answer cannot be overtaken; the answer is the same. True
            counts samples in their order, so that the whole result is reproducible; "any_order" counts them as they
            arrive, which stops earlier, and leaves it to timing which candidates stand beside the answer.
        confidence: send samples in waves, each as small as could settle the vote, instead of all at once: fewer tokens,
            more rounds. 1 settles what is certain; below 1, the vote ends when the leader is that likely to stay ahead
            (adaptive consistency, arXiv 2305.11860, which counts heads: `select="majority"`).
    """

    name: ClassVar[str] = "best_of_n"
    early_stop: bool | Literal["any_order"] = True
    confidence: float | None = None

    def check(self) -> None:
        super().check()
        if self.early_stop not in (True, False, "any_order"):
            raise UsageError(f'early_stop must be True, False or "any_order", not {self.early_stop!r}')
        if self.confidence is not None:
            self._check_confidence(self.confidence)

    def _check_confidence(self, confidence: float) -> None:
        check_number("confidence", confidence)
        if not 0.5 < confidence <= 1:
            raise UsageError(f"confidence must be above 0.5 and at most 1, not {confidence}")
        if not self.early_stop or self.select == "best":
            raise UsageError('confidence ends a vote early: it needs early_stop, and select="majority" or "weighted"')
        if confidence < 1 and self.select != "majority":
            raise UsageError(
                f'a confidence below 1 counts heads: it needs select="majority", not {self.select!r}, or use 1'
            )

    async def run(self, search: Search) -> Sequence[Path]:
        if self.select == "best" or not self.early_stop:
            samples = await together(self._one(search, i) for i in range(self.n))
            return [path for paths in samples for path in paths]
        poll = Poll(search.jury, self.n, confidence=self.confidence or 1.0)
        found = await (self._at_once if self.confidence is None else self._in_waves)(search, poll)
        if poll.settled:
            search.stopped_by = "decided"
        return sorted(found, key=lambda path: path.id)

    async def _one(self, search: Search, i: int) -> list[Path]:
        paths = await search.judge(await search.complete(1, first=i))
        await search.finish(paths)
        return paths

    async def _at_once(self, search: Search, poll: Poll) -> list[Path]:
        """All samples under way together; what the vote no longer needs is cancelled."""
        found: dict[int, list[Path]] = {}
        counted: list[int] = []
        async with aclosing(as_completed(self._one(search, i) for i in range(self.n))) as arrivals:
            async for i, paths in arrivals:
                found[i] = paths
                counted = [*found] if self.early_stop == "any_order" else in_order(found, counted)
                if await self._settled(search, poll, found, counted):
                    break
        if poll.settled and self.early_stop != "any_order":
            counted = counted[: poll.due]
            search.forget(poll.due)
        return [path for i in counted for path in found[i]]

    async def _settled(self, search: Search, poll: Poll, found: Mapping[int, list[Path]], counted: list[int]) -> bool:
        while poll.due <= len(counted) and poll.due < self.n and search.stopped_by is None and not poll.settled:
            paths = [path for i in sorted(counted[: poll.due]) for path in found[i]]
            await poll.look(paths, [search.value(path) for path in paths], poll.due)
        return poll.settled

    async def _in_waves(self, search: Search, poll: Poll) -> list[Path]:
        """No sample is sent before it is known that the vote may need it."""
        found: list[Path] = []
        sent = 0
        while sent < poll.due:
            wave = await together(self._one(search, i) for i in range(sent, poll.due))
            found += [path for paths in wave for path in paths]
            sent = poll.due
            if sent < self.n and search.stopped_by is None:
                await poll.look(found, [search.value(path) for path in found], sent)
        return found


@dataclass(frozen=True, kw_only=True)
class Majority(BestOfN):
    """n independent solutions, one vote each (self-consistency): no verifier is asked."""

    name: ClassVar[str] = "majority"
    needs_prm: ClassVar[bool] = False
    uses_prm: ClassVar[bool] = False
    select: Select = "majority"

    def check(self) -> None:
        if self.select != "majority":
            raise UsageError(f'majority counts heads: select must be "majority", not {self.select!r}; see best_of_n')
        super().check()


def in_order(found: Mapping[int, object], counted: list[int]) -> list[int]:
    """The numbers from 0 that are there without a gap, given those that were there before."""
    while len(counted) in found:
        counted.append(len(counted))
    return counted
