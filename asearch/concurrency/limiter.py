"""Limits on what is under way at once: fixed, or adapting to a server that says it is too much."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

# Who may go first where sequences are scarce: the lower number. Every search takes the next one, so that older
# searches finish early and their prefixes leave the server's cache before new ones come in.
seniority: ContextVar[int] = ContextVar("seniority", default=0)


class Evicted(Exception):
    """Sent away while waiting for a permit: look for room somewhere else."""


class Limiter:
    """At most `limit` units in use at a time; requests come in sizes, and wait by seniority, then in order.

    A request larger than the whole limit runs alone rather than never. `limit` may be changed at any time; `in_use`
    and `waiting` (both in units) can be watched.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.in_use = 0
        self.waiting = 0
        self.admitted = 0  # requests let in so far
        self._queue: list[tuple[int, int, int, asyncio.Future[int]]] = []
        self._order = itertools.count()
        self._onlookers: list[asyncio.Future[None]] = []
        self._paused_until = 0.0
        self._alarm: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.in_use} of {self._limit} in use, {self.waiting} waiting)"

    @property
    def limit(self) -> int:
        return self._limit

    @limit.setter
    def limit(self, value: int) -> None:
        self._limit = max(1, value)
        self._admit()

    @property
    def load(self) -> float:
        """What is in use and waits, as a share of the limit: above 1 somebody waits."""
        return (self.in_use + self.waiting) / self._limit

    @property
    def paused(self) -> bool:
        """Whether nobody is let in at the moment, whatever room there is."""
        return bool(self._paused_until) and asyncio.get_running_loop().time() < self._paused_until

    def has_room(self, units: int = 1) -> bool:
        """Whether a request of so many units would be let in at once."""
        fits = self.in_use + units <= self._limit or not self.in_use
        return fits and not self.waiting and not self.paused

    @asynccontextmanager
    async def hold(self, units: int = 1) -> AsyncIterator[int]:
        """Wait for room for `units`, keep them inside the block, give them back whatever happens.

        Yields the number of the admission.

        Raises:
            Evicted: `evict` was called while this request waited.
        """
        admission = await self.acquire(units)
        try:
            yield admission
        finally:
            self.release(units)

    async def vacancy(self) -> None:
        """Wait until there is room and nobody waits for it: the moment to begin something new."""
        while not self.has_room():
            onlooker: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._onlookers.append(onlooker)
            try:
                await onlooker
            finally:
                if onlooker in self._onlookers:
                    self._onlookers.remove(onlooker)

    def pause(self, seconds: float) -> None:
        """Let nobody in for so long; what is in use goes on. A pause that ends later stays."""
        until = asyncio.get_running_loop().time() + seconds
        if until > self._paused_until:
            self._stop_alarm()
            self._paused_until = until
            self._admit()  # admits nobody, and sets the alarm for those who wait

    def evict(self, requests: int | None = None) -> None:
        """Send those who wait away with `Evicted`, all or the first few; what is in use goes on."""
        left = len(self._queue) if requests is None else requests
        while self._queue and left:
            _, _, units, ticket = heapq.heappop(self._queue)
            if not ticket.done():
                left -= 1
                self.waiting -= units
                ticket.set_exception(Evicted())

    def resume(self) -> None:
        """End a pause."""
        self._paused_until = 0.0
        self._stop_alarm()
        self._admit()

    async def acquire(self, units: int = 1) -> int:
        """The first half of `hold`, for whoever does this thousands of times: `release` must follow, whatever happens."""
        if self.has_room(units):
            return self._let_in(units)
        ticket: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._queue, (seniority.get(), next(self._order), units, ticket))
        self.waiting += units
        self._admit()
        try:
            return await ticket
        except asyncio.CancelledError:
            if ticket.cancelled():
                self.waiting -= units
            elif ticket.exception() is None:  # admitted in the very moment of the cancellation
                self.in_use -= units
            self._admit()
            raise

    def release(self, units: int = 1) -> None:
        """Give back what `acquire` took."""
        self.in_use -= units
        self._admit()

    def _admit(self) -> None:
        while self._queue:
            _, _, units, ticket = self._queue[0]
            if ticket.cancelled():
                heapq.heappop(self._queue)
                continue
            if (self.in_use and self.in_use + units > self._limit) or self._still_paused():
                return
            heapq.heappop(self._queue)
            self.waiting -= units
            ticket.set_result(self._let_in(units))
        if self._onlookers and not self._still_paused() and self.has_room():
            for onlooker in self._onlookers:
                if not onlooker.done():
                    onlooker.set_result(None)

    def _let_in(self, units: int) -> int:
        self.admitted += 1
        self.in_use += units
        return self.admitted

    def _still_paused(self) -> bool:
        """Whether a pause is on; sees to it that those who wait are let in when it ends."""
        if not self.paused:
            self._paused_until = 0.0
            return False
        if self._alarm is None:
            self._alarm = asyncio.get_running_loop().call_at(self._paused_until, self.resume)
        return True

    def _stop_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None


class AdaptiveLimiter(Limiter):
    """A limiter that finds out what a server can take: additive increase, multiplicative decrease.

    It begins at its ceiling, and never passes it. `congested` lowers it to `DECREASE` times what was under way;
    requests that were let in before that say nothing new, so that a burst of refusals is one signal. `passed` raises it
    again, by a `RECOVERY`th of the ceiling for every limit-full of units that came back well, and only while the limit
    is what holds requests up. Clients of the same server that all do so approach equal shares (Chiu and Jain 1989).

    Args:
        ceiling: the highest limit.
    """

    DECREASE = 0.7  # as CUBIC (RFC 9438): the server stays busier around the point of congestion than with a half
    RECOVERY = 64

    def __init__(self, ceiling: int) -> None:
        super().__init__(ceiling)
        self.ceiling = ceiling
        self.cuts = 0
        self._exact = float(ceiling)
        self._last_cut = 0  # the number of the last admission before it

    @property
    def limit(self) -> int:
        return self._limit

    @limit.setter
    def limit(self, value: int) -> None:
        self.ceiling = max(1, value)
        self._set(self.ceiling)

    def congested(self, admission: int | None = None) -> None:
        """The server could not take what was under way.

        Args:
            admission: the number that `hold` gave the request that was refused; None: the signal is not a request's.
        """
        if admission is not None and admission <= self._last_cut:
            return
        self._last_cut = self.admitted
        self.cuts += 1
        self._set(self.DECREASE * min(self._exact, max(1, self.in_use)))

    def passed(self, units: int) -> None:
        """So many units came back well."""
        if self._limit < self.ceiling and (self.waiting or 2 * self.in_use >= self._limit):
            step = max(1.0, self.ceiling / self.RECOVERY)
            self._set(self._exact + step * units / self._exact)

    def _set(self, exact: float) -> None:
        self._exact = min(max(1.0, exact), float(self.ceiling))
        self._limit = int(self._exact)
        self._admit()
