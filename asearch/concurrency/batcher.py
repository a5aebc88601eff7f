"""Single items, gathered into batches: at once while there is room, more at a time while there is none."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

from asearch.concurrency.limiter import seniority
from asearch.concurrency.together import cancel_and_wait, cancel_when_done
from asearch.errors import Closed, ServerError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable, Sequence

T = TypeVar("T")
R = TypeVar("R")

HOPELESS = 2  # divisions without one success, after which failures of the server count as everybody's


@dataclass(slots=True, eq=False)
class _Call:
    """One who waits for items, and for whom he works (a ledger, a seniority).

    Args:
        future: done when the last of his items is, or when he has gone.
        context: his.
        left: items without a result.
    """

    future: asyncio.Future[None]
    context: Context
    left: int


@dataclass(slots=True, eq=False)
class _Entry(Generic[T, R]):
    """One item of a call, and what came of it."""

    item: T
    call: _Call
    lane: _Lane[T, R]
    queued: bool = True
    settled: bool = False
    result: R | Exception | None = None

    @property
    def wanted(self) -> bool:
        """Whether somebody waits for a result."""
        return not self.settled and not self.call.future.done()

    def settle(self, result: R | Exception) -> None:
        """Hand the result to the one who waits, if he still does; he wakes up when he has all of his."""
        if self.wanted:
            self.result, self.settled = result, True
            self.call.left -= 1
            if not self.call.left:
                self.call.future.set_result(None)


@dataclass(slots=True)
class _Lane(Generic[T, R]):
    """A queue of its own, and the batches of it that are under way."""

    queue: list[tuple[int, int, _Entry[T, R]]] = field(default_factory=list)
    running: set[asyncio.Task[None]] = field(default_factory=set)
    waiting: int = 0


class Batcher(Generic[T, R]):
    """Gather single items into batches: send at once while there is room, gather while the server is busy.

    No timer: an idle batcher sends the first item in the same turn of the event loop that brought it (together with
    what else came in that turn), and a busy one lets items pile up until a running batch returns. Items wait by
    seniority, then in order, and a batch runs in the context of its first item.

    A batch of which one item is bad is divided until that item stands alone; the others get their results.

    Args:
        send: takes a list of items (and their lane, where there are lanes) and returns as many results in order; an
            exception among them is the failure of that item alone.
        concurrency: batches that may be under way at once, in each lane.
        max_items: items in one batch.
        max_cost: the sum of `cost` over the items of one batch (tokens, say).
        cost: what one item costs.
        lane: items of different lanes (replicas, say) never meet in a batch, and do not wait for each other.
    """

    def __init__(
        self,
        send: Callable[..., Awaitable[Sequence[R | Exception]]],
        *,
        concurrency: int = 2,
        max_items: int = 64,
        max_cost: float = float("inf"),
        cost: Callable[[T], float] = lambda _: 1.0,
        lane: Callable[[T], Hashable] | None = None,
    ) -> None:
        self._send = send
        self.concurrency = concurrency
        self.max_items = max_items
        self.max_cost = max_cost
        self._cost = cost
        self._lane_of = lane
        self._lanes: dict[Hashable, _Lane[T, R]] = {}
        self._order = itertools.count()
        self._wake: asyncio.Handle | None = None
        self._closed = False

    @property
    def waiting(self) -> int:
        """Items that wait for a batch."""
        return sum(lane.waiting for lane in self._lanes.values())

    @property
    def in_flight(self) -> int:
        """Batches under way."""
        return sum(len(lane.running) for lane in self._lanes.values())

    def waiting_in(self, lane: Hashable) -> int:
        """Items that wait for a batch of one lane."""
        return self._lanes[lane].waiting if lane in self._lanes else 0

    async def submit(self, item: T) -> R:
        """Hand in one item and wait for its result. Cancelling the wait leaves the neighbours alone.

        Raises:
            Closed: the batcher was closed, before or meanwhile.
        """
        (result,) = await self.submit_all([item])
        if isinstance(result, Exception):
            raise result
        return result

    async def submit_all(self, items: Sequence[T]) -> list[R | Exception]:
        """Hand in several items and wait for all; an item that failed has its exception in its place.

        As `submit` for each of them at once, without a task or a future for each.

        Raises:
            Closed: the batcher was closed before.
        """
        if self._closed:
            raise Closed("the batcher is closed")
        if not items:
            return []
        loop = asyncio.get_running_loop()
        call = _Call(loop.create_future(), copy_context(), len(items))
        entries = [self._enter(item, call) for item in items]
        if self._wake is None:  # one turn later, so that those who come together travel together
            self._wake = loop.call_soon(self._dispatch)
        try:
            await call.future
        finally:
            call.future.cancel()  # what was not sent yet, and is not wanted any longer, is not sent
            for entry in entries:
                entry.lane.waiting -= entry.queued
                entry.queued = False
        return [entry.result for entry in entries]  # type: ignore[misc]  # all are settled

    def _enter(self, item: T, call: _Call) -> _Entry[T, R]:
        lane = self._lanes.setdefault(self._lane_of(item) if self._lane_of else None, _Lane())
        entry: _Entry[T, R] = _Entry(item, call, lane)
        heapq.heappush(lane.queue, (seniority.get(), next(self._order), entry))
        lane.waiting += 1
        return entry

    async def aclose(self) -> None:
        """Stop at once: whoever still waits gets `Closed` instead of a result."""
        self._closed = True
        lanes = list(self._lanes.values())
        for lane in lanes:
            for _, _, entry in lane.queue:
                entry.settle(Closed("the batcher was closed before this item was sent"))
            lane.queue.clear()
        await cancel_and_wait([task for lane in lanes for task in lane.running])

    def _dispatch(self) -> None:
        self._wake = None
        for name in list(self._lanes):
            self._start(name)

    def _start(self, name: Hashable) -> None:
        """Send what a lane has room for; a lane in which nothing happens is taken down."""
        lane = self._lanes.get(name)
        if lane is None:
            return
        while lane.queue and len(lane.running) < self.concurrency:
            batch = self._take(lane)
            if batch:
                context = batch[0].call.context.copy()  # other items of the same call may be in another batch
                task = asyncio.get_running_loop().create_task(self._run(batch, name), context=context)
                lane.running.add(task)
                task.add_done_callback(lambda done: self._finished(name, done))
                cancel_when_done(task, {entry.call.future for entry in batch})  # no caller left: the request goes, too
        if not lane.queue and not lane.running:
            del self._lanes[name]

    def _finished(self, name: Hashable, task: asyncio.Task[None]) -> None:
        self._lanes[name].running.discard(task)
        self._start(name)

    def _take(self, lane: _Lane[T, R]) -> list[_Entry[T, R]]:
        batch: list[_Entry[T, R]] = []
        cost = 0.0
        while lane.queue and len(batch) < self.max_items:
            entry = lane.queue[0][2]
            if entry.wanted:  # else its caller was cancelled while it waited
                cost += self._cost(entry.item)
                if batch and cost > self.max_cost:
                    break
                batch.append(entry)
                lane.waiting -= entry.queued
                entry.queued = False
            heapq.heappop(lane.queue)
        return batch

    async def _run(self, batch: list[_Entry[T, R]], lane: Hashable) -> None:
        try:
            await self._deliver(batch, lane)
        finally:
            for entry in batch:
                entry.settle(Closed("the batcher was closed while this item was under way"))

    async def _deliver(self, batch: list[_Entry[T, R]], lane: Hashable) -> None:
        """Send a batch; divide what failed, level by level, until each bad item stands alone."""
        parts, level, passed = [batch], 0, False
        while parts:
            failures = [
                await self._attempt(part, lane) for part in parts
            ]  # one after another: it is the room of one batch
            passed = passed or None in failures
            hopeless = level >= HOPELESS and not passed
            failed = [(part, failure) for part, failure in zip(parts, failures, strict=True) if failure is not None]
            parts, level = [], level + 1
            for part, failure in failed:
                if len(part) > 1 and may_divide(failure, hopeless=hopeless):
                    half = len(part) // 2
                    parts += [part[:half], part[half:]]
                else:
                    for entry in part:
                        entry.settle(failure)

    async def _attempt(self, batch: list[_Entry[T, R]], lane: Hashable) -> Exception | None:
        """Send and hand out the results; what went wrong, if anything."""
        wanted = [entry for entry in batch if entry.wanted]
        if not wanted:
            return None
        try:
            items = [entry.item for entry in wanted]
            results = await (self._send(items, lane) if self._lane_of else self._send(items))
        except Exception as failure:  # noqa: BLE001 - whatever it is, it belongs to the callers
            return failure
        if len(results) != len(wanted):
            return RuntimeError(f"a batch of {len(wanted)} items came back with {len(results)} results")
        for entry, result in zip(wanted, results, strict=True):
            entry.settle(result)
        return None


def may_divide(failure: Exception, *, hopeless: bool) -> bool:
    """Whether a failure may be the fault of single items.

    A refusal may always be; a failure of the server (500) as long as some part of the batch passed or has not been tried;
    no access and no connection never are.
    """
    if getattr(failure, "divisible", True):
        return True
    return isinstance(failure, ServerError) and failure.status is not None and not hopeless
