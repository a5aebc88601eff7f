"""A run of `asearch.evaluate` on a Ray cluster: workers search, this process writes the one log.

Results stream back and are written as they come, so that whatever happens to a worker, a node or this process, what was
finished is in the log, once.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asearch.concurrency import cancel_and_wait
from asearch.errors import AsearchError, UsageError
from asearch.evaluation.folder import RunFailed
from asearch.evaluation.searcher import Models
from asearch.ray.actor import SearchActor
from asearch.ray.board import Board, Item

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Iterator

    from asearch.evaluation.entries import Task
    from asearch.evaluation.questions import Question
    from asearch.evaluation.run import Outcome, Plan
    from asearch.evaluation.searcher import Failure, Job, Model, Searcher

LIMIT = 512  # sequences at one server, over all workers: what one process alone would have under way
SHARD = 16  # searches that are sent to a worker together, where nobody says how many it runs at once
SHARDS = 2  # per worker: one that runs, and one that waits, so that no worker waits for this process
START_SECONDS = 120.0
STARTS = 3  # of a worker that does not come up, or cannot use its servers


@dataclass(frozen=True, slots=True)
class RayEngine:
    """An engine for `asearch.evaluate(..., engine=RayEngine(workers=8))`.

    Args:
        address: of a running cluster ("auto" for the one that this machine belongs to); None joins that of RAY_ADDRESS,
            or starts one on this machine.
        workers: processes that search; None: one per machine of the cluster.
        cpus: that a worker takes up in Ray's accounts.
        patience: seconds that the run waits for a worker while it has none.
    """

    address: str | None = None
    workers: int | None = None
    cpus: float = 1.0
    patience: float = START_SECONDS

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise UsageError(f"a run needs at least 1 worker, not {self.workers}")

    async def __call__(
        self, plan: Plan, searcher: Searcher, tasks: Iterable[tuple[Task, Question]]
    ) -> AsyncGenerator[Outcome, None]:
        """Yield the outcome of every task as it comes.

        Raises:
            UsageError: Ray is not installed, or a server is not named by its URL.
            RunFailed: there is no cluster, or no worker can be started in it.
            EndpointError: no worker can use the servers.
        """
        with joined(self.address) as ray:
            workers = self.workers or sum(node["Alive"] for node in ray.nodes())
            board = Board(tasks, workers=workers, shard=plan.job.at_once or SHARD)
            job = replace(plan.job, models=shares(plan.job.models, workers))
            crew = Crew(ray, job, board, searcher, workers, self)
            try:
                async for outcome in crew.outcomes():
                    yield outcome
            finally:
                await crew.aclose()


@contextmanager
def joined(address: str | None) -> Iterator[Any]:
    """Ray, connected to its cluster: the one that this process uses already, or the one of the address."""
    try:
        import ray
    except ImportError:
        raise UsageError("the engine ray needs the extra: pip install 'asearch[ray]'") from None
    if ray.is_initialized():
        yield ray
        return
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, include_dashboard=None)
    except (ConnectionError, ValueError, RuntimeError) as failure:
        raise RunFailed(f"no Ray cluster at {address or 'RAY_ADDRESS'}: {str(failure).splitlines()[0]}") from failure
    try:
        yield ray
    finally:
        ray.shutdown()


def shares(models: Models, workers: int) -> Models:
    """The servers as one of several workers sees them: its share of what each may be sent, and an eye on its queue.

    Raises:
        UsageError: a server is an object of this process.
    """
    return Models(
        _shared(models.policy, workers),
        None if models.prm is None else _shared(models.prm, workers),
        None if models.baseline is None else _shared(models.baseline, workers),
    )


def _shared(model: Model, workers: int) -> Model:
    urls = model.server if isinstance(model.server, list | tuple) else [model.server]
    if not all(isinstance(url, str | Path) for url in urls):
        raise UsageError(
            f"workers on other machines need a server by its URL, not {type(model.server).__name__} of this process"
        )
    return replace(model, endpoint={"limit": max(1, LIMIT // workers), "shared": True, **model.endpoint})


class Slot:
    """The place of a worker: whoever has it now, and those that come after it is lost."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.actor: Any = None
        self.starting: asyncio.Task[Any] | None = None


