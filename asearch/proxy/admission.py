"""How many searches run at once, how many may wait, and what the others are told."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from asearch.concurrency import Limiter
from asearch.proxy.errors import ApiError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

LONGEST_WAIT = 60.0  # clients of OpenAI's protocol obey a Retry-After of up to a minute
MEMORY = 0.8  # of the average over past searches: how much of it the next one leaves


class Admission:
    """Places for searches; a request for several choices takes as many.

    Args:
        limit: searches at once.
        max_waiting: searches that may wait for a place; what comes on top is refused with 429.
    """

    def __init__(self, limit: int, max_waiting: int) -> None:
        self._limiter = Limiter(limit)
        self._max_waiting = max_waiting
        self._usual_seconds = 1.0

    @property
    def limit(self) -> int:
        return self._limiter.limit

    @property
    def in_use(self) -> int:
        """Searches under way."""
        return self._limiter.in_use

    @property
    def waiting(self) -> int:
        """Searches that wait for a place."""
        return self._limiter.waiting

    @asynccontextmanager
    async def place(self, searches: int, deadline: float) -> AsyncIterator[None]:
        """Places for so many searches, inside the block.

        Args:
            searches: how many.
            deadline: in the time of the event loop; waiting for a place ends there.

        Raises:
            ApiError: 429, too many are waiting already, or no place became free in time.
        """
        full = self.in_use + self.waiting + searches > self.limit
        if full and self.waiting + searches > self._max_waiting:
            raise self._busy(f"{self.in_use} searches are under way and {self.waiting} wait")
        loop = asyncio.get_running_loop()
        async with AsyncExitStack() as stack:
            await self._enter(stack, searches, deadline)
            began = loop.time()
            yield
            self._usual_seconds += (1 - MEMORY) * (loop.time() - began - self._usual_seconds)

    async def _enter(self, stack: AsyncExitStack, searches: int, deadline: float) -> None:
        try:
            async with asyncio.timeout_at(deadline):
                await stack.enter_async_context(self._limiter.hold(searches))
        except TimeoutError:
            raise self._busy("no place among the searches became free in time") from None

    def _busy(self, why: str) -> ApiError:
        """The time after which it is worth another try is what those before it will take, by the usual time of a search."""
        ahead = (self.waiting + self.in_use) / self.limit
        wait = min(LONGEST_WAIT, self._usual_seconds * ahead)
        return ApiError(f"too many requests: {why}", status=429, code="rate_limit_exceeded", retry_after=wait)
