"""Compute-optimal search: a few first samples tell how hard a problem is, and a plan what to do about it."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar

from asearch.concurrency import together
from asearch.errors import UsageError
from asearch.plan import Choice, Plan, read_plan
from asearch.strategies.base import Strategy
from asearch.strategies.particles import ParticleFilter
from asearch.strategies.samples import BestOfN
from asearch.strategies.trees import DVTS, BeamSearch, Rebase

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from asearch.path import Path
    from asearch.search import Search

PLANNABLE: dict[str, type[Strategy]] = {kind.name: kind for kind in (BestOfN, BeamSearch, DVTS, ParticleFilter, Rebase)}
GROUPS = ("width", "iterations")  # options that must divide n
OWN = ("n", "max_tokens", "reduction", "select")  # what the whole search says, whatever the plan chooses


@dataclass(frozen=True, kw_only=True)
class ComputeOptimal(Strategy):
    """The strategy that a plan chooses for the problem's difficulty and the budget (Snell et al., arXiv 2408.03314).

    The plan's first samples are part of the budget and of the candidates. What is left goes to the planned strategy,
    rounded down to a multiple of its width, and what that leaves over is further samples, so that n is spent. Where the
    first samples would be more than a quarter of n, no level is read off: the plan's choice for all levels has it all.

    Args:
        plan: a file made by `asearch plan`, its content, or a `Plan`; None: the one fitted on the embedded models.
    """

    name: ClassVar[str] = "compute_optimal"
    stepwise: ClassVar[bool] = True
    plan: str | Mapping[str, Any] | Plan | None = None

    def check(self) -> None:
        super().check()
        plan = read_plan(self.plan)
        for choice in {id(c): c for row in plan.rows.values() for c in (row.unread, *row.levels)}.values():
            strategy_of(choice, self, self.n)

    def describe(self) -> dict[str, Any]:
        """Name and options; the plan as it is, not where it stands: files change."""
        plain = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "plan"}
        return {"name": self.name, **plain, "plan": read_plan(self.plan).to_json()}

    async def run(self, search: Search) -> Sequence[Path]:
        plan = read_plan(self.plan)
        row, first = plan.row(self.n), []
        choice = row.unread
        if plan.reads(self.n):
            first = await samples(search, range(plan.samples))
            if search.stopped_by is not None:
                return first
            mean = statistics.fmean(search.value(path) for path in first) if first else 0.0
            choice = row.levels[plan.level(mean) - 1]
        return sorted([*first, *await self._rest(search, choice, plan)], key=lambda path: path.id)

    async def _rest(self, search: Search, choice: Choice, plan: Plan) -> list[Path]:
        """The planned strategy, beside the first samples, and further samples where its width leaves some over."""
        spent = plan.samples if plan.reads(self.n) else 0
        room = self.n - spent
        planned = strategy_of(choice, self, room)
        share = 0 if planned is None else planned.n
        over = await together([samples(search, range(spent, self.n - share))] if share < room else [])
        if planned is None:
            return over[0]
        search.first_child = self.n - share
        found = await planned.run(search)
        return [*(path for paths in over for path in paths), *found]


def strategy_of(choice: Choice, whole: ComputeOptimal, room: int) -> Strategy | None:
    """The strategy of a choice with as much of the room as its width can use; None where that is nothing.

    Raises:
        UsageError: the plan names a strategy or an option that there is not.
    """
    kind = PLANNABLE.get(choice.strategy)
    if kind is None:
        raise UsageError(f"the plan chooses {choice.strategy!r}; a plan can choose {', '.join(PLANNABLE)}")
    names = {field.name for field in fields(kind)}
    for name in choice.options:
        if name not in names:
            raise UsageError(f"the plan gives {choice.strategy} an option {name!r}; it has {', '.join(sorted(names))}")
    own = {name: getattr(whole, name) for name in OWN}
    early = {"early_stop": False, "confidence": None} if kind is BestOfN else {}  # it would not see the other votes
    value = kind(**{**choice.options, **own, **early, "temperature": whole.temperature, "top_p": whole.top_p})
    part = max(getattr(value, name, 1) for name in GROUPS)
    if room < part or (getattr(value, "iterations", 1) > 1 and room < 2 * part):
        return None
    sized = kind(**{**{f.name: getattr(value, f.name) for f in fields(value)}, "n": room - room % part})
    sized.check()
    return sized


async def samples(search: Search, numbers: range) -> list[Path]:
    """Whole solutions from the start, scored, as candidates."""

    async def one(i: int) -> list[Path]:
        paths = await search.judge(await search.complete(1, first=i))
        await search.finish(paths)
        return paths

    return [path for paths in await together(one(i) for i in numbers) for path in paths]
