"""Which of many problems is searched next, and when: so many at once, or as long as the policy has room.

What a search keeps under way changes as it runs: n sequences in its first step, few while the verifier has its steps,
one at its end. A fixed number of searches either leaves the policy's server without work between those times, or keeps so
many prefixes in its cache that they push each other out. Sequences are what is limited, so sequences are counted.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Protocol

from asearch.usage import Ledger

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asearch.client import Client
    from asearch.usage import Budget

AT_ONCE = 8  # searches under way where the client does not say what its server has under way
SPARE = 4  # sequences of all searches under way, for each one that the policy takes


class Room(Protocol):
    """What an endpoint's limiter tells: sequences that may be, are, and would be under way."""

    limit: int

    @property
    def in_use(self) -> int: ...

    @property
    def waiting(self) -> int: ...

    async def vacancy(self) -> None:
        """Wait until there is room and nobody waits for it."""
        ...


class Book(Ledger):
    """The ledger of a search of many, which also says when its first request is on its way."""

    def __init__(self, budget: Budget | None) -> None:
        super().__init__(budget)
        self.begun = asyncio.Event()

    def open_call(self) -> None:
        super().open_call()
        self.begun.set()


class Admission:
    """Lets searches begin, in the order in which they come.

    Args:
        n: sequences that a search is expected to begin with.
        room: the limiter of the policy's endpoint; None where there is none to be seen.
        at_once: how many searches may be under way; None: as many as keep the policy busy.
    """

    def __init__(self, n: int, room: Room | None, at_once: int | None) -> None:
        self._n = n
        self._room = room if at_once is None else None
        self._fixed = at_once or AT_ONCE
        self._under_way: set[Book] = set()
        self._turn = asyncio.Lock()
        self._ended = asyncio.Event()

    @property
    def most(self) -> int:
        """Searches that may be under way together.

        Where room decides: so many that the policy has work while three times what it takes is with the verifier, or
        waits for the rest of its level. Where the verifier is the slower of the two, no more pile up before it.
        """
        if self._room is None:
            return self._fixed
        return max(2, -(-SPARE * self._room.limit // self._n))

    @asynccontextmanager
    async def place(self, budget: Budget | None) -> AsyncIterator[Book]:
        """Wait until a search may begin; inside the block it is under way. Yields its ledger."""
        async with self._turn:  # one at a time: who comes first begins first
            while self._under_way and not await self._may_begin():
                pass
            book = Book(budget)
            self._under_way.add(book)
        try:
            yield book
        finally:
            self._under_way.discard(book)
            book.begun.set()
            self._ended.set()

    async def _may_begin(self) -> bool:
        """Whether one more may begin; if not, waits for something to change."""
        if len(self._under_way) >= self.most:
            self._ended.clear()
            await self._ended.wait()
            return False
        if self._room is None:
            return True
        await self._room.vacancy()
        starting = [book for book in self._under_way if not book.begun.is_set()]
        if not starting or self._room.in_use + self._room.waiting + self._n * len(starting) < self._room.limit:
            return True
        await starting[0].begun.wait()  # the room that there is has been promised
        return False


def admission(client: Client, n: int, at_once: int | None) -> Admission:
    """Admission to a client's server; by its room, where it can be seen and `at_once` is None."""
    limiter = getattr(getattr(client, "endpoint", None), "limiter", None)
    return Admission(n, limiter if hasattr(limiter, "vacancy") else None, at_once)
