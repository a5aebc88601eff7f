"""A value per key, computed once, however many ask."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Generic, TypeVar

from asearch.concurrency.together import cancel_and_wait

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

T = TypeVar("T")
R = TypeVar("R")


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
