"""One endpoint is one logical server: a URL, or several replicas of the same; with its limits, its retries and its errors.

Everything that is asked goes through `call`, which admits it to a replica within the limits, and sends it again, there or
elsewhere, when it fails in a way that may pass.
"""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import orjson

from asearch.concurrency import AdaptiveLimiter, Evicted
from asearch.errors import (
    Closed,
    EndpointError,
    ModelNotFound,
    Overloaded,
    ProtocolError,
    RequestTimeout,
    Unreachable,
    UsageError,
)
from asearch.transport.fleet import Fleet
from asearch.transport.limits import FleetLimiter
from asearch.transport.metrics import note_endpoint, note_replica
from asearch.transport.policies import Probes, Retry, Timeouts, check_limit, throttler
from asearch.transport.replica import Replica, Wire
from asearch.transport.sources import source_of
from asearch.transport.stats import EndpointStats
from asearch.usage import ledger

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from asearch.transport.balancing import Trail
    from asearch.transport.sources import Address

Json = dict[str, Any]
T = TypeVar("T")


@dataclass(slots=True)
class _Trial:
    """How one request has fared.

    Args:
        own: it serves one search, whose budget bounds its attempts.
        failures: so far.
        give_up: the time after which no further attempt is started.
        tried: the replicas that have failed it since the last wait.
    """

    own: bool
    failures: int = 0
    give_up: float = math.inf
    tried: list[Replica] = field(default_factory=list)


