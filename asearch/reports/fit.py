"""Fits a compute-optimal plan to a run: per level of difficulty and budget, the strategy that solved most.

DeepMind's way (Snell et al., arXiv 2408.03314, section 3.2) is two-fold cross-validation: choose on one half of a level's
problems, evaluate on the other half, and the other way round. The article "Scaling test-time compute with open models"
chooses and evaluates on the same problems, which flatters. Both are reported, under these names.
"""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from asearch.errors import UsageError
from asearch.plan import READING_SHARE, Choice, Plan, Row
from asearch.reports.levels import QUINTILES, Kind, Levels, levels_of
from asearch.strategies.planned import OWN, PLANNABLE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from asearch.reports.gather import Gathered

REPEATS = 50  # two-fold splits that the cross-validated accuracy is the mean of
Count = tuple[float, float, float, float]  # searches, right ones, tokens the policy and the verifier computed


class Table:
    """Counts by budget, method, level and problem: all that choosing and evaluating looks at."""

    def __init__(self, run: Gathered, levels: Levels, labels: Iterable[str]) -> None:
        self.counts: dict[int, dict[str, dict[int, dict[int, Count]]]] = {}
        for label in labels:
            for key, cell in sorted(run.cells.items()):
                if key.label == label:
                    at = self.counts.setdefault(key.n, {}).setdefault(label, defaultdict(dict))
                    for row in zip(cell.problems, cell.right, cell.computed_policy, cell.computed_prm, strict=True):
                        level = levels.of(row[0], key.seed)
                        if level is not None:
                            add(at[level], row[0], (1.0, float(row[1]), row[2], row[3]))

    def total(self, n: int, label: str, level: int, problems: Iterable[int] | None = None) -> Count:
        """The counts of a level, of all its problems or of these."""
        found = self.counts[n][label].get(level, {})
        return added(found.values() if problems is None else (found[p] for p in problems if p in found))

    def problems(self, n: int, level: int) -> list[int]:
        """The problems of a level."""
        return sorted({p for label in self.counts[n].values() for p in label.get(level, {})})

    def best(self, n: int, level: int, problems: Iterable[int] | None = None) -> str:
        """The method that solved most of a level; of equals, the one that computed least."""
        chosen = None if problems is None else list(problems)
        totals = {label: self.total(n, label, level, chosen) for label in self.counts[n]}
        return max(totals, key=lambda label: (rate(totals[label]), -(totals[label][2] + totals[label][3])))


def add(table: dict[int, Count], problem: int, count: Count) -> None:
    table[problem] = added([table.get(problem, NOTHING), count])


NOTHING: Count = (0.0, 0.0, 0.0, 0.0)


def added(counts: Iterable[Count]) -> Count:
    """The sum of counts."""
    a = b = c = d = 0.0
    for w, x, y, z in counts:
        a, b, c, d = a + w, b + x, c + y, d + z
    return a, b, c, d


def rate(count: Count) -> float:
    """The share of right ones."""
    return count[1] / count[0] if count[0] else 0.0


@dataclass(frozen=True, slots=True)
class Fitted:
    """Compute-optimal scaling at one budget, for one kind of levels.

    Args:
        kind: of the levels.
        n: the budget.
        chosen: by level, easiest first, the best method.
        cross_validated: accuracy when chosen on one half and evaluated on the other.
        same_data: accuracy on the problems that the choice was made on.
        single: the best method for all levels together, and
        single_accuracy: its accuracy, which was chosen and evaluated on the same problems, too.
        policy_tokens: computed per search, with the methods chosen, and
        prm_tokens: likewise.
    """

    kind: Kind
    n: int
    chosen: tuple[str, ...]
    cross_validated: float
    same_data: float
    single: str
    single_accuracy: float
    policy_tokens: float
    prm_tokens: float


def plannable(run: Gathered) -> list[str]:
    """The labels that a plan can choose from: verified searches whose vote is weighted, as compute-optimal search votes."""
    return sorted(
        label
        for label, strategy in run.strategies.items()
        if strategy["name"] in PLANNABLE and strategy["select"] == "weighted" and label not in run.baselines
    )


