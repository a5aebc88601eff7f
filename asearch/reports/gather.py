"""Reads the log of a run once, record by record, and keeps a few bytes of each: what tables, levels and plans are made of."""

from __future__ import annotations

import statistics
from array import array
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from asearch.evaluation import read_config, read_records
from asearch.evaluation.votes import MAJORITY, Outcome, outcomes
from asearch.reports.compute import spent_by

if TYPE_CHECKING:
    from pathlib import Path

    from asearch.evaluation import Record

SAMPLING = ("best_of_n", "majority")  # whose candidates are independent samples of the policy
BASELINE_ROLE = "baseline"


class CellKey(NamedTuple):
    """A method at a budget, with one seed."""

    label: str
    n: int
    seed: int


class Outcomes:
    """One cell: per problem whether it was solved and what it cost, 21 bytes each."""

    __slots__ = ("computed_policy", "computed_prm", "policy", "prm", "problems", "right")

    def __init__(self) -> None:
        self.problems, self.right = array("I"), array("b")
        self.policy, self.prm = array("f"), array("f")
        self.computed_policy, self.computed_prm = array("f"), array("f")

    def add(self, problem: int, outcome: Outcome, computed: tuple[float, float]) -> None:
        """Count one search."""
        self.problems.append(problem)
        self.right.append(outcome.right)
        self.policy.append(outcome.cost.policy_tokens)
        self.prm.append(outcome.cost.prm_tokens)
        self.computed_policy.append(computed[0])
        self.computed_prm.append(computed[1])

    def __len__(self) -> int:
        return len(self.problems)

    @property
    def accuracy(self) -> float:
        """The share of solved problems."""
        return sum(self.right) / len(self.right)


@dataclass(slots=True)
class Sampled:
    """What the independent samples of one problem say of its difficulty.

    Args:
        right: of the samples, over all seeds.
        count: of the samples.
        value: the sum of their values by the verifier.
        scored: how many have a value.
        firsts: by seed, the mean value of the first few.
    """

    right: int = 0
    count: int = 0
    value: float = 0.0
    scored: int = 0
    firsts: dict[int, float] = field(default_factory=dict)


@dataclass(slots=True)
class Gathered:
    """A run in little memory.

    Args:
        config: as frozen in the folder.
        first: how many first samples `Sampled.firsts` looks at.
        ids: the problems' names, in the order of their first record.
        own_levels: the dataset's own level of each problem.
        cells: outcomes by label, n and seed.
        strategies: by label, the strategy's name and options, and the way to vote under that label.
        sampled: by problem.
        records: how many were read.
    """

    config: dict[str, Any]
    first: int
    ids: list[str] = field(default_factory=list)
    own_levels: list[Any] = field(default_factory=list)
    cells: dict[CellKey, Outcomes] = field(default_factory=lambda: defaultdict(Outcomes))
    strategies: dict[str, dict[str, Any]] = field(default_factory=dict)
    sampled: dict[int, Sampled] = field(default_factory=lambda: defaultdict(Sampled))
    records: int = 0
    _places: dict[str, int] = field(default_factory=dict)

    @property
    def baselines(self) -> frozenset[str]:
        """The labels that the larger policy ran under."""
        entries = self.config.get("entries", ())
        return frozenset(e["label"] for e in entries if e.get("policy") == BASELINE_ROLE)

    def keys(self) -> list[tuple[str, int]]:
        """Every method with its budgets, greedy decoding first."""
        found = {(key.label, key.n) for key in self.cells}
        return sorted(found, key=lambda key: (not key[0].startswith("greedy"), key))

    def seeds(self, label: str, n: int) -> dict[int, Outcomes]:
        """The cells of a method at a budget, by seed."""
        return {key.seed: cell for key, cell in sorted(self.cells.items()) if key[:2] == (label, n)}

    def place(self, record: Record) -> int:
        """The number of a record's problem."""
        if record.unique_id not in self._places:
            self._places[record.unique_id] = len(self.ids)
            self.ids.append(record.unique_id)
            self.own_levels.append(record.level)
        return self._places[record.unique_id]

    def add(self, record: Record, budgets: list[int]) -> None:
        """Take what is needed from a record."""
        self.records += 1
        problem = self.place(record)
        for outcome in outcomes(record, budgets):
            self.strategies.setdefault(outcome.label, strategy_of(record, outcome.label))
            key = CellKey(outcome.label, outcome.n, record.seed)
            self.cells[key].add(problem, outcome, spent_by(record, outcome))
        if record.strategy["name"] in SAMPLING and record.label not in self.baselines:
            self._sample(self.sampled[problem], record)

    def _sample(self, sampled: Sampled, record: Record) -> None:
        sampled.right += sum(record.correct)
        sampled.count += len(record.correct)
        values = [v for v, scores in zip(record.agg_scores, record.scores, strict=True) if scores]
        sampled.value += sum(values)
        sampled.scored += len(values)
        first = [v for v, place in zip(record.agg_scores, record.ids, strict=True) if place[0] < self.first]
        if first and len(values) == len(record.scores):
            sampled.firsts[record.seed] = statistics.fmean(first)


def strategy_of(record: Record, label: str) -> dict[str, Any]:
    """Name and options of the strategy behind a label, with the vote that the label stands for, and without n."""
    described = {name: value for name, value in record.strategy.items() if name != "n"}
    ways = {", weighted": "weighted", ", best": "best"}
    select = next((way for end, way in ways.items() if label == record.label + end), described.get("select"))
    return described | {"select": "majority" if label == MAJORITY else select}


def gather(run: str | Path, *, first: int = 4) -> Gathered:
    """Everything that a report or a plan needs from a run's log, read in one pass.

    Args:
        run: its folder.
        first: how many first samples difficulty is read off when a plan is used.

    Raises:
        UsageError: there is no such run.
        BadRecord: a line of the log is damaged.
    """
    found = Gathered(read_config(run), first)
    budgets = [int(n) for n in found.config.get("budgets", ())]
    for record in read_records(run):
        found.add(record, budgets)
    return found
