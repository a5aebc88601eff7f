"""Tables of what has been run, as Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simulation.study import SCHEDULES, Outcome, Setting

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

Run = tuple[Setting, Outcome]
NAMES = {
    "best_of_n": "best-of-N",
    "beam_search": "beam search",
    "dvts": "DVTS",
    "particle_filter": "particle filter",
    "rebase": "REBASE",
}
SAYS = {
    "asearch": "asearch",
    "lockstep": "lockstep, scored once",
    "reference": "lockstep, scored again (the reference)",
}


def as_run(line: dict[str, Any]) -> Run:
    """A line of the log."""
    return Setting(**line["setting"]), Outcome(**line["outcome"])


def tables(runs: Sequence[Run]) -> str:
    """All that there is to show."""
    parts = [one_replica(runs), schedules(runs), overview(runs), scaling(runs)]
    return "\n\n".join(part for part in parts if part)


def one_replica(runs: Iterable[Run]) -> str:
    """Each strategy on one GPU for the policy and one for the PRM."""
    rows = [
        [
            NAMES.get(s.strategy, s.strategy),
            f"{s.problems} x {s.n}",
            minutes(o.makespan),
            minutes(o.policy_bound),
            minutes(o.prm_bound),
            f"{o.ratio:.3f}",
            percent(o.policy_busy),
            percent(o.prm_busy),
            f"{o.policy_tokens / 1e6:.1f} M",
            f"{o.prm_tokens / 1e6:.1f} M",
            f"{o.prm_excess:.2f}",
        ]
        for s, o in runs
        if s.schedule == "asearch" and s.policies == s.prms == s.workers == 1
    ]
    head = "strategy|problems x n|makespan|policy's bound|PRM's bound|makespan / bound|policy busy|PRM busy"
    return table(f"{head}|policy tokens|PRM tokens computed|of the least", rows)


def schedules(runs: Sequence[Run]) -> str:
    """asearch against the reference's schedules, on the same servers."""
    own = {alike(s): o for s, o in runs if s.schedule == "asearch" and s.policies == s.prms == s.workers == 1}
    rows = []
    for schedule in SCHEDULES[1:]:
        for s, o in runs:
            if s.schedule == schedule and alike(s) in own:
                base = own[alike(s)]
                rows.append(
                    [
                        NAMES.get(s.strategy, s.strategy),
                        f"{s.problems} x {s.n}",
                        SAYS[schedule],
                        minutes(o.makespan),
                        minutes(base.makespan),
                        f"{o.makespan / base.makespan:.1f}",
                        percent(o.policy_busy),
                        percent(o.prm_busy),
                        f"{o.prm_tokens / base.prm_tokens:.2f}",
                    ]
                )
    head = "strategy|problems x n|schedule|makespan|asearch's|times|policy busy|PRM busy|PRM tokens, times asearch's"
    return table(head, rows)


def overview(runs: Sequence[Run]) -> str:
    """Makespan and efficiency of one worker, a column for each number of replicas."""
    own = {
        (alike(s), s.policies): o
        for s, o in runs
        if s.schedule == "asearch" and s.policies == s.prms and s.workers == 1 and s.at_once is None
    }
    numbers = sorted({replicas for _, replicas in own})
    kinds = [kind for kind, replicas in own if replicas == 1]
    if len(numbers) < 2 or not kinds:
        return ""
    rows = []
    for kind in kinds:
        single = own[kind, 1].makespan
        cells = [
            f"{seconds(o.makespan)} ({single / replicas / o.makespan:.2f})" if (o := own.get((kind, replicas))) else ""
            for replicas in numbers
        ]
        rows.append([NAMES.get(kind[0], kind[0]), f"{kind[2]} x {kind[1]}", *cells])
    head = "|".join(["strategy", "problems x n", *(f"{replicas} of each, s" for replicas in numbers)])
    return table(head, rows)


def scaling(runs: Sequence[Run]) -> str:
    """Makespan by replicas; efficiency is against one replica of each kind."""
    kept = [(s, o) for s, o in runs if s.schedule == "asearch" and s.policies == s.prms]
    single = {alike(s): o for s, o in kept if s.policies == s.workers == 1}
    rows = [
        [
            NAMES.get(s.strategy, s.strategy),
            f"{s.problems} x {s.n}",
            str(s.policies),
            str(s.workers),
            seconds(o.makespan),
            f"{o.ratio:.3f}",
            f"{single[alike(s)].makespan / s.policies / o.makespan:.2f}",
            percent(o.policy_busy),
            percent(o.prm_busy),
            f"{o.prm_excess:.2f}",
        ]
        for s, o in kept
        if alike(s) in single and sum(alike(other) == alike(s) for other, _ in kept) > 1
    ]
    head = "strategy|problems x n|replicas of each|workers|makespan, s|makespan / bound|efficiency|policy busy|PRM busy"
    return table(f"{head}|PRM tokens, of the least", rows)


def alike(setting: Setting) -> tuple[str, int, int]:
    """What makes two runs comparable."""
    return setting.strategy, setting.n, setting.problems


def table(head: str, rows: Sequence[Sequence[str]]) -> str:
    """Markdown; the first columns to the left, figures to the right."""
    if not rows:
        return ""
    titles = head.split("|")
    first = [next((row[i] for row in rows if row[i]), "") for i in range(len(titles))]
    ruler = ["---:" if cell[:1].isdigit() else "---" for cell in first]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (titles, ruler, *rows))


def minutes(value: float) -> str:
    """Seconds in minutes."""
    return f"{value / 60:.1f} min" if value >= 120 else seconds(value) + " s"


def seconds(value: float) -> str:
    """Seconds to three digits."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}"


def percent(share: float) -> str:
    """A share of one."""
    return f"{100 * share:.0f} %"