class Endpoint:
    """One server, or several replicas of it, with everything that all searches of a process share about it.

    Args:
        url: the base URL, with or without a trailing `/v1`; several, as a list or with commas between; a file that lists
            them, as a `pathlib.Path` or `file:endpoints.txt`, read again when it changes; or `dns+http://name:8000`, a
            name with several addresses, looked up again from time to time.
        api_key: sent as a bearer token; never shown in errors.
        headers: further headers.
        query: query parameters for every request, besides those of the URL.
        limit: sequences under way at once at each replica (a request for n completions counts as n). It is lowered
            while a server says that it is too much, and comes back.
        rate: requests per second, or None.
        retry: when and how often a failed request is sent again.
        timeouts: to connect, to read, and in all.
        probes: how replicas that are down are watched.
        shared: other processes send to the same servers, so the limit is lowered, too, while a server's own queue is
            longer than it is of use (read from its /metrics every two seconds).
        tls: an SSL context, for a certificate authority of your own.
        role: what it is for ("policy", "prm"): the name under which its time is booked and shown.
    """

    replica_class: type[Replica] = Replica

    def __init__(
        self,
        url: str | Path | Sequence[str],
        *,
        api_key: str | None = None,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
        limit: int = 512,
        rate: float | None = None,
        retry: Retry | None = None,
        timeouts: Timeouts | None = None,
        probes: Probes | None = None,
        shared: bool = False,
        tls: ssl.SSLContext | None = None,
        role: str = "policy",
    ) -> None:
        self.api = "/v1"  # what routes of the protocol begin with; "" on servers whose base URL is complete
        self.retry = retry or Retry()
        self.timeouts = timeouts or Timeouts()
        self.stats = EndpointStats()
        self.role = role
        self._limit = check_limit(limit)
        self._wire = Wire(self.timeouts, headers or {}, query or {}, api_key, tls)
        source = source_of(url)
        self._alone = source.every is None and len(source.known()) == 1
        self._fleet = Fleet(source, self._make_replica, probes or Probes(), shared=shared)
        self._throttle = throttler(rate)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closings = 0
        note_endpoint(self)

    def __repr__(self) -> str:
        return f"Endpoint({self.url!r})"

    @property
    def url(self) -> str:
        """Where it is; of several replicas, what was given."""
        return self.replicas[0].url if self._alone else self._fleet.source.name

    @property
    def replicas(self) -> list[Replica]:
        """The servers behind it, as far as they are known by now."""
        return self._fleet.replicas

    @property
    def several(self) -> bool:
        """Whether it has, or may come to have, more than one replica."""
        return self._fleet.several

    @property
    def limiter(self) -> AdaptiveLimiter | FleetLimiter:
        """The limit, what is in use and what waits, at all replicas together."""
        return self.replicas[0].limiter if self._alone else FleetLimiter(self._fleet)

    def cap(self, limit: int) -> None:
        """Keep the limit of every replica at or below a number: more would be refused."""
        self._limit = min(self._limit, check_limit(limit))
        for replica in self.replicas:
            replica.limiter.limit = min(replica.limiter.ceiling, self._limit)

    def now(self) -> float:
        """The time of its event loop, by which its stats are kept."""
        return time.monotonic() if self._loop is None else self._loop.time()

    # -- requests -----------------------------------------------------------------------------------------------------

    async def get(self, route: str, *, patient: bool = True) -> Json:
        """GET a route and return its JSON object.

        Args:
            route: begins with a slash; `/v1/` stands for the server's own prefix.
            patient: False gives up at once on a server that cannot be reached, or does not answer its first question.
        """
        path = self._path(route)
        reply = await self.call(lambda replica: replica.request("GET", path, patient=patient), units=0, patient=patient)
        return self._expect(dict, route, reply)

    async def post(
        self,
        route: str,
        body: Mapping[str, Any],
        *,
        units: int = 1,
        trail: Trail[Replica] | None = None,
        replica: Replica | None = None,
        own: bool = False,
    ) -> Json:
        """POST a JSON body and return the JSON object that comes back.

        Args:
            route: begins with a slash; `/v1/` stands for the server's own prefix.
            body: what is sent.
            units: sequences that count against the limit.
            trail: the beginnings of the prompt, so that it goes to the replica that holds them.
            replica: one that was chosen before.
            own: it serves the search that asks and no other, so that search's budget of requests bounds its attempts.

        Raises:
            BudgetSpent: another attempt would pass the budget (only with `own`).
        """
        raw = orjson.dumps(body)
        reply = self._expect(dict, route, await self._post(route, raw, units, trail, replica, own=own))
        if self.stats.on_exchange:
            sent = orjson.loads(raw)  # parts of the body may be JSON already
            for look in self.stats.on_exchange:
                look(route, sent, reply)
        return reply

    async def post_list(self, route: str, body: Mapping[str, Any], *, units: int = 1) -> list[Any]:
        """The same for a route that answers with a JSON list."""
        return self._expect(list, route, await self._post(route, orjson.dumps(body), units, None, None, own=False))

    async def call(
        self,
        send: Callable[[Replica], Awaitable[T]],
        *,
        units: int = 1,
        patient: bool = True,
        trail: Trail[Replica] | None = None,
        replica: Replica | None = None,
        own: bool = False,
    ) -> T:
        """Make one request by `send`, within the limits, and again when it fails in a way that may pass.

        `send` is given the replica, and raises an EndpointError for whatever goes wrong; requests of 0 units are not
        limited.
        """
        await self._enter()
        closings, trial = self._closings, _Trial(own)
        while True:
            if self._throttle is not None and units:
                async with self._throttle:
                    pass
            if replica is None or replica in trial.tried or not replica.up:
                replica = self.choose(trail, units=units, besides=trial.tried)
            try:
                return await self._admitted(replica, send, units)
            except Evicted:
                self._still_open(closings)
                replica = None
                continue
            except EndpointError as failure:
                self._still_open(closings, failure)
                wait = self._wait_after(failure, replica, trial, patient=patient)
                if wait is None:
                    raise
            if wait:
                trial.tried.clear()
                await asyncio.sleep(wait)
                self._still_open(closings)

    def choose(
        self,
        trail: Trail[Replica] | None = None,
        *,
        units: int = 1,
        besides: Sequence[Replica] = (),
        queued: Callable[[Replica], int] | None = None,
    ) -> Replica:
        """The replica for a request, by the beginnings of its prompt and by load (see `Balancer.choose`)."""
        if self._alone:
            return self.replicas[0]
        return self._fleet.balancer.choose(self.replicas, trail, units=units, besides=besides, queued=queued)

    def remember(self, keys: Iterable[int], replica: Replica | None) -> None:
        """Beginnings that a replica holds from now on."""
        if replica is not None and not self._alone:
            self._fleet.balancer.remember(keys, replica)

    async def agree(self, route: str, difference: Callable[[Json], str | None]) -> None:
        """See that all replicas serve the same, now, and whenever one is new or comes back.

        Args:
            route: what they are asked.
            difference: what is wrong with an answer, as the rest of a sentence; None: nothing.

        Raises:
            UsageError: one serves something else.
        """
        if self._alone:
            return

        async def check(replica: Replica) -> None:
            reply = await replica.request("GET", self._path(route), patient=False)
            why = difference(self._expect(dict, route, reply))
            if why is not None:
                raise UsageError(f"{replica.name} {why}; the replicas of an endpoint must serve the same")

        await self._enter()
        self._fleet.check = check
        await self._fleet.examine_all()

    async def aclose(self) -> None:
        """Close the connections. Whoever waits for an answer gets `Closed` instead."""
        self._closings += 1
        await self._fleet.aclose()
        self._loop = None

    def hide(self, text: str) -> str:
        """The text without this endpoint's keys, should a server have repeated them."""
        for replica in self.replicas:
            text = replica.hide(text)
        return text

    # -- how it is done -----------------------------------------------------------------------------------------------

    def _make_replica(self, address: Address) -> Replica:
        replica = self.replica_class(address, self._wire, self._limit, self.stats)
        note_replica(replica, self.role)
        return replica

    def _path(self, route: str) -> str:
        return self.api + route.removeprefix("/v1") if route.startswith("/v1/") else route

    def _post(
        self,
        route: str,
        raw: bytes,
        units: int,
        trail: Trail[Replica] | None,
        replica: Replica | None,
        *,
        own: bool,
    ) -> Awaitable[Any]:
        path = self._path(route)
        return self.call(lambda at: at.request("POST", path, raw), units=units, trail=trail, replica=replica, own=own)

    async def _enter(self) -> None:
        """Be on this event loop: `asyncio.run` may be called more than once, but not two loops at a time."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            if self._loop is not None:
                if not self._loop.is_closed():
                    raise UsageError(f"{self!r} is in use on another event loop; make a client for each")
                self._fleet.drop_tasks()
                for replica in self.replicas:
                    replica.limiter.resume()
                    await replica.aclose()
            self._loop = loop
        await self._fleet.ready()

    async def _admitted(self, replica: Replica, send: Callable[[Replica], Awaitable[T]], units: int) -> T:
        """Send within the limits of a replica, and learn from how it goes."""
        if units == 0:
            try:
                return await send(replica)
            except EndpointError as failure:
                self._fleet.failed(replica, failure)
                raise
        time, limiter = asyncio.get_running_loop().time, replica.limiter
        asked = time()
        admission = await limiter.acquire(units)
        began = time()
        try:
            replica.served += units
            for stats in replica.books:
                stats.begin(began)
                stats.sequences += units
            reply = await send(replica)
        except EndpointError as failure:
            self._learn(replica, failure, admission)
            raise
        else:
            limiter.passed(units)
        finally:
            self._book_times(replica, began - asked, began, time())
            limiter.release(units)
        if isinstance(reply, dict) and reply.get("usage"):
            for stats in replica.books:
                stats.book_tokens(reply["usage"])
        self._fleet.well(replica)
        return reply

    def _learn(self, replica: Replica, failure: EndpointError, admission: int) -> None:
        """What a failure says about the replica: how much it can take, how soon, and whether it is there at all."""
        if isinstance(failure, Overloaded | RequestTimeout):
            self._count(replica, "refusals")
            replica.limiter.congested(admission)
        if failure.retry_after and failure.retry_after <= self.retry.total:
            replica.limiter.pause(failure.retry_after)  # it has asked everybody to wait
        self._fleet.failed(replica, failure)

    def _wait_after(self, failure: EndpointError, replica: Replica, trial: _Trial, *, patient: bool) -> float | None:
        """Seconds until a request that failed is sent again; 0: at once, to another replica; None: not at all."""
        now = asyncio.get_running_loop().time()
        trial.failures += 1
        trial.give_up = min(trial.give_up, now + self.retry.total)
        trial.tried.append(replica)
        moves = self._elsewhere(failure, trial.tried)
        wait = 0.0 if moves else self.retry.wait(trial.failures, failure.retry_after)
        if self._hopeless(failure, trial.failures, patient=patient, moves=moves) or now + wait > trial.give_up:
            self._count(replica, "failures")
            return None
        self._tell_retry(replica, failure, trial.failures, moves=moves, own=trial.own)
        return wait

    def _elsewhere(self, failure: EndpointError, tried: Sequence[Replica]) -> bool:
        """Whether another replica can have a request at once."""
        if self._alone:
            return False
        others = [replica for replica in self.replicas if replica.up and replica not in tried]
        if isinstance(failure, Overloaded):  # it is not broken: moving is worth it only where there is room
            others = [replica for replica in others if replica.limiter.has_room()]
        return bool(others)

    def _hopeless(self, failure: EndpointError, failures: int, *, patient: bool, moves: bool) -> bool:
        if moves and isinstance(failure, ModelNotFound) and self._fleet.check is not None:
            return failures >= self.retry.attempts  # one replica was started anew, with another model
        if not self.retry.covers(failure):
            return True
        if not patient and isinstance(failure, Unreachable | RequestTimeout):
            return not moves
        return failures >= self.retry.attempts

    def _still_open(self, closings: int, failure: EndpointError | None = None) -> None:
        if self._closings != closings:
            raise Closed(f"{self!r} was closed while it was in use") from failure

    def _expect(self, kind: type[T], route: str, reply: Any) -> T:
        if isinstance(reply, kind):
            return reply
        raise ProtocolError(
            f"{route} answered with a JSON {type(reply).__name__}, not a {kind.__name__}; is this the right server?",
            endpoint=self.url,
            status=200,
        )

    # -- the books ----------------------------------------------------------------------------------------------------

    def _tell_retry(self, replica: Replica, failure: EndpointError, failures: int, *, moves: bool, own: bool) -> None:
        ledger.get().open_retry(bounded=own, role=self.role)
        self._count(replica, "retries")
        if moves:
            self._count(replica, "moves")
        for hook in self.stats.on_retry:
            hook(failure, failures)

    def _book_times(self, replica: Replica, queued: float, began: float, now: float) -> None:
        for stats in replica.books:
            stats.end(now)
            stats.queue_seconds += queued
            stats.service_seconds += now - began
        ledger.get().book_times(self.role, queued, now - began)

    @staticmethod
    def _count(replica: Replica, name: str) -> None:
        for stats in replica.books:
            setattr(stats, name, getattr(stats, name) + 1)
