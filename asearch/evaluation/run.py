"""A run from its beginning to its end: what is not in the log yet is searched, graded and written."""

from __future__ import annotations

import asyncio
import platform
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Protocol

from asearch.concurrency import cancel_and_wait
from asearch.errors import UsageError
from asearch.evaluation.entries import Entry, Task, tasks_of
from asearch.evaluation.folder import RunFailed, RunFolder, opened, read_records
from asearch.evaluation.records import Key
from asearch.evaluation.searcher import Failure, Job, Searcher
from asearch.evaluation.tally import Line, Tally

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
    from pathlib import Path

    from asearch.evaluation.datasets import Dataset
    from asearch.evaluation.questions import Question
    from asearch.evaluation.records import Record
    from asearch.workers import AnswerWorkers

FORMAT = 1  # of the run folder
FREE = ("created", "environment", "url", "source", "revision")  # of the configuration: may differ when a run goes on
MANY_FAILURES = 16  # in a row, and at least twice as many as run at once: nothing works any more

Outcome = tuple[Task, "Record | Failure"]


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that a run is made of.

    Args:
        dataset: the questions.
        job: the strategies, the models and how they are asked.
        budgets: at which results are counted.
        folder: where the log goes.
        keep_errors: write down searches that came to nothing, instead of trying them again the next time.
    """

    dataset: Dataset
    job: Job
    budgets: tuple[int, ...]
    folder: Path
    keep_errors: bool = False

    def config(self, servers: dict[str, Any]) -> dict[str, Any]:
        """The configuration that is frozen in the folder."""
        return {
            "format": FORMAT,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "versions": {"asearch": _installed("asearch")},
            "environment": {"python": platform.python_version(), "platform": platform.platform()},
            "dataset": self.dataset.describe(),
            "models": servers,
            "system_prompt": self.job.system,
            "pattern": self.job.pattern,
            "budgets": list(self.budgets),
            "entries": [entry.describe() for entry in self.job.entries],
            "tree": self.job.tree,
        }


class Engine(Protocol):
    """How the searches of a run are carried out: here, or on other machines."""

    def __call__(
        self, plan: Plan, searcher: Searcher, tasks: Iterable[tuple[Task, Question]]
    ) -> AsyncGenerator[Outcome, None]:
        """Yield the outcome of every task, in any order."""
        ...


@dataclass(slots=True)
class Progress:
    """How far a run is; the same object is handed out again and again.

    Args:
        entries: what is run.
        questions: how many problems there are.
        tally: all that is in the log.
        searches: how many searches the run has in all.
        before: of these, in the log when the run went on.
        done: in the log by now.
        failures: searches that came to nothing this time.
        work_before: `work` that was done when the run went on.
        by_entry: searches in the log, and right ones among them, per entry.
        errors: what went wrong, the latest last.
    """

    entries: Sequence[Entry]
    questions: int
    tally: Tally
    searches: int = 0
    before: int = 0
    done: int = 0
    failures: int = 0
    work_before: int = 0
    by_entry: list[list[int]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def note(self, entry: int, record: Record) -> None:
        """Count a record of the log."""
        self.done += 1
        self.by_entry[entry][0] += 1
        self.by_entry[entry][1] += record.right
        self.tally.add(record)

    def work(self, *, left: bool) -> int:
        """Searches weighed by their budget, those that are done or those that are left: what remaining time is read off."""
        done = sum(count * entry.strategy.n for (count, _), entry in zip(self.by_entry, self.entries, strict=True))
        whole = sum(len(entry.seeds) * self.questions * entry.strategy.n for entry in self.entries)
        return whole - done if left else done


class Watcher(Protocol):
    """Is told how a run goes on."""

    def __call__(self, progress: Progress) -> None:
        """Something was finished, or failed."""
        ...


@dataclass(frozen=True, slots=True)
class Run:
    """A run whose command came to its end.

    Args:
        folder: with its configuration and its log.
        searches: how many searches the whole run has.
        done: of these, in the log.
        failures: searches that came to nothing; the same command tries them again.
        errors: what went wrong with them.
        tally: everything in the log, counted.
    """

    folder: Path
    searches: int
    done: int
    failures: int
    errors: tuple[str, ...]
    tally: Tally

    @property
    def complete(self) -> bool:
        """Whether nothing is left to do."""
        return self.done == self.searches

    def records(self) -> Iterator[Record]:
        """The log, one record after another."""
        return read_records(self.folder)

    def lines(self) -> list[Line]:
        """Accuracy and cost per strategy and budget."""
        return list(self.tally.lines())


async def run(
    plan: Plan, *, engine: Engine | None = None, watch: Watcher | None = None, workers: AnswerWorkers | None = None
) -> Run:
    """Carry out what is not in the folder's log yet.

    Args:
        plan: what to run.
        engine: how; None: in this process.
        watch: is told of each finished search.
        workers: processes that read answers; None starts some.

    Raises:
        UsageError: the folder holds another run, or the plan cannot work.
        EndpointError: a server cannot be used.
        RunFailed: the folder cannot be written to, or search after search failed; what was finished is in the log.
    """
    async with Searcher(plan.job, workers) as searcher:
        progress = _progress(plan)
        known = {Key(e.label, e.strategy.n, seed, ""): i for i, e in enumerate(plan.job.entries) for seed in e.seeds}
        done: set[Key] = set()

        def seen(record: Record) -> None:
            if record.key in done:
                return
            entry = known.get(record.key._replace(unique_id=""))
            if entry is None:
                raise RunFailed(
                    f"{plan.folder} has a record of {record.label!r}, seed {record.seed}, which is not of this run"
                )
            done.add(record.key)
            progress.note(entry, record)

        config = plan.config(await searcher.describe())
        with opened(plan.folder, config, ignored=FREE, seen=seen) as folder:
            progress.before, progress.work_before = progress.done, progress.work(left=False)
            if watch is not None:
                watch(progress)
            outcomes = (engine or here)(plan, searcher, _to_do(plan, done))
            async with aclosing(outcomes):
                await _write_all(plan, folder, outcomes, progress, watch)
    return Run(plan.folder, progress.searches, progress.done, progress.failures, tuple(progress.errors), progress.tally)


def _progress(plan: Plan) -> Progress:
    entries, questions = plan.job.entries, len(plan.dataset.questions)
    searches = sum(len(entry.seeds) for entry in entries) * questions
    counts = [[0, 0] for _ in entries]
    return Progress(entries, questions, Tally(plan.budgets), searches=searches, by_entry=counts)


def _to_do(plan: Plan, done: set[Key]) -> Iterator[tuple[Task, Question]]:
    """The searches that are not in the log, in order."""
    questions = plan.dataset.questions
    for task in tasks_of(plan.job.entries, len(questions)):
        entry, question = plan.job.entries[task.entry], questions[task.question]
        if Key(entry.label, entry.strategy.n, task.seed, question.id) not in done:
            yield task, question


async def _write_all(
    plan: Plan,
    folder: RunFolder,
    outcomes: AsyncGenerator[Outcome, None],
    progress: Progress,
    watch: Watcher | None,
) -> None:
    """Write each outcome down as it comes.

    Raises:
        RunFailed: too many failed, one after another.
    """
    in_a_row = 0
    async for task, outcome in outcomes:
        if isinstance(outcome, Failure):
            in_a_row += 1
            progress.failures += 1
            progress.errors = [*progress.errors[-MANY_FAILURES:], outcome.error]
            if plan.keep_errors:
                folder.append(outcome.record)
                progress.note(task.entry, outcome.record)
            if in_a_row >= max(MANY_FAILURES, 2 * (plan.job.at_once or 0)):
                raise RunFailed(
                    f"{in_a_row} searches in a row failed, the last: {outcome.error}; {folder.written} were finished "
                    "before, and the same command goes on from there"
                )
        else:
            in_a_row = 0
            folder.append(outcome)
            progress.note(task.entry, outcome)
        if watch is not None:
            watch(progress)


async def here(
    plan: Plan,  # noqa: ARG001 - other engines need it
    searcher: Searcher,
    tasks: Iterable[tuple[Task, Question]],
) -> AsyncGenerator[Outcome, None]:
    """The engine of one process: searches across strategies and seeds, without a pause between, as there is room."""

    async def one(task: Task, question: Question) -> Outcome:
        return task, await searcher.search(task, question)

    pending: set[asyncio.Task[Outcome]] = set()
    try:
        for task, question in tasks:
            pending.add(asyncio.create_task(one(task, question)))
            if len(pending) >= searcher.most(task.entry):
                for finished in await _first(pending):
                    pending.discard(finished)
                    yield finished.result()
        while pending:
            for finished in await _first(pending):
                pending.discard(finished)
                yield finished.result()
    finally:
        await cancel_and_wait(pending)


async def _first(pending: set[asyncio.Task[Outcome]]) -> set[asyncio.Task[Outcome]]:
    """Those that are done, as soon as one is."""
    return (await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED))[0]


def check_at_once(at_once: int | None) -> int | None:
    """Refuse what is no number of searches.

    Raises:
        UsageError: it is below 1.
    """
    if at_once is not None and (not isinstance(at_once, int) or at_once < 1):
        raise UsageError(f"at_once must be at least 1, or None for as many as there is room for, not {at_once!r}")
    return at_once


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
