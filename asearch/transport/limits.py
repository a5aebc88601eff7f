"""The limits of several replicas, looked at as one."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from asearch.concurrency import cancel_and_wait

if TYPE_CHECKING:
    from asearch.concurrency import AdaptiveLimiter
    from asearch.transport.fleet import Fleet


NONE_ALIVE_SECONDS = 0.25  # until the next look at whether one is up


class FleetLimiter:
    """All limiters of a fleet as one that can be watched and turned; permits are those of the replicas."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def __repr__(self) -> str:
        return f"FleetLimiter({self.in_use} of {self.limit} in use, {self.waiting} waiting)"

    @property
    def _parts(self) -> list[AdaptiveLimiter]:
        return [replica.limiter for replica in self._fleet.replicas]

    @property
    def limit(self) -> int:
        """Sequences that all replicas together may have under way; setting it gives each an equal share."""
        return sum(part.limit for part in self._parts)

    @limit.setter
    def limit(self, value: int) -> None:
        parts = self._parts
        for i, part in enumerate(parts):
            part.limit = value * (i + 1) // len(parts) - value * i // len(parts)

    @property
    def in_use(self) -> int:
        return sum(part.in_use for part in self._parts)

    @property
    def waiting(self) -> int:
        return sum(part.waiting for part in self._parts)

    def has_room(self, units: int = 1) -> bool:
        """Whether a request of so many units would be let in somewhere at once."""
        return any(replica.limiter.has_room(units) for replica in self._fleet.replicas if replica.up)

    async def vacancy(self) -> None:
        """Wait until some replica has room and nobody waits for it."""
        while not self.has_room():
            alive = [replica.limiter for replica in self._fleet.replicas if replica.up]
            if not alive:
                await asyncio.sleep(NONE_ALIVE_SECONDS)
                continue
            waits = [asyncio.ensure_future(limiter.vacancy()) for limiter in alive]
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                await cancel_and_wait(waits)
