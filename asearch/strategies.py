"""The strategies: each a frozen value with its options, and a paragraph over the shared move `Search.grow`.

Defaults are the article's ("Scaling test-time compute with open models"): width M = 4, T = 0.8, 40 steps, the last step
score as the value of a path, 2,048 tokens for a solution.
"""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from asearch.concurrency import as_completed, together
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
        if self.n < 1:
            raise UsageError(f"n must be at least 1, not {self.n}")
        if self.temperature < 0 or (self.temperature == 0 and self.n > 1):
            raise UsageError(f"{self.name} with n={self.n} needs a temperature above 0: at 0 all samples are the same")
        if not 0 < self.top_p <= 1:
            raise UsageError(f"top_p must be above 0 and at most 1, not {self.top_p}")
        if self.max_tokens < 1:
            raise UsageError(f"max_tokens must be at least 1, not {self.max_tokens}")
        reduce_scores([1.0], self.reduction)
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
class Greedy(Strategy):
    """One solution at temperature 0."""

    name: ClassVar[str] = "greedy"
    needs_prm: ClassVar[bool] = False
    n: int = 1
    temperature: float = 0.0
    select: Select = "best"

    def check(self) -> None:
        if self.n != 1:
            raise UsageError(f"greedy decoding gives one solution: n must be 1, not {self.n}")
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
        early_stop: cancel what still runs once the leading answer cannot be overtaken; the answer is the same.
    """

    name: ClassVar[str] = "best_of_n"
    early_stop: bool = True

    async def run(self, search: Search) -> Sequence[Path]:
        found: list[Path] = []
        ended = 0
        async with aclosing(as_completed(self._one(search, i) for i in range(self.n))) as arrivals:
            async for _, paths in arrivals:
                ended += 1
                found += paths
                to_come = self.n - ended
                if self.early_stop and to_come and await self._decided(search, found, to_come):
                    search.stopped_by = "decided"
                    break
        return sorted(found, key=lambda path: path.id)

    async def _one(self, search: Search, i: int) -> list[Path]:
        paths = await search.complete(1, first=i)
        if self.needs_prm:
            paths = await search.judge(paths)
        await search.finish(paths)
        return paths

    async def _decided(self, search: Search, found: list[Path], to_come: int) -> bool:
        if 2 * to_come >= self.n:  # too early for any lead: spare the count
            return False
        found = sorted(found, key=lambda path: path.id)
        return await search.jury.decided(found, [search.value(path) for path in found], to_come)


@dataclass(frozen=True, kw_only=True)
class Majority(BestOfN):
    """n independent solutions, one vote each (self-consistency): no verifier is asked."""

    name: ClassVar[str] = "majority"
    needs_prm: ClassVar[bool] = False
    select: Select = "majority"


@dataclass(frozen=True, kw_only=True)
class TreeStrategy(Strategy):
    """What beam search and DVTS have in common.

    Args:
        width: M, the continuations of a path that is kept.
        depth: steps after which a path is given up.
        lookahead: greedy steps by which each candidate step is continued before it is judged (DeepMind's lookahead
            search); the continuation is scored, and not kept.
    """

    width: int = 4
    depth: int = 40
    lookahead: int = 0

    def check(self) -> None:
        super().check()
        if self.width < 1:
            raise UsageError(f"width must be at least 1, not {self.width}")
        if self.n % self.width:
            nearest = max(self.width, round(self.n / self.width) * self.width)
            raise UsageError(
                f"{self.name} keeps n/width paths, so n must be a multiple of the width {self.width}, not {self.n}; try n={nearest}"
            )
        if self.depth < 1:
            raise UsageError(f"depth must be at least 1, not {self.depth}")
        if self.lookahead < 0:
            raise UsageError(f"lookahead must be 0 or more, not {self.lookahead}")

    async def ranked(self, search: Search, children: Sequence[Path]) -> list[Path]:
        """Children by what they are worth, best first; among equals the first in the tree."""
        worth = await together(self._worth(search, child) for child in children)
        order = sorted(range(len(children)), key=lambda i: (-worth[i], children[i].id))
        return [children[i] for i in order]

    async def _worth(self, search: Search, child: Path) -> float:
        ahead = child
        greedy = replace(search.sampling, temperature=0.0)
        for _ in range(self.lookahead):
            if ahead.finished:
                break
            next_steps = await search.peek(ahead, greedy)
            if not next_steps:
                break
            ahead = next_steps[0]
        return search.value(ahead)


@dataclass(frozen=True, kw_only=True)
class BeamSearch(TreeStrategy):
    """Keep the n/width best paths after every step and give each `width` continuations.

    Ends as soon as n solutions are complete (the reference runs all 40 levels and then keeps the first n). Equal
    siblings count once; what they leave free goes to the best of the others.
    """

    name: ClassVar[str] = "beam_search"

    async def run(self, search: Search) -> Sequence[Path]:
        frontier, complete, cut = [search.root], [], []
        for _ in range(self.depth):
            shares = allot(self.n, len(frontier))
            families = await together(search.grow(path, m) for path, m in zip(frontier, shares, strict=True) if m)
            ranked = await self.ranked(search, distinct(child for family in families for child in family))
            complete += [path for path in ranked if path.complete]
            cut += [path for path in ranked if path.finished and not path.complete]
            going = [path for path in ranked if not path.finished]
            frontier = going[: self.n // self.width]
            await search.prune(going[len(frontier) :])
            if len(complete) >= self.n or not frontier:
                break
        candidates = (complete or cut or frontier)[: self.n]
        await search.finish(candidates)
        return sorted(candidates, key=lambda path: path.id)


@dataclass(frozen=True, kw_only=True)
class DVTS(TreeStrategy):
    """Diverse verifier tree search: n/width independent subtrees, in each of which the best child goes on.

    No subtree waits for another. All solutions that were completed on the way are candidates, and each subtree
    contributes its best path in any case (the reference returns the last siblings only).
    """

    name: ClassVar[str] = "dvts"

    async def run(self, search: Search) -> Sequence[Path]:
        subtrees = await together(self._subtree(search, i) for i in range(self.n // self.width))
        return [path for leaves in subtrees for path in leaves]

    async def _subtree(self, search: Search, number: int) -> list[Path]:
        path, leaves = search.root, []
        for level in range(self.depth):
            first = number * self.width if level == 0 else 0
            children = await self.ranked(search, distinct(await search.grow(path, self.width, first=first)))
            if not children:
                break
            leaves += [child for child in children if child.complete]
            path, *others = children
            await search.prune(child for child in others if not child.finished)
            if path.finished:
                break
        leaves = leaves or ([path] if path.step else [])
        await search.finish(leaves)
        return sorted(leaves, key=lambda leaf: leaf.id)


STRATEGIES: dict[str, type[Strategy]] = {cls.name: cls for cls in (Greedy, Majority, BestOfN, BeamSearch, DVTS)}


def distinct(children: Iterable[Path]) -> list[Path]:
    """Each text once, first come first kept: equal siblings would fill the pool and vote twice."""
    seen: dict[tuple[str, bool], Path] = {}
    for child in children:
        seen.setdefault((child.text, child.finished), child)
    return list(seen.values())


def allot(n: int, parties: int) -> list[int]:
    """Divide n into shares as equal as possible, the first ones larger."""
    share, rest = divmod(n, parties)
    return [share + (i < rest) for i in range(parties)]
