"""What a terminal shows of a run: how far, how right so far, how fast, how much longer; and the table at the end."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Self

from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from asearch.display import plain_table

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

    from rich.console import Console
    from rich.table import Table

    from asearch.evaluation.entries import Entry
    from asearch.evaluation.run import Progress as RunProgress
    from asearch.evaluation.tally import Line

MINUTE, HOUR = 60, 3600
REFRESH_SECONDS = 0.1  # so that a fast run is not spent on drawing


class Live:
    """Bars of a run, one per strategy and budget under way; on something else than a terminal a line for each that ends.

    A context, and a `watch` for `asearch.evaluate`.

    Args:
        console: where to show it.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self._bars = Progress(
            TextColumn("{task.description:<34}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._whole: TaskID | None = None
        self._tasks: dict[int, TaskID] = {}
        self._ended: set[int] = set()
        self._began = time.monotonic()
        self._drawn = 0.0

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def __call__(self, progress: RunProgress) -> None:
        """Show how far the run is."""
        if self._whole is None:
            self._begin(progress)
        now = time.monotonic()
        if now - self._drawn < REFRESH_SECONDS and progress.done < progress.searches:
            return
        self._drawn = now
        for i, (entry, (done, right)) in enumerate(zip(progress.entries, progress.by_entry, strict=True)):
            self._show_entry(i, entry, done, right, len(entry.seeds) * progress.questions)
        if self._whole is not None:
            self._bars.update(self._whole, completed=progress.done, note=self._pace(progress))

    def _begin(self, progress: RunProgress) -> None:
        self._began = time.monotonic()
        self._whole = self._bars.add_task("all searches", total=progress.searches, note="")
        if progress.before:
            self.console.print(f"going on: {progress.before:,} of {progress.searches:,} searches are in the log")
        totals = [len(entry.seeds) * progress.questions for entry in progress.entries]
        self._ended |= {i for i, (done, _) in enumerate(progress.by_entry) if done == totals[i]}

    def _show_entry(self, i: int, entry: Entry, done: int, right: int, total: int) -> None:
        if i in self._ended or not done:
            return
        note = f"accuracy {100 * right / done:5.1f} %"
        if i not in self._tasks:
            self._tasks[i] = self._bars.add_task(escape(entry_name(entry)), total=total, note="")
        self._bars.update(self._tasks[i], completed=done, note=note)
        if done == total:
            self._ended.add(i)
            self._bars.update(self._tasks[i], visible=False)
            self.console.print(f"{entry_name(entry):<34} {total:,} searches, {note}", markup=False, highlight=False)

    def _pace(self, progress: RunProgress) -> str:
        seconds = time.monotonic() - self._began
        new = progress.done - progress.before
        failed = f", {progress.failures} failed" if progress.failures else ""
        tokens = f"{short(progress.tally.tokens)} tokens{failed}"
        if not new:
            return tokens
        return f"{new / seconds:.1f}/s, {tokens}, {duration(self._left(progress, seconds))} left"

    def _left(self, progress: RunProgress, seconds: float) -> float:
        """Seconds to go: a search of a larger budget takes longer in proportion."""
        worked = progress.work(left=False) - progress.work_before
        return seconds * progress.work(left=True) / max(1, worked)


def entry_name(entry: Entry) -> str:
    """A strategy with its budget."""
    return entry.label if entry.strategy.n == 1 else f"{entry.label}, n={entry.strategy.n}"


def results_table(lines: Iterable[Line]) -> Table:
    """Accuracy and cost per problem, a line per strategy and budget."""
    table = plain_table("strategy", "n", "accuracy", "± seeds", "policy", "PRM", "requests", "seconds")
    table.columns[0].no_wrap = True
    table.caption, table.caption_justify = "tokens, requests and seconds per problem", "left"
    for line in lines:
        table.add_row(
            escape(line.label),
            str(line.n),
            f"{100 * line.accuracy:.1f} %",
            "" if line.spread is None else f"{100 * line.spread:.1f}",
            f"{line.cost.policy_tokens:,.0f}",
            f"{line.cost.prm_tokens:,.0f}",
            f"{line.cost.requests:,.1f}",
            f"{line.cost.seconds:.2f}",
        )
    return table


def duration(seconds: float) -> str:
    """A time span as people say it."""
    if seconds >= HOUR:
        return f"{int(seconds // HOUR)} h {int(seconds % HOUR // MINUTE):02} min"
    return f"{int(seconds // MINUTE)}:{int(seconds % MINUTE):02}"


def short(count: float) -> str:
    """A count in three digits or so."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.1f}{unit}"
    return f"{count:.0f}"
