"""Tree searches that keep the best: beam search, diverse verifier tree search, reward-balanced search."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from asearch.concurrency import together
from asearch.errors import UsageError
from asearch.strategies.base import TreeStrategy, check_divides, check_number, check_whole, most_finished
from asearch.strategies.particles import softmax

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from asearch.path import Path
    from asearch.search import Search


@dataclass(frozen=True, kw_only=True)
class WideTreeStrategy(TreeStrategy):
    """What beam search and DVTS have in common.

    Args:
        width: M, the continuations of a path that is kept.
    """

    width: int = 4

    def check(self) -> None:
        super().check()
        check_whole("width", self.width, 1)
        check_divides("width", self.width, self.n, self.name)


@dataclass(frozen=True, kw_only=True)
class BeamSearch(WideTreeStrategy):
    """Keep the n/width best samples after every step and give each `width` continuations.

    Ends as soon as n solutions are complete (the reference runs all 40 levels and then keeps the first n). Equal
    siblings are one path, which is scored once and votes once; but one that was sampled c times keeps up to c places
    and gets as many times the continuations, as the n/width best *samples* go on (Snell et al. 2024). With one place
    for each text, as with the reference's `filter_duplicates`, most places go to paths that the verifier has given up
    already, and beam search gets worse with n. One text keeps at most sqrt(n * width) places: all of a small beam, and
    a vanishing share of a large one, so that a beam that is wide enough still finds the global best. What paths that
    ended leave free goes to those that go on.
    """

    name: ClassVar[str] = "beam_search"

    async def run(self, search: Search) -> Sequence[Path]:
        frontier = Counter({search.root: 1})
        ended: Counter[Path] = Counter()
        for _ in range(self.depth):
            grown = await self._expanded(search, frontier)
            ranked = await self.ranked(search, list(grown))
            ended.update({path: grown[path] for path in ranked if path.finished})
            going = {path: grown[path] for path in ranked if not path.finished}
            frontier = best_places(going, self.n // self.width, most=math.isqrt(self.n * self.width))
            await search.prune(path for path in going if path not in frontier)
            if not frontier or sum(m for path, m in ended.items() if path.complete) >= self.n:
                break
        candidates = search.rank(most_finished(ended or frontier))[: self.n]
        await search.finish(candidates)
        return sorted(candidates, key=lambda path: path.id)

    async def _expanded(self, search: Search, frontier: Counter[Path]) -> dict[Path, int]:
        """All children, each with the number of samples that it stands for; n samples in all."""
        shares = apportion(self.n, [places / frontier.total() for places in frontier.values()])
        families = await together(search.families(path, m) for path, m in zip(frontier, shares, strict=True))
        return {child: m for family in families for child, m in family}


@dataclass(frozen=True, kw_only=True)
class DVTS(WideTreeStrategy):
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
            first = number * self.width if level == 0 else None
            children = await self.ranked(search, await search.grow(path, self.width, first=first))
            if not children:
                break
            leaves += [child for child in children if child.complete]
            path, *others = children
            await search.prune(child for child in others if not child.finished)
            if path.finished:
                break
        if not leaves and path.step is not None and not search.failed(path):
            leaves = [path]
        await search.finish(leaves)
        return sorted(leaves, key=lambda leaf: leaf.id)


@dataclass(frozen=True, kw_only=True)
class Rebase(TreeStrategy):
    """Reward-balanced search (Wu et al., arXiv 2408.00724): n expansions per level, shared out by softmax of rewards.

    Where beam search gives all to the best, here a path gets continuations in proportion to exp(value / balance), in
    whole numbers; each path that ends takes its place with it, so that about n solutions come out. Equal siblings are
    one path with the weight, and at its end the votes, of all of them.

    Args:
        balance: the temperature of that softmax; small: greedy, large: everybody the same.
    """

    name: ClassVar[str] = "rebase"
    balance: float = 0.2  # of the authors' released configuration

    def check(self) -> None:
        super().check()
        check_number("balance", self.balance)
        if self.balance <= 0:
            raise UsageError(f"balance is a temperature: it must be above 0, not {self.balance}")

    async def run(self, search: Search) -> Sequence[Path]:
        shares = {search.root: self.n}
        ended: Counter[Path] = Counter()
        going: Counter[Path] = Counter()
        for _ in range(self.depth):
            families = await together(search.families(path, m) for path, m in shares.items())
            grown = [pair for family in families for pair in family]
            ended.update({child: m for child, m in grown if child.finished})
            going = Counter({child: m for child, m in grown if not child.finished})
            room = self.n - ended.total()
            if room <= 0 or not going:
                break
            shares = await self._shares(search, going, room)
            await search.prune(path for path in going if path not in shares)
        candidates = most_finished((ended or going).elements())
        await search.finish(dict.fromkeys(candidates))
        return sorted(candidates, key=lambda path: path.id)

    async def _shares(self, search: Search, going: Counter[Path], room: int) -> dict[Path, int]:
        """Expansions per path; one that stands for several equal siblings has the weight of all of them."""
        worths = await self.worths(search, list(going))
        weights = softmax(
            [w + self.balance * math.log(m) for w, m in zip(worths, going.values(), strict=True)], self.balance
        )
        return {path: m for path, m in zip(going, apportion(room, weights), strict=True) if m}


def best_places(ranked: Mapping[Path, int], places: int, most: int) -> Counter[Path]:
    """The first so many samples of a ranking, as the number of places that each path keeps: at most `most`."""
    kept: Counter[Path] = Counter()
    for path, m in ranked.items():
        if places > 0:
            kept[path] = min(m, places, most)
            places -= kept[path]
    return kept


def apportion(n: int, weights: Sequence[float]) -> list[int]:
    """Divide n in proportion to weights that add up to 1, in whole numbers: largest remainders first.

    The paper rounds each share, so that its total may miss n by some; here it is n.
    """
    exact = [n * weight for weight in weights]
    shares = [int(share) for share in exact]
    order = sorted(range(len(shares)), key=lambda i: (shares[i] - exact[i], i))
    for i in order[: n - sum(shares)]:
        shares[i] += 1
    return shares