def fitted(run: Gathered, kind: Kind, *, count: int = QUINTILES, seed: int = 0) -> list[Fitted]:
    """How well compute-optimal scaling does on a run, at each budget that two methods or more share.

    Raises:
        UsageError: the run holds no samples to read levels off, or nothing to choose from.
    """
    levels = levels_of(run, kind, count)
    table = Table(run, levels, plannable(run))
    budgets = [n for n in sorted(table.counts) if len(table.counts[n]) > 1]
    if not budgets:
        raise UsageError(
            "a plan chooses between strategies with a weighted vote, and this run has no two of them at one budget: "
            "evaluate best-of-n and, say, beam-search and dvts"
        )
    return [_fitted_at(table, kind, n, len(levels.names), seed) for n in budgets]


def readable(run: Gathered, fits: Sequence[Fitted]) -> list[Fitted]:
    """Without those whose level a search could not have read: first samples that are the budget itself.

    Such a level knows how the very samples came out that it chooses among, and looks better than anything can be.
    """
    return [at for at in fits if at.kind != "first" or at.n >= READING_SHARE * run.first]


def _fitted_at(table: Table, kind: Kind, n: int, count: int, seed: int) -> Fitted:
    levels = range(1, count + 1)
    chosen = tuple(table.best(n, level) for level in levels)
    same = added(table.total(n, label, level) for level, label in zip(levels, chosen, strict=True))
    crossed = added(crossed_at(table, n, level, seed) for level in levels)
    whole = {label: added(table.total(n, label, level) for level in levels) for label in table.counts[n]}
    single = max(whole, key=lambda label: (rate(whole[label]), -whole[label][2]))
    searches = same[0] or 1.0
    return Fitted(
        kind, n, chosen, rate(crossed), rate(same), single, rate(whole[single]), same[2] / searches, same[3] / searches
    )


def crossed_at(table: Table, n: int, level: int, seed: int) -> Count:
    """The counts of a level, each half by the method that was best on the other half, over many splits."""
    problems = table.problems(n, level)
    chance = random.Random(f"{seed}|{n}|{level}")
    found = []
    for _ in range(REPEATS):
        shuffled = chance.sample(problems, len(problems))
        halves = shuffled[::2], shuffled[1::2]
        for chosen_on, tested_on in (halves, halves[::-1]):
            found.append(table.total(n, table.best(n, level, chosen_on or None), level, tested_on))
    total = added(found)
    # Methods may have run with different numbers of seeds: a problem weighs the same whichever of them was chosen.
    size = table.total(n, table.best(n, level), level)[0]
    return size, rate(total) * size, total[2], total[3]


def make_plan(run: Gathered, *, count: int = QUINTILES, seed: int = 0) -> Plan:
    """The plan for a run's models: levels by what the first samples show, as a search sees them.

    Raises:
        UsageError: as `fitted`.
    """
    kinds: tuple[Kind, ...] = ("first", "model", "oracle")
    results = {kind: fitted(run, kind, count=count, seed=seed) for kind in kinds}
    levels = levels_of(run, "first", count)
    rows = {
        at.n: Row(choice_of(run, at.single), tuple(choice_of(run, label) for label in at.chosen))
        for at in results["first"]
    }
    return Plan(run.first, levels.thresholds, rows, about_of(run, results))


def choice_of(run: Gathered, label: str) -> Choice:
    """A method as a plan names it."""
    strategy = run.strategies[label]
    inherited = {"name", "temperature", "top_p", "early_stop", "confidence", *OWN}
    return Choice(strategy["name"], {k: v for k, v in strategy.items() if k not in inherited}, label)


def about_of(run: Gathered, results: Mapping[Kind, Sequence[Fitted]]) -> dict[str, Any]:
    """Where a plan comes from, and how well it did."""
    models, dataset = run.config.get("models") or {}, run.config.get("dataset") or {}
    return {
        "models": {role: models[role].get("model") for role in ("policy", "prm") if role in models},
        "dataset": dataset.get("source"),
        "problems": len(run.ids),
        "accuracy": [
            {
                "levels": at.kind,
                "n": at.n,
                "cross_validated": round(at.cross_validated, 4),
                "same_data": round(at.same_data, 4),
                "best_single": at.single,
                "best_single_accuracy": round(at.single_accuracy, 4),
            }
            for found in results.values()
            for at in readable(run, found)
        ],
    }
