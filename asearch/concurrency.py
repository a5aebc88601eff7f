"""Structured concurrency without HTTP: run together, limit, gather into batches.

Each of these decides synchronously and does I/O afterwards: one plain function moves the queue and the counters, and
the awaiting code calls it on entry, on exit and on cancellation. No locks are needed on one event loop.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections import deque
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Sequence
    from typing import Any

T = TypeVar("T")
R = TypeVar("R")

# Who may go first where sequences are scarce: the lower number. Every search takes the next one, so that older
# searches finish early and their prefixes leave the server's cache before new ones come in.
seniority: ContextVar[int] = ContextVar("seniority", default=0)


async def together(coroutines: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Run coroutines at once and return their results in order.

    The first failure cancels the others and is raised as it is, not wrapped in a group.
    """
    coroutines = list(coroutines)
    if len(coroutines) == 1:  # nothing to run beside it: spare the task
        return [await coroutines[0]]
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(c) for c in coroutines]
    except BaseExceptionGroup as failures:
        raise first_failure(failures) from None
    return [task.result() for task in tasks]


async def as_completed(coroutines: Iterable[Coroutine[Any, Any, T]]) -> AsyncGenerator[tuple[int, T], None]:
    """Yield (index, result) as coroutines end; leaving the loop early cancels what still runs and waits for it."""
    tasks = {asyncio.ensure_future(c): i for i, c in enumerate(coroutines)}
    waiting = set(tasks)
    try:
        while waiting:
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in sorted(done, key=tasks.__getitem__):
                yield tasks[task], task.result()
    finally:
        await cancel_and_wait(tasks)


async def cancel_and_wait(tasks: Iterable[asyncio.Future[Any]]) -> None:
    """Cancel tasks and see each of them out, so that nothing runs on behind the caller's back."""
    pending = set(tasks)
    for task in pending:
        task.cancel()
    if pending:
        await asyncio.wait(pending)
    for task in pending:
        if not task.cancelled():
            task.exception()  # seen: nobody else will ask


def cancel_when_done(task: asyncio.Task[Any], futures: Sequence[asyncio.Future[Any]]) -> None:
    """Cancel a task once all of the futures are done, by whatever way: nobody waits for it any longer."""
    waiting = set(futures)

    def note(future: asyncio.Future[Any]) -> None:
        waiting.discard(future)
        if not waiting:
            task.cancel()

    for future in futures:
        future.add_done_callback(note)


def first_failure(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first leaf of an exception group."""
    failure: BaseException = group
    while isinstance(failure, BaseExceptionGroup):
        failure = failure.exceptions[0]
    return failure


class Limiter:
    """At most `limit` units in use at a time; requests come in sizes, and wait by seniority, then in order.

    A request larger than the whole limit runs alone rather than never. `limit` may be changed at any time; `in_use`
    and `waiting` (both in units) can be watched.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.in_use = 0
        self.waiting = 0
        self._queue: list[tuple[int, int, int, asyncio.Future[None]]] = []
        self._order = itertools.count()

    @property
    def limit(self) -> int:
        return self._limit

    @limit.setter
    def limit(self, value: int) -> None:
        self._limit = max(1, value)
        self._admit()

    @asynccontextmanager
    async def hold(self, units: int = 1) -> AsyncIterator[None]:
        """Wait for room for `units`, keep them inside the block, give them back whatever happens."""
        await self._acquire(units)
        try:
            yield
        finally:
            self.in_use -= units
            self._admit()

    async def _acquire(self, units: int) -> None:
        ticket: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._queue, (seniority.get(), next(self._order), units, ticket))
        self.waiting += units
        self._admit()
        try:
            await ticket
        except asyncio.CancelledError:
            if ticket.done() and not ticket.cancelled():  # admitted in the very moment of the cancellation
                self.in_use -= units
            else:
                self.waiting -= units
            self._admit()
            raise

    def _admit(self) -> None:
        while self._queue:
            _, _, units, ticket = self._queue[0]
            if ticket.cancelled():
                heapq.heappop(self._queue)
                continue
            if self.in_use and self.in_use + units > self._limit:
                return
            heapq.heappop(self._queue)
            self.in_use += units
            self.waiting -= units
            ticket.set_result(None)


