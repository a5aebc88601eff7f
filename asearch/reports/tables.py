"""The tables of a report, as plain rows: accuracy and cost, accuracy by level, compute-optimal scaling."""

from __future__ import annotations

import csv
import io
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from asearch.reports.compute import Parameters
    from asearch.reports.fit import Fitted
    from asearch.reports.gather import Gathered, Outcomes
    from asearch.reports.levels import Levels


@dataclass(frozen=True, slots=True)
class Point:
    """A method at a budget: a point of every curve.

    Args:
        label: of the method.
        n: the budget.
        accuracy: mean over seeds, in [0, 1].
        spread: standard deviation between seeds; None with one seed.
        seeds: how many.
        searches: over all seeds.
        policy_tokens: generated per search.
        prm_tokens: read by the verifier per search, as its server was sent them.
        policy_computed: per search, tokens that the policy computes if no common beginning is computed twice, and
        prm_computed: likewise the verifier.
        flops: per search, of both; None where a model's size is not known.
        baseline: it is the larger policy.
    """

    label: str
    n: int
    accuracy: float
    spread: float | None
    seeds: int
    searches: int
    policy_tokens: float
    prm_tokens: float
    policy_computed: float
    prm_computed: float
    flops: float | None
    baseline: bool

    @property
    def computed(self) -> float:
        """Tokens of policy and verifier together."""
        return self.policy_computed + self.prm_computed


def points_of(run: Gathered, parameters: Parameters) -> list[Point]:
    """Every method at every budget."""
    return [_point(run, label, n, parameters) for label, n in run.keys()]  # noqa: SIM118 - no mapping


def _point(run: Gathered, label: str, n: int, parameters: Parameters) -> Point:
    cells = list(run.seeds(label, n).values())
    accuracies = [cell.accuracy for cell in cells]
    searches = sum(map(len, cells))
    policy, prm, policy_computed, prm_computed = (
        sum(sum(getattr(cell, name)) for cell in cells) / searches
        for name in ("policy", "prm", "computed_policy", "computed_prm")
    )
    baseline = label in run.baselines
    return Point(
        label,
        n,
        statistics.fmean(accuracies),
        statistics.stdev(accuracies) if len(accuracies) > 1 else None,
        len(cells),
        searches,
        policy,
        prm,
        policy_computed,
        prm_computed,
        parameters.flops(policy_computed, prm_computed, baseline=baseline),
        baseline,
    )


@dataclass(frozen=True, slots=True)
class LevelPoint:
    """A method at a budget on the problems of one level."""

    kind: str
    level: str
    label: str
    n: int
    accuracy: float
    searches: int


def level_points(run: Gathered, kind: str, levels: Levels) -> list[LevelPoint]:
    """Accuracy by level, for every method and budget."""
    found = []
    for label, n in run.keys():  # noqa: SIM118 - no mapping
        counts = [[0, 0] for _ in levels.names]
        for seed, cell in run.seeds(label, n).items():
            _count(counts, cell, seed, levels)
        named = zip(levels.names, counts, strict=True)
        found += [LevelPoint(kind, name, label, n, right / all_, all_) for name, (all_, right) in named if all_]
    return found


def _count(counts: list[list[int]], cell: Outcomes, seed: int, levels: Levels) -> None:
    for problem, right in zip(cell.problems, cell.right, strict=True):
        level = levels.of(problem, seed)
        if level is not None:
            counts[level - 1][0] += 1
            counts[level - 1][1] += right


def csv_of(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table as CSV; nothing where there is no value."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([_plain(value) for value in row] for row in rows)
    return out.getvalue()


def _plain(value: Any) -> Any:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else value


ACCURACY = ("strategy", "n", "accuracy", "std_over_seeds", "seeds", "searches", "policy_tokens", "prm_tokens",
            "policy_tokens_computed", "prm_tokens_computed", "flops")  # fmt: skip
LEVEL = ("levels", "level", "strategy", "n", "accuracy", "searches")
OPTIMAL = ("levels", "n", "cross_validated", "same_data", "best_single", "best_single_accuracy",
           "policy_tokens_computed", "prm_tokens_computed", "chosen")  # fmt: skip


def accuracy_csv(points: Iterable[Point]) -> str:
    """All points, as CSV."""
    return csv_of(
        ACCURACY,
        ([p.label, p.n, p.accuracy, p.spread, p.seeds, p.searches, p.policy_tokens, p.prm_tokens, p.policy_computed,
          p.prm_computed, p.flops] for p in points),
    )  # fmt: skip


def level_csv(points: Iterable[LevelPoint]) -> str:
    """Accuracy by level, as CSV."""
    return csv_of(LEVEL, ([p.kind, p.level, p.label, p.n, p.accuracy, p.searches] for p in points))


def optimal_csv(found: Iterable[Fitted]) -> str:
    """Compute-optimal scaling, as CSV; the methods chosen from the easiest level to the hardest."""
    return csv_of(
        OPTIMAL,
        ([f.kind, f.n, f.cross_validated, f.same_data, f.single, f.single_accuracy, f.policy_tokens, f.prm_tokens,
          " | ".join(f.chosen)] for f in found),
    )  # fmt: skip
