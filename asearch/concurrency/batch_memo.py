"""A batcher that remembers: each item is asked once, however many ask, and nobody needs a task for it."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from asearch.concurrency.batcher import Batcher

T = TypeVar("T", bound="Hashable")
R = TypeVar("R")


class BatchMemo(Generic[T, R]):
    """Results of a batcher's items, by item. Failures are shared with those who waited, and not remembered.

    Where `Memo` starts a task per key, this waits for the batcher itself: a search asks for each of its steps, and a
    task costs more than the asking. The price: when the one who asked first is cancelled, those who waited for the same
    item ask again.

    Args:
        batcher: what is asked.
        max_size: how many results are remembered.
    """

    def __init__(self, batcher: Batcher[T, R], *, max_size: int = 4096) -> None:
        self._batcher = batcher
        self._max_size = max_size
        self._values: OrderedDict[T, R] = OrderedDict()  # of a dict, the first of many that left is slow to find
        self._under_way: dict[T, asyncio.Future[dict[T, Exception]]] = {}

    def known(self, item: T) -> R | None:
        """The result, if there is one."""
        return self._values.get(item)

    async def get(self, items: Sequence[T], on_new: Callable[[R], None] | None = None) -> list[R | Exception]:
        """The results of items, in order; where one failed, its exception stands in its place.

        Args:
            items: what to ask for; equal ones are asked once.
            on_new: called with each result that was asked for here, and by nobody before.
        """
        found: dict[T, R | Exception] = {}
        missing = list(dict.fromkeys(items))
        while missing:
            found |= {item: self._values[item] for item in missing if item in self._values}
            unknown = [item for item in missing if item not in found]
            mine = [item for item in unknown if item not in self._under_way]
            if mine:
                found |= await self._ask(mine, on_new)
            elif unknown:
                failed = await asyncio.shield(self._under_way[unknown[0]])
                found |= {item: failed[item] for item in unknown if item in failed}
            missing = [item for item in unknown if item not in found]
        return [found[item] for item in items]

    async def _ask(self, items: list[T], on_new: Callable[[R], None] | None) -> dict[T, R | Exception]:
        turn: asyncio.Future[dict[T, Exception]] = asyncio.get_running_loop().create_future()
        self._under_way |= dict.fromkeys(items, turn)
        failed: dict[T, Exception] = {}
        try:
            results = await self._batcher.submit_all(items)
            for item, result in zip(items, results, strict=True):
                if isinstance(result, Exception):
                    failed[item] = result
                else:
                    self._remember(item, result)
                    if on_new is not None:
                        on_new(result)
            return dict(zip(items, results, strict=True))
        finally:
            for item in items:
                del self._under_way[item]
            turn.set_result(failed)

    def _remember(self, item: T, result: R) -> None:
        self._values[item] = result
        if len(self._values) > self._max_size:
            self._values.popitem(last=False)
