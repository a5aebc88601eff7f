"""Particle filtering: search as inference, which keeps a population instead of the best (Puri et al., arXiv 2502.01618)."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from asearch.concurrency import together
from asearch.errors import UsageError
from asearch.strategies.base import TreeStrategy, check_divides, check_number, check_whole, most_finished

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asearch.path import Path
    from asearch.search import Search

CLIP = 1e-6  # scores of exactly 0 and 1 have no logit


@dataclass(frozen=True, kw_only=True)
class ParticleFilter(TreeStrategy):
    """n particles: each grows a step, then all are drawn anew in proportion to what the verifier thinks of them.

    The weight of a particle is softmax over the population of the logit of its value, divided by `weight_temperature`;
    resampling is systematic, so that a particle has n times its weight of copies, give or take one. Particles that
    ended stay as they are and take part in every resampling, until all have ended. One that ran out of room without an
    end has no weight beside others.

    Copies of a path are candidates as often as they were drawn: the vote is the estimate.

    Args:
        weight_temperature: 1 takes the verifier at its word, more trusts it less.
        iterations: above 1, particle Gibbs: n/iterations particles at a time, and from the second run on one of the last
            population, drawn at random, takes part in every resampling as it is, and is never lost.
    """

    name: ClassVar[str] = "particle_filter"
    weight_temperature: float = 1.0
    iterations: int = 1

    def check(self) -> None:
        super().check()
        check_number("weight_temperature", self.weight_temperature)
        if self.weight_temperature <= 0:
            raise UsageError(f"weight_temperature must be above 0, not {self.weight_temperature}")
        check_whole("iterations", self.iterations, 1)
        check_divides("iterations", self.iterations, self.n, self.name)
        if self.iterations > 1 and self.n == self.iterations:
            raise UsageError(f"particle Gibbs needs at least 2 particles at a time: n={2 * self.n}, or iterations=1")

    async def run(self, search: Search) -> Sequence[Path]:
        found: list[Path] = []
        trail: list[Path] = []
        for iteration in range(self.iterations):
            population = await self._filter(search, trail, f"iteration {iteration}")
            found += population
            if not population or search.stopped_by is not None:
                break
            chosen = population[int(search.chance(f"reference {iteration}") * len(population))]
            trail = [*chosen.lineage()][::-1]
        candidates = most_finished(found)
        await search.finish({path.id: path for path in candidates}.values())
        return sorted(candidates, key=lambda path: path.id)

    async def _filter(self, search: Search, trail: Sequence[Path], name: str) -> list[Path]:
        """One population, from the root to the end, with the path along `trail`, if any, always in it."""
        free = self.n // self.iterations - bool(trail)
        particles = [search.root] * free
        for level in range(self.depth):
            kept = [trail[min(level, len(trail) - 1)]] if trail else []
            particles = await self._propagate(search, particles)
            if search.stopped_by is not None or not particles:
                return [path for path in particles if path.complete]
            particles += kept
            weights = await self._weights(search, particles)
            copies = systematic(weights, free, search.chance(f"{name}, level {level}"))
            await search.prune(path for path, m in zip(particles, copies, strict=True) if not m and not path.finished)
            particles = [path for path, m in zip(particles, copies, strict=True) for _ in range(m)]
            if all(path.finished for path in (*particles, *kept)):
                break
        return [*particles, *kept]

    async def _propagate(self, search: Search, particles: Sequence[Path]) -> list[Path]:
        """Each particle a step further: copies of a path in one request, and those that say the same as one path."""
        copies = Counter(path for path in particles if not path.finished)
        families = await together(search.families(path, m) for path, m in copies.items())
        grown = [child for family in families for child, m in family for _ in range(m)]
        return sorted([*(path for path in particles if path.finished), *grown], key=lambda path: path.id)

    async def _weights(self, search: Search, particles: Sequence[Path]) -> list[float]:
        values = await self.worths(search, particles)
        cut = [path.finished and not path.complete for path in particles]
        if all(cut):
            return softmax([logit(value) for value in values], self.weight_temperature)
        logits = [-math.inf if out else logit(value) for value, out in zip(values, cut, strict=True)]
        return softmax(logits, self.weight_temperature)


def logit(probability: float) -> float:
    """The logarithm of the odds, of a probability clipped away from 0 and 1."""
    clipped = min(max(probability, CLIP), 1 - CLIP)
    return math.log(clipped / (1 - clipped))


def softmax(values: Sequence[float], temperature: float = 1.0) -> list[float]:
    """Weights in proportion to exp(value / temperature), adding up to 1."""
    top = max(values)
    powers = [math.exp((value - top) / temperature) for value in values]
    total = math.fsum(powers)
    return [power / total for power in powers]


def systematic(weights: Sequence[float], n: int, u: float) -> list[int]:
    """How many of n copies each weight gets: the points (u + j)/n, j = 0..n-1, that fall into its part of [0, 1).

    Averaged over u in [0, 1) that is n times the weight, and never more than one away from it (Kitagawa 1996).
    """
    # Rounding may leave the sum of the weights a little below or above 1.
    ends = [min(n, math.ceil(n * reached - u)) for reached in itertools.accumulate(weights)]
    ends[-1] = n
    return [max(0, end - start) for start, end in itertools.pairwise([0, *ends])]
