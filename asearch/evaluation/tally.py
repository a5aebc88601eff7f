"""Counts records as they come: accuracy and cost per strategy and budget, in little memory however long the log is."""

from __future__ import annotations

import statistics
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from asearch.evaluation.votes import Cost, outcomes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from asearch.evaluation.records import Record


@dataclass(slots=True)
class Count:
    """Searches, of which some were right, and what they cost together."""

    searches: int = 0
    right: int = 0
    cost: list[float] = field(default_factory=lambda: [0.0] * len(Cost._fields))

    def add(self, right: bool, cost: Cost) -> None:  # noqa: FBT001 - it is counted
        """Count one search."""
        self.searches += 1
        self.right += right
        for i, amount in enumerate(cost):
            self.cost[i] += amount


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the table: a strategy at a budget.

    Args:
        label: of the strategy and the way to vote.
        n: the budget.
        accuracy: mean over seeds, in [0, 1].
        spread: standard deviation between seeds; None with one seed.
        searches: how many were counted.
        cost: per search.
    """

    label: str
    n: int
    accuracy: float
    spread: float | None
    searches: int
    cost: Cost


class Tally:
    """Accuracy and cost by strategy, budget and seed.

    Args:
        budgets: at which independent samples are counted, besides the budget of their run.
    """

    def __init__(self, budgets: Iterable[int]) -> None:
        self.budgets = sorted(set(budgets))
        self.records = 0
        self.tokens = 0
        self.errors = 0
        self._counts: dict[tuple[str, int], dict[int, Count]] = defaultdict(lambda: defaultdict(Count))

    def add(self, record: Record) -> None:
        """Count a record at every budget and in every way that it holds."""
        self.records += 1
        self.tokens += record.usage.tokens
        self.errors += bool(record.errors)
        for outcome in outcomes(record, self.budgets):
            self._counts[outcome.label, outcome.n][record.seed].add(outcome.right, outcome.cost)

    def lines(self) -> Iterator[Line]:
        """The table, greedy decoding first, then by budget and name."""
        for label, n in sorted(self._counts, key=lambda key: (not key[0].startswith("greedy"), key[1], key[0])):
            yield line_of(label, n, list(self._counts[label, n].values()))


def line_of(label: str, n: int, seeds: Sequence[Count]) -> Line:
    """A line from the counts of its seeds."""
    accuracies = [count.right / count.searches for count in seeds]
    searches = sum(count.searches for count in seeds)
    cost = Cost(*(sum(count.cost[i] for count in seeds) / searches for i in range(len(Cost._fields))))
    spread = statistics.stdev(accuracies) if len(accuracies) > 1 else None
    return Line(label, n, statistics.fmean(accuracies), spread, searches, cost)