class Batcher(Generic[T, R]):
    """Gather single items into batches: send at once while there is room, gather while the server is busy.

    No timer: an idle batcher sends the first item in the same turn of the event loop that brought it (together with
    what else came in that turn), and a busy one lets items pile up until a running batch returns.

    Args:
        send: takes a list of items and returns as many results in order.
        concurrency: batches that may be under way at once.
        max_items: items in one batch.
        max_cost: the sum of `cost` over the items of one batch (tokens, say).
        cost: what one item costs.
    """

    def __init__(
        self,
        send: Callable[[list[T]], Awaitable[Sequence[R]]],
        *,
        concurrency: int = 2,
        max_items: int = 64,
        max_cost: float = float("inf"),
        cost: Callable[[T], float] = lambda _: 1.0,
    ) -> None:
        self._send = send
        self.concurrency = concurrency
        self.max_items = max_items
        self.max_cost = max_cost
        self._cost = cost
        self._queue: deque[tuple[T, asyncio.Future[R]]] = deque()
        self._running: set[asyncio.Task[None]] = set()
        self._wake: asyncio.Handle | None = None
        self._closed = False

    @property
    def waiting(self) -> int:
        """Items that wait for a batch."""
        return len(self._queue)

    @property
    def in_flight(self) -> int:
        """Batches under way."""
        return len(self._running)

    async def submit(self, item: T) -> R:
        """Hand in one item and wait for its result. Cancelling the wait leaves the neighbours alone."""
        if self._closed:
            raise RuntimeError("the batcher is closed")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[R] = loop.create_future()
        self._queue.append((item, future))
        if self._wake is None:  # one turn later, so that siblings that arrive together travel together
            self._wake = loop.call_soon(self._dispatch)
        return await future

    async def aclose(self) -> None:
        """Stop at once: whoever still waits gets a RuntimeError instead of a result."""
        self._closed = True
        for _, future in self._queue:
            if not future.done():
                future.set_exception(RuntimeError("the batcher was closed before this item was sent"))
        self._queue.clear()
        await cancel_and_wait(self._running)

    def _dispatch(self) -> None:
        self._wake = None
        while self._queue and len(self._running) < self.concurrency:
            batch = self._take()
            if batch:
                task = asyncio.ensure_future(self._run(batch))
                self._running.add(task)
                task.add_done_callback(self._finished)
                cancel_when_done(task, [future for _, future in batch])  # no caller left: the request goes, too

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._dispatch()

    def _take(self) -> list[tuple[T, asyncio.Future[R]]]:
        batch: list[tuple[T, asyncio.Future[R]]] = []
        cost = 0.0
        while self._queue and len(batch) < self.max_items:
            item, future = self._queue[0]
            if future.done():  # its caller was cancelled while it waited
                self._queue.popleft()
                continue
            cost += self._cost(item)
            if batch and cost > self.max_cost:
                break
            batch.append(self._queue.popleft())
        return batch

    async def _run(self, batch: list[tuple[T, asyncio.Future[R]]]) -> None:
        try:
            await self._deliver(batch)
        finally:
            for _, future in batch:
                if not future.done():
                    future.set_exception(RuntimeError("the batcher was closed while this item was under way"))

    async def _deliver(self, batch: list[tuple[T, asyncio.Future[R]]]) -> None:
        try:
            results = await self._send([item for item, _ in batch])
            if len(results) != len(batch):
                raise RuntimeError(f"a batch of {len(batch)} items came back with {len(results)} results")
        except Exception as failure:  # noqa: BLE001 - whatever it is, it belongs to the callers
            await self._divide(batch, failure)
            return
        for (_, future), result in zip(batch, results, strict=True):
            if not future.done():
                future.set_result(result)

    async def _divide(self, batch: list[tuple[T, asyncio.Future[R]]], failure: Exception) -> None:
        """One bad item must not fail its neighbours: halve the batch until the bad one stands alone.

        Failures that have nothing to do with the items (no access, no connection) are everybody's at once.
        """
        if len(batch) == 1 or not getattr(failure, "divisible", True):
            for _, future in batch:
                if not future.done():
                    future.set_exception(failure)
            return
        half = len(batch) // 2
        await self._deliver(batch[:half])
        await self._deliver(batch[half:])


class Memo(Generic[T, R]):
    """Compute a value per key once, however many ask at the same time; failures are not remembered.

    The computation belongs to all who wait for it: it is cancelled when the last of them has gone.
    """

    def __init__(self, compute: Callable[[T], Coroutine[Any, Any, R]], *, max_size: int = 4096) -> None:
        self._compute = compute
        self._max_size = max_size
        self._values: dict[T, R] = {}
        self._under_way: dict[T, asyncio.Task[R]] = {}
        self._waiters: dict[T, int] = {}

    def known(self, key: T) -> R | None:
        """The value, if it has been computed."""
        return self._values.get(key)

    async def get(self, key: T) -> R:
        """The value for `key`, computed by the first who asks."""
        if key in self._values:
            return self._values[key]
        if key not in self._under_way:
            self._under_way[key] = asyncio.create_task(self._compute(key))
            self._waiters[key] = 0
        task = self._under_way[key]
        self._waiters[key] += 1
        try:
            value = await asyncio.shield(task)
        finally:
            await self._leave(key, task)
        self._values[key] = value
        while len(self._values) > self._max_size:
            self._values.pop(next(iter(self._values)))
        return value

    async def _leave(self, key: T, task: asyncio.Task[R]) -> None:
        if self._under_way.get(key) is not task:
            return
        self._waiters[key] -= 1
        if self._waiters[key] == 0:
            del self._under_way[key], self._waiters[key]
            if not task.done():
                await cancel_and_wait([task])
            elif not task.cancelled():
                task.exception()  # seen, should the last to wait have been cancelled in the very same turn
