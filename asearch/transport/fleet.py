"""The replicas of an endpoint: which there are, which are up, and which one a request goes to.

A replica goes down when it cannot be reached, or fails several times in a row; what waits for it is sent elsewhere. It
is asked for its health from time to time, and taken back when it is well and still serves the same model. The only
replica of an endpoint is never down: requests try it as often as their retry policy says.
"""

from __future__ import annotations

import asyncio
import logging
import random
from contextvars import Context
from typing import TYPE_CHECKING, Any

from asearch.concurrency import Memo, cancel_and_wait, together
from asearch.errors import (
    AuthError,
    EndpointError,
    ModelNotFound,
    NotFound,
    RequestTimeout,
    ServerError,
    Unreachable,
    UsageError,
)
from asearch.transport.balancing import Balancer
from asearch.transport.pressure import crowded, queue_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence

    from asearch.transport.policies import Probes
    from asearch.transport.replica import Replica
    from asearch.transport.sources import Address, Source

QUEUE_SECONDS = 2.0  # between two looks at a server's own queue

log = logging.getLogger("asearch.transport")


class Fleet:
    """All replicas of one endpoint.

    Args:
        source: where they are.
        make: a replica for an address.
        probes: how those that are down are watched.
        shared: other clients send to the same servers: watch the servers' own queues, too.
    """

    def __init__(self, source: Source, make: Callable[[Address], Replica], probes: Probes, *, shared: bool) -> None:
        self.source = source
        self.replicas: list[Replica] = [make(address) for address in source.known()]
        self.balancer: Balancer[Replica] = Balancer()
        self.check: Callable[[Replica], Awaitable[None]] | None = None  # that it serves what the others do
        self._make = make
        self._probes = probes
        self._shared = shared
        self._kept = False
        self._leaving: list[Replica] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._found: Memo[None, None] = Memo(self._find)
        self._settled = source.every is None and not shared

    @property
    def several(self) -> bool:
        """Whether there is, or may come to be, more than one."""
        return len(self.replicas) > 1 or self.source.every is not None

    async def ready(self) -> None:
        """Know where the replicas are, and keep knowing it; costs nothing where they were given once."""
        if self._settled or self._kept:
            return
        if not self.replicas:
            await self._found.get(None)
        if not self._kept:
            self._kept = True
            if self.source.every is not None:
                self._spawn(self._keep(self.source.every))
            for replica in self.replicas:
                self._watch(replica)

    async def aclose(self) -> None:
        """Stop watching, send away what waits, and close the connections, which ends what is under way."""
        await cancel_and_wait(self._tasks)
        self.drop_tasks()
        for replica in self.replicas:
            replica.limiter.evict()
        for replica in (*self.replicas, *self._leaving):
            await replica.aclose()
        self._leaving.clear()

    def drop_tasks(self) -> None:
        """Forget tasks that are over, or whose event loop is."""
        self._tasks.clear()
        self._kept = False

    # -- health -------------------------------------------------------------------------------------------------------

    def well(self, replica: Replica) -> None:
        """A request to a replica went well."""
        replica.strikes = 0
        if not replica.up:
            self._take_back(replica)
        elif self.several and replica.limiter.has_room():
            self._relieve(replica)

    def failed(self, replica: Replica, failure: EndpointError) -> None:
        """A request to a replica failed."""
        if not self.several or not replica.up:
            return
        if isinstance(failure, ServerError | RequestTimeout):
            replica.strikes += 1
        gone = isinstance(failure, Unreachable) or (isinstance(failure, ModelNotFound) and self.check is not None)
        if gone or replica.strikes >= self._probes.strikes:
            self.take_down(replica, failure)

    def take_down(self, replica: Replica, failure: EndpointError) -> None:
        """Send nothing more to a replica until it is well again; what waits for it goes elsewhere."""
        log.warning("%s is down: %s", replica.name, failure.args[0])  # without the address, which stands here already
        replica.up = False
        if any(other.up for other in self.replicas):
            replica.limiter.evict()
        self._spawn(self._probe(replica))

    def _take_back(self, replica: Replica) -> None:
        log.info("%s is up", replica.name)
        replica.up, replica.strikes = True, 0
        for other in self.replicas:  # what waits elsewhere may find room here
            if other is not replica and other.limiter.waiting:
                other.limiter.evict()

    def _relieve(self, replica: Replica) -> None:
        """Let the first who waits anywhere else look again: here is room."""
        longest = max(self.replicas, key=lambda other: other.limiter.waiting)
        if longest.limiter.waiting and longest is not replica:
            longest.limiter.evict(1)

    async def _probe(self, replica: Replica) -> None:
        failures, said = 0, ""
        while not replica.up and replica in self.replicas:
            await asyncio.sleep(self._probes.wait(failures))
            failures += 1
            try:
                async with asyncio.timeout(self._probes.timeout):
                    await self._examine(replica)
            except (EndpointError, TimeoutError):
                continue
            except UsageError as difference:
                if said != str(difference):
                    log.warning("%s", said := str(difference))
                continue
            self._take_back(replica)

    async def _examine(self, replica: Replica) -> None:
        """Raise what is wrong with a replica, if anything."""
        try:
            await replica.text("/health")
        except (NotFound, AuthError):  # it answers, and has no such route, or not for everybody
            if self.check is None:
                return
        if self.check is not None:
            await self.check(replica)

    async def examine_all(self) -> None:
        """See that all replicas serve the same; those that cannot be reached are down.

        Raises:
            UsageError: one serves something else.
            EndpointError: one cannot be used, for a reason that will not pass.
        """
        await together(self._first_check(replica) for replica in self.replicas)

    async def _first_check(self, replica: Replica) -> None:
        assert self.check is not None  # noqa: S101 - see examine_all
        try:
            await self.check(replica)
        except EndpointError as failure:
            if not failure.retryable:
                raise
            if replica.up:
                self.take_down(replica, failure)

    # -- where they are -----------------------------------------------------------------------------------------------

    async def _find(self, _: None) -> None:
        self.update(await self.source.look())

    async def _keep(self, every: float) -> None:
        said = ""
        while True:
            await asyncio.sleep(every)
            try:
                self.update(await self.source.look())
                said = ""
            except (UsageError, EndpointError) as failure:
                if said != str(failure):
                    log.warning("%s; the replicas stay as they are", said := str(failure))

    def update(self, addresses: Sequence[Address]) -> None:
        """Take in replicas that are new, and let those go that are gone."""
        first = not self.replicas
        for replica in self.replicas:
            replica.missed = 0 if replica.address in addresses else replica.missed + 1
        gone = [replica for replica in self.replicas if replica.missed >= self.source.patience]
        known = {replica.address for replica in self.replicas}
        new = [self._make(address) for address in addresses if address not in known]
        self.replicas = [replica for replica in (*self.replicas, *new) if replica not in gone]
        for replica in gone:
            log.info("%s is no longer listed", replica.name)
            self.balancer.forget(replica)
            replica.up = False
            replica.limiter.evict()
            self._leaving.append(replica)
            self._spawn(self._let_go(replica))
        for replica in () if first else new:
            log.info("%s is new", replica.name)
            replica.up = False  # until it has shown that it serves the same
            self._spawn(self._probe(replica))
            self._watch(replica)

    async def _let_go(self, replica: Replica) -> None:
        """Close the connections of a replica once what is under way there has ended."""
        async with replica.limiter.hold(replica.limiter.ceiling):  # all of it: when nothing else is in use
            await replica.aclose()
        self._leaving.remove(replica)

    # -- the servers' own queues --------------------------------------------------------------------------------------

    def _watch(self, replica: Replica) -> None:
        if self._shared:
            self._spawn(self._watch_queue(replica))

    async def _watch_queue(self, replica: Replica) -> None:
        """Lower the limit while the server's own queue is longer than it is of use."""
        while replica in self.replicas:
            await asyncio.sleep(random.uniform(0.5, 1.5) * QUEUE_SECONDS)  # clients must not all look at once
            if not replica.limiter.in_use or not replica.up:
                continue
            try:
                queue = queue_of(await replica.text("/metrics"))
            except (NotFound, AuthError):
                queue = None
            except EndpointError:
                continue
            if queue is None:
                log.info("%s does not tell its queue; its limit adapts to refusals only", replica.name)
                return
            if crowded(*queue):
                replica.limiter.congested()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something beside the requests, for nobody's account."""
        task = asyncio.get_running_loop().create_task(work, context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
