"""A compute-optimal plan: which strategy to use, by a problem's difficulty and the budget (Snell et al., arXiv 2408.03314).

A plan is a small JSON file that `asearch plan` fits on a run and `asearch.compute_optimal` uses. Difficulty is read off a
few first samples: the mean of their values by the verifier, against thresholds that the plan holds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from asearch.errors import UsageError

FORMAT = 1
READING_SHARE = 4  # a level is read off only where the first samples are at most this part (1/4) of the budget


@dataclass(frozen=True, slots=True)
class Choice:
    """A strategy with its options, without n.

    Args:
        strategy: its name, such as "beam_search".
        options: such as {"width": 4}.
        label: how tables call it.
    """

    strategy: str
    options: Mapping[str, Any]
    label: str


@dataclass(frozen=True, slots=True)
class Row:
    """What to do with one budget.

    Args:
        unread: where the budget is too small to read the level off.
        levels: by level, easiest first.
    """

    unread: Choice
    levels: tuple[Choice, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """Which strategy to use, by level and budget.

    Args:
        samples: how many first samples the level is read off.
        thresholds: falling mean values that part the levels; level 1, the easiest, is what lies above the first.
        rows: by budget.
        about: where the plan comes from, and how well it did.
    """

    samples: int
    thresholds: tuple[float, ...]
    rows: Mapping[int, Row]
    about: Mapping[str, Any] = field(default_factory=dict)

    def level(self, mean: float) -> int:
        """The level (1 is the easiest) of a problem whose first samples have this mean value.

        >>> Plan(4, (0.8, 0.5), {}).level(0.6)
        2
        """
        return 1 + sum(mean <= threshold for threshold in self.thresholds)

    def row(self, n: int) -> Row:
        """The row of a budget: of the largest planned one that does not exceed it, or of the smallest."""
        return self.rows[max((b for b in self.rows if b <= n), default=min(self.rows))]

    def reads(self, n: int) -> bool:
        """Whether the budget has room to read the level off."""
        return n >= READING_SHARE * self.samples

    def to_json(self) -> dict[str, Any]:
        """Plain data for `json.dumps`."""
        rows = {str(n): asdict(row) for n, row in sorted(self.rows.items())}
        return {
            "format": FORMAT,
            "samples": self.samples,
            "thresholds": list(self.thresholds),
            "budgets": rows,
            "about": dict(self.about),
        }


def read_plan(source: str | Path | Mapping[str, Any] | Plan | None = None) -> Plan:
    """A plan from its file, from what was in it, or, with None, the one that was fitted on the embedded models.

    Raises:
        UsageError: there is no such file, or it holds no plan.
    """
    if isinstance(source, Plan):
        return source
    if isinstance(source, Mapping):
        return plan_of(source, "the plan")
    file = files("asearch").joinpath("plans/embedded.json") if source is None else Path(source)
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except OSError as failure:
        raise UsageError(f"cannot read the plan {file}: {failure.strerror}; `asearch plan RUN` makes one") from None
    except ValueError as failure:
        raise UsageError(f"{file} is no plan: it is no JSON ({failure})") from None
    return plan_of(data, str(file))


def plan_of(data: Any, name: str) -> Plan:
    """A plan from plain data.

    Raises:
        UsageError: says what is wrong with it.
    """
    if not isinstance(data, Mapping):
        raise UsageError(f"{name} is no plan: it holds no JSON object")
    if data.get("format") != FORMAT:
        raise UsageError(
            f"{name} has the format {data.get('format')!r}, and this version reads plans of format {FORMAT}"
        )
    samples: Any = data.get("samples")
    thresholds: Any = data.get("thresholds")
    budgets: Any = data.get("budgets")
    if not isinstance(samples, int) or isinstance(samples, bool) or samples < 1:
        raise UsageError(f"{name}: samples must be a whole number of at least 1, not {samples!r}")
    if not _falling(thresholds):
        raise UsageError(f"{name}: thresholds must be a list of falling numbers, not {thresholds!r}")
    if not isinstance(budgets, Mapping) or not budgets:
        raise UsageError(f"{name}: budgets must say what to do with each budget, and they are {budgets!r}")
    rows = {_budget(n, name): _row(row, len(thresholds) + 1, f"{name}, budget {n}") for n, row in budgets.items()}
    about = data.get("about")
    return Plan(samples, tuple(map(float, thresholds)), rows, about if isinstance(about, Mapping) else {})


def _falling(thresholds: Any) -> bool:
    numbers = isinstance(thresholds, list | tuple) and all(
        isinstance(x, int | float) and not isinstance(x, bool) for x in thresholds
    )
    return numbers and list(thresholds) == sorted(thresholds, reverse=True)


def _budget(n: Any, name: str) -> int:
    if not (isinstance(n, int) or (isinstance(n, str) and n.isascii() and n.isdigit())) or int(n) < 1:
        raise UsageError(f"{name}: {n!r} is no budget")
    return int(n)


def _row(data: Any, levels: int, name: str) -> Row:
    if not isinstance(data, Mapping) or not isinstance(data.get("levels"), list | tuple):
        raise UsageError(f"{name}: expected an object with 'unread' and 'levels'")
    if len(data["levels"]) != levels:
        raise UsageError(f"{name}: {levels - 1} thresholds part {levels} levels, and there are {len(data['levels'])}")
    choices = tuple(_choice(choice, f"{name}, level {i}") for i, choice in enumerate(data["levels"], start=1))
    return Row(_choice(data.get("unread"), name), choices)


def _choice(data: Any, name: str) -> Choice:
    if not isinstance(data, Mapping) or not isinstance(data.get("strategy"), str):
        raise UsageError(f"{name}: expected an object that names a strategy, not {data!r}")
    options = data.get("options", {})
    if not isinstance(options, Mapping):
        raise UsageError(f"{name}: options must be an object, not {options!r}")
    return Choice(data["strategy"], dict(options), str(data.get("label", data["strategy"])))