class Crew:
    """The workers of a run, and this process's side of each.

    Args:
        ray: the module, connected.
        job: what each worker needs to know.
        board: who does what.
        searcher: words failures.
        workers: how many.
        engine: its settings.
    """

    def __init__(self, ray: Any, job: Job, board: Board, searcher: Searcher, workers: int, engine: RayEngine) -> None:
        self._ray = ray
        self._job = job
        self._board = board
        self._searcher = searcher
        self._engine = engine
        self._slots = [Slot(number) for number in range(workers)]
        self._found: asyncio.Queue[Outcome | BaseException] = asyncio.Queue()
        self._change = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._last_seen = self._now()

    async def outcomes(self) -> AsyncGenerator[Outcome, None]:
        """The outcome of every search."""
        lanes = [self._lane(slot) for slot in self._slots for _ in range(SHARDS)]
        self._tasks = [asyncio.ensure_future(self._guarded(work)) for work in (*lanes, self._isolation())]
        waiting = self._board.left
        while waiting:
            found = await self._next()
            if isinstance(found, BaseException):
                raise found
            yield found
            waiting -= 1

    async def aclose(self) -> None:
        """Let all workers go, wherever they are."""
        starting = [slot.starting for slot in self._slots if slot.starting is not None]
        await cancel_and_wait([*self._tasks, *starting])
        for slot in self._slots:
            self._kill(slot.actor)

    async def _next(self) -> Outcome | BaseException:
        """What comes next; while there is no worker at all, only for so long."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    return await self._found.get()
            if any(slot.actor is not None for slot in self._slots):
                self._last_seen = self._now()
            elif self._now() - self._last_seen > self._engine.patience:
                free = self._ray.available_resources().get("CPU", 0)
                raise RunFailed(
                    f"no worker could be started for {self._engine.patience:.0f} s: each needs {self._engine.cpus:g} "
                    f"CPUs, and the cluster has {free:g} free; what was finished is in the log"
                )

    async def _guarded(self, work: Any) -> None:
        """A failure of this side ends the run."""
        try:
            await work
        except Exception as failure:  # noqa: BLE001 - whatever it is, it is raised where the run is waited for
            self._found.put_nowait(failure)

    # -- one worker ---------------------------------------------------------------------------------------------------

    async def _lane(self, slot: Slot) -> None:
        """Keep a worker busy: one shard after another, as long as there is something to do."""
        while self._board.left:
            actor = await self._started(slot)
            shard = self._board.take(slot.number, self._now())
            if not shard:
                await self._pause(slot)
            elif not await self._ran(actor, slot.number, shard):
                self._lost(slot, actor)

    async def _ran(self, actor: Any, worker: int, shard: list[Item]) -> bool:
        """Have a shard searched, and hand on what is found; False where the worker was lost."""
        work = [(item.task, item.question) for item in shard]
        try:
            async for reference in actor.search.options(num_returns="streaming").remote(work):
                place, outcome = await reference
                self._deliver(worker, shard[place], outcome)
        except self._ray.exceptions.RayTaskError as failure:
            raise plain(failure, "a worker failed") from failure
        except self._ray.exceptions.RayError:  # the process has died, the node has left, or nobody knows
            return False
        return True

    def _deliver(self, worker: int, item: Item, outcome: Any) -> None:
        if self._board.finish(worker, item, self._now()):
            self._found.put_nowait((item.task, outcome))
        self._wake()

    async def _pause(self, slot: Slot) -> None:
        """Wait until something has changed, or a search of another worker becomes overdue."""
        due = self._board.next_due(slot.number)
        with suppress(TimeoutError):
            async with asyncio.timeout(None if due is None else max(0.01, due - self._now())):
                await self._change.wait()

    def _wake(self) -> None:
        self._change.set()
        self._change = asyncio.Event()

    def _lost(self, slot: Slot, actor: Any) -> None:
        """Put back what a worker had, and let another take its place; its other lane may have seen to it already."""
        if slot.actor is actor:
            slot.actor = slot.starting = None
            self._kill(actor)
            self._board.lose(slot.number)
            self._wake()

    async def _started(self, slot: Slot) -> Any:
        """The worker of a slot, started when there is none; its lanes wait for the same."""
        if slot.actor is None:
            if slot.starting is None:
                slot.starting = asyncio.ensure_future(self._start(slot))
            await asyncio.shield(slot.starting)
        return slot.actor

    async def _start(self, slot: Slot) -> None:
        """Start a worker, again where it did not come up; the cluster may have no room for it yet."""
        for attempt in range(1, STARTS + 1):
            actor = self._new()
            try:
                await actor.open.remote()
            except self._ray.exceptions.RayError as failure:
                self._kill(actor)
                if attempt == STARTS:
                    raise plain(failure, "a worker could not be started") from failure
            else:
                slot.actor = actor
                return

    def _new(self) -> Any:
        options = {"num_cpus": self._engine.cpus, "scheduling_strategy": "SPREAD", "max_restarts": 0}
        return self._ray.remote(SearchActor).options(**options).remote(self._job)

    def _kill(self, actor: Any) -> None:
        if actor is not None:
            self._ray.kill(actor)

    # -- searches that kill their workers -----------------------------------------------------------------------------

    async def _isolation(self) -> None:
        """Try searches with which workers were lost again and again, each by a worker of its own."""
        while self._board.left:
            item = self._board.suspect()
            if item is None:
                await self._change.wait()
                continue
            slot = Slot(-1)
            try:
                await self._start(slot)
                if not await self._ran(slot.actor, slot.number, [item]):
                    self._deliver(slot.number, item, self._deadly(item))
            finally:
                self._kill(slot.actor)

    def _deadly(self, item: Item) -> Failure:
        error = f"the process that searched this problem died {item.deaths + 1} times, the last time with nothing else to do"
        return self._searcher.failure(item.task, item.question, error)

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()


def plain(failure: Any, what: str) -> BaseException:
    """What went wrong in a worker, as it would have been raised here; or, if it was nothing of ours, in one line."""
    cause = getattr(failure, "cause", None)
    if isinstance(cause, AsearchError):
        return cause
    last = (str(failure).strip().splitlines() or [type(failure).__name__])[-1]
    return RunFailed(f"{what}: {last.strip()}; what was finished is in the log")
