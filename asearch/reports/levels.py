"""Levels of difficulty, read off the samples of a run: level 1 is the easiest.

"oracle": by pass@1, which needs the reference answers; "model": by the mean value that the verifier gives the samples, which
needs none (both of Snell et al., arXiv 2408.03314, section 3.2, who take quintiles); "first": as "model", of the first few
samples only, which is what a search can see before it has spent its budget; "dataset": the dataset's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from asearch.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from asearch.reports.gather import Gathered

Kind = Literal["oracle", "model", "first", "dataset"]
QUINTILES = 5
NO_SAMPLES = "levels are read off samples: evaluate best-of-n in the same run"


class Levels(NamedTuple):
    """The level of each problem; with "first", of each problem and seed.

    Args:
        of: (problem, seed) -> level, 1 the easiest; None where it has none.
        names: of the levels, easiest first.
        thresholds: for "first": falling mean values that part the levels.
    """

    of: Callable[[int, int], int | None]
    names: tuple[str, ...]
    thresholds: tuple[float, ...] = ()


def levels_of(run: Gathered, kind: Kind, count: int = QUINTILES) -> Levels:
    """The levels of a run's problems.

    Raises:
        UsageError: the run does not say.
    """
    if kind == "dataset":
        return _own(run)
    if kind == "first":
        return _first(run, count)
    if kind == "oracle":
        ease = {i: s.right / s.count for i, s in run.sampled.items() if s.count}
    else:
        ease = {i: s.value / s.scored for i, s in run.sampled.items() if s.scored}
    if not ease:
        raise UsageError(NO_SAMPLES)
    table = quantiles(ease, count)
    return Levels(lambda problem, _: table.get(problem), names_of(count))


def quantiles(ease: Mapping[int, float], count: int) -> dict[int, int]:
    """Problems in so many levels of equal size, easiest first; among equals the first in the log is the easier.

    >>> quantiles({0: 0.1, 1: 0.9, 2: 0.5, 3: 0.4}, 2)
    {1: 1, 2: 1, 3: 2, 0: 2}
    """
    ranked = sorted(ease, key=lambda problem: (-ease[problem], problem))
    return {problem: 1 + place * count // len(ranked) for place, problem in enumerate(ranked)}


def names_of(count: int) -> tuple[str, ...]:
    """Numbers as names."""
    return tuple(str(i) for i in range(1, count + 1))


def _own(run: Gathered) -> Levels:
    found = sorted(
        {level for level in run.own_levels if level is not None}, key=lambda level: (str(type(level)), level)
    )
    if not found:
        raise UsageError("the dataset has no levels of its own")
    places = {level: i for i, level in enumerate(found, start=1)}
    return Levels(lambda problem, _: places.get(run.own_levels[problem]), tuple(map(str, found)))


def _first(run: Gathered, count: int) -> Levels:
    """By the mean of the first samples of the same seed; for a seed without samples, by that of all seeds."""
    means = [mean for sampled in run.sampled.values() for mean in sampled.firsts.values()]
    if not means:
        raise UsageError(NO_SAMPLES)
    thresholds = cuts(means, count)

    def of(problem: int, seed: int) -> int | None:
        firsts = run.sampled[problem].firsts if problem in run.sampled else {}
        if not firsts:
            return None
        mean = firsts.get(seed, sum(firsts.values()) / len(firsts))
        return 1 + sum(mean <= threshold for threshold in thresholds)

    return Levels(of, names_of(len(thresholds) + 1), thresholds)


def cuts(values: Sequence[float], count: int) -> tuple[float, ...]:
    """Falling thresholds between quantiles, each halfway between the two values that it parts."""
    ranked = sorted(values, reverse=True)
    ends = [i * len(ranked) // count for i in range(1, count)]
    return tuple((ranked[end - 1] + ranked[end]) / 2 for end in ends if end)
