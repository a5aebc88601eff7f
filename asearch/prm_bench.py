"""How well a verifier finds the first wrong step: ProcessBench's measure (Zheng et al., arXiv 2412.06559).

A row is {"id", "generator", "problem", "steps": [texts], "final_answer_correct", "label"}, where the label is the index of the
first wrong step, or -1. A verifier's verdict is the first step that it scores below the threshold, or -1. Of a subset:
the share of right verdicts on wrong solutions, the same on right ones, and F1, the harmonic mean of the two.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path as File
from typing import TYPE_CHECKING, Any

from asearch.concurrency import together
from asearch.errors import UsageError
from asearch.evaluation.rows import rows_of
from asearch.path import Path, Step
from asearch.problem import STEP_SEPARATOR, Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from asearch.prm import PRM

THRESHOLD = 0.5
AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Case:
    """A solution whose first wrong step is known.

    Args:
        subset: to which it belongs.
        problem: the question.
        steps: the solution.
        label: index of the first wrong step; -1: all are right.
    """

    subset: str
    problem: str
    steps: tuple[str, ...]
    label: int

    def path(self) -> Path:
        """The solution as a verifier reads it."""
        path = Path(Problem(self.problem))
        last = len(self.steps) - 1
        for i, text in enumerate(self.steps):
            ended = i == last
            path = path.grow(Step(text if ended else text + STEP_SEPARATOR, "eos" if ended else "step"), 0)
        return path


@dataclass(frozen=True, slots=True)
class Found:
    """A verifier's verdicts on a subset.

    Args:
        subset: its name.
        wrong: wrong solutions.
        right: right ones.
        wrong_accuracy: the share of wrong ones whose first wrong step was found.
        right_accuracy: the share of right ones in which nothing was found.
        threshold: below which a step counts as wrong.
    """

    subset: str
    wrong: int
    right: int
    wrong_accuracy: float
    right_accuracy: float
    threshold: float

    @property
    def f1(self) -> float:
        """The harmonic mean of the two accuracies; 0 where both are."""
        total = self.wrong_accuracy + self.right_accuracy
        return 2 * self.wrong_accuracy * self.right_accuracy / total if total else 0.0


def read_cases(file: str | File) -> list[Case]:
    """The solutions of a file in ProcessBench's format; a row's own "subset", else the file's name, is its subset.

    Raises:
        UsageError: it cannot be read, or a row is not in that format.
    """
    file = File(file)
    cases = [_case(row, f"{file}, row {i}", file.stem) for i, row in enumerate(rows_of(file), start=1)]
    if not cases:
        raise UsageError(f"{file} holds no solutions")
    return cases


def _case(row: Mapping[str, Any], where: str, stem: str) -> Case:
    problem, steps, label = (row.get(name) for name in ("problem", "steps", "label"))
    if not isinstance(problem, str) or not isinstance(steps, list) or not all(isinstance(s, str) for s in steps):
        raise UsageError(f"{where}: expected ProcessBench's columns problem, steps (a list of texts) and label")
    if not steps:
        raise UsageError(f"{where} has no steps")
    if not isinstance(label, int) or isinstance(label, bool) or not -1 <= label < len(steps):
        raise UsageError(f"{where}: label must be -1 or the index of one of {len(steps)} steps, not {label!r}")
    return Case(str(row.get("subset") or stem), problem, tuple(steps), label)


async def score_cases(prm: PRM, cases: Sequence[Case], *, at_once: int = AT_ONCE) -> list[list[float]]:
    """The scores of every step of every solution, so many solutions at a time.

    Raises:
        EndpointError: the verifier cannot be used.
    """
    await prm.connect()
    scores: list[list[float]] = [[] for _ in cases]
    queue = iter(enumerate(cases))

    async def work() -> None:
        for i, case in queue:
            scores[i] = list(await prm.score(case.path()))

    await together(work() for _ in range(min(at_once, len(cases))))
    return scores


def verdict(scores: Iterable[float], threshold: float = THRESHOLD) -> int:
    """Index of the first step that is scored below the threshold; -1 where none is.

    >>> verdict([0.9, 0.3, 0.1])
    1
    """
    return next((i for i, score in enumerate(scores) if score < threshold), -1)


def judged(cases: Sequence[Case], scores: Sequence[Sequence[float]], threshold: float = THRESHOLD) -> list[Found]:
    """Accuracies per subset, in the order of the subsets."""
    pairs = list(zip(cases, scores, strict=True))
    subsets = dict.fromkeys(case.subset for case in cases)
    return [_of_subset(name, [p for p in pairs if p[0].subset == name], threshold) for name in subsets]


def _of_subset(name: str, pairs: Sequence[tuple[Case, Sequence[float]]], threshold: float) -> Found:
    hits = {True: 0, False: 0}
    counts = {True: 0, False: 0}
    for case, scores in pairs:
        wrong = case.label >= 0
        counts[wrong] += 1
        hits[wrong] += verdict(scores, threshold) == case.label
    shares = {wrong: hits[wrong] / counts[wrong] if counts[wrong] else 0.0 for wrong in hits}
    return Found(name, counts[True], counts[False], shares[True], shares[False], threshold)


def best_threshold(cases: Sequence[Case], scores: Sequence[Sequence[float]], subset: str) -> float:
    """The threshold with the largest F1 on one subset, to be used on all (as ProcessBench does for some verifiers).

    Raises:
        UsageError: there is no such subset.
    """
    chosen = [(case, own) for case, own in zip(cases, scores, strict=True) if case.subset == subset]
    if not chosen:
        raise UsageError(
            f"there is no subset {subset!r}; there are {', '.join(dict.fromkeys(c.subset for c in cases))}"
        )
    tried = [_of_subset(subset, chosen, threshold) for threshold in candidates(own for _, own in chosen)]
    return max(tried, key=lambda found: found.f1).threshold


def candidates(scores: Iterable[Sequence[float]], most: int = 200) -> Iterator[float]:
    """Thresholds to try: 0.5, and the quantiles of what was scored."""
    yield THRESHOLD
    values = sorted({score for own in scores for score in own})
    yield from values[:: max(1, len(values) // most)]
