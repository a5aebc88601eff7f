"""Ten thousand searches begun and given up at random moments leave nothing: no task, permit, connection or reservation."""

import asyncio
import os
import random
from contextlib import suppress
from itertools import count

import pytest
from instant_server import InstantServer
from seeded_runs import clients, nothing_runs, until

import virtual_clock
from asearch import DVTS, AsearchError, BeamSearch, BestOfN, Budget, Majority, Rebase, Timeouts, calls, solve
from asearch.concurrency import Batcher, Limiter, together
from asearch.usage import Ledger
from worlds import ScriptedClient, ScriptedPRM, World, number

STRATEGIES = [
    DVTS(n=4, width=2),
    DVTS(n=8, width=4, lookahead=1),
    BeamSearch(n=4, width=2),
    BestOfN(n=4),
    Majority(n=4),
    Rebase(n=4),
]
AT_ONCE = 100
WAYS = ["cancel", "timeout", "deadline"] * 8 + ["let be"]


@pytest.fixture
def ledgers(monkeypatch):
    """The ledger of every search that begins."""
    made = []

    class Noted(Ledger):
        def __init__(self, budget=None):
            super().__init__(budget)
            made.append(self)

    monkeypatch.setattr(calls, "Ledger", Noted)
    return made


async def abandoned(client, prm, moments, times, patience):
    """Begin `times` searches, a hundred at a time, and end each at a moment of its own; count how they ended."""
    ends = dict.fromkeys(("cancelled", "timeout", "deadline", "done"), 0)

    async def search(i):
        problem, strategy = f"What is ${i} + {i % 7}$?", STRATEGIES[i % len(STRATEGIES)]
        # in hundredths, as scripted latencies are: there, many end in the very turn in which something arrives for them
        moment, way = round(moments.uniform(0.0, patience), 2), moments.choice(WAYS)
        seconds = moment or 1e-9 if way == "deadline" else None
        budget = Budget(seconds=seconds, tokens=moments.choice((None, 300, 10**6)))
        if way != "cancel":  # a timeout of None never comes
            with suppress(TimeoutError):
                async with asyncio.timeout(moment if way == "timeout" else None):
                    result = await solve(strategy, client, prm, problem, seed=i, budget=budget)
                    return "deadline" if result.stopped_by == "seconds" else "done"
            return "timeout"
        task = asyncio.ensure_future(solve(strategy, client, prm, problem, seed=i, budget=budget))
        await asyncio.wait([task], timeout=moment)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
            return "done"
        return "cancelled"

    numbers = count()

    async def lane():
        while (i := next(numbers)) < times:
            ends[await search(i)] += 1

    await together(lane() for _ in range(AT_ONCE))
    return ends


def settled(ledgers, times):
    assert len(ledgers) == times
    assert all(book._reserved == 0 for book in ledgers)
    assert not any(book._waiting for book in ledgers)
    ledgers.clear()


def sockets():
    """How many sockets this process has open."""
    links = []
    for number_ in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):
            links.append(os.readlink(f"/proc/self/fd/{number_}"))
    return sum(link.startswith("socket:") for link in links)


async def on_embedded_servers(servers, moments, times):
    before = sockets()
    async with clients(servers.policy, servers.prm, timeouts=Timeouts()) as (client, prm):
        ends = await abandoned(client, prm, moments, times, patience=1.0)
        assert (prm._batcher.waiting, prm._batcher.in_flight) == (0, 0)
        await nothing_runs(servers)
    assert sockets() == before
    return ends


async def on_an_instant_server(moments, times):
    before = sockets()
    async with InstantServer().listening() as server:
        async with clients(server.url, server.url, timeouts=Timeouts()) as (client, prm):
            ends = await abandoned(client, prm, moments, times, patience=0.5)
            assert (prm._batcher.waiting, prm._batcher.in_flight) == (0, 0)
        # the server has yet to see that they are closed
        await until(lambda: not server.under_way and not server.connections)
        assert len(asyncio.all_tasks()) == 1
    assert sockets() == before
    return ends


class Narrow:
    """Scripted servers behind a limiter and a batcher that are far too small, so that most of what is asked waits."""

    def __init__(self):
        world = World(branching=10**6, depth=3)
        self.limiter = Limiter(16)
        self._policy = ScriptedClient(world, latency=lambda _, seed: number(seed) % 100 / 100)
        self._verifier = ScriptedPRM(world, latency=lambda path: number(path.text) % 50 / 100, tokens=7)
        self._batcher = Batcher(self._judge, concurrency=2, max_items=8)
        self.client, self.prm = self, _Batched(self._batcher)

    can_continue = True

    async def connect(self):
        await asyncio.sleep(0.01)

    async def aclose(self):
        pass

    async def extend(self, path, n, **options):
        async with self.limiter.hold(n):
            return await self._policy.extend(path, n, **options)

    async def _judge(self, paths):
        async with self.limiter.hold(len(paths)):
            return await together(self._verifier.score(path) for path in paths)

    def nothing_left(self):
        assert (self.limiter.in_use, self.limiter.waiting) == (0, 0)
        assert (self._batcher.in_flight, self._batcher.waiting) == (0, 0)
        assert (self._policy.open, self._verifier.open) == (0, 0)


class _Batched:
    def __init__(self, batcher):
        self._batcher = batcher

    async def connect(self):
        pass

    async def aclose(self):
        pass

    async def score(self, path):
        return await self._batcher.submit(path)


async def in_scripted_worlds(moments, times):
    narrow = Narrow()
    ends = await abandoned(narrow.client, narrow.prm, moments, times, patience=20.0)
    assert len(asyncio.all_tasks()) == 1
    narrow.nothing_left()
    return ends


def test_ten_thousand_searches_leave_nothing(servers, ledgers):
    """A thousand on real models, three thousand over real sockets, six thousand where nearly everything queues."""
    moments = random.Random(5)
    portions = [
        (1_000, lambda: asyncio.run(on_embedded_servers(servers, moments, 1_000))),
        (3_000, lambda: asyncio.run(on_an_instant_server(moments, 3_000))),
        (6_000, lambda: virtual_clock.run(in_scripted_worlds(moments, 6_000))[0]),
    ]
    for times, run in portions:
        ends = run()
        assert sum(ends.values()) == times
        assert min(ends.values()) > 0.02 * times  # every way to end was taken, and some came to their own end
        settled(ledgers, times)


@pytest.mark.parametrize("first", ["policy", "prm", "both"])
async def test_closing_the_clients_under_running_searches_ends_them(first, servers):
    """Who closes a client takes the ground from its searches: they end at once, with an error that says so."""
    before = sockets()
    async with clients(servers.policy, servers.prm, timeouts=Timeouts()) as (client, prm):
        searches = [
            asyncio.ensure_future(solve(STRATEGIES[i % 3], client, prm, f"What is ${i} + 2 \\cdot 3 - 4$?"))
            for i in range(20)
        ]
        await until(lambda: client.endpoint.limiter.in_use and prm.endpoint.limiter.in_use)
        if first != "prm":
            await client.aclose()
        if first != "policy":
            await prm.aclose()
        async with asyncio.timeout(20):
            ends = await asyncio.gather(*searches, return_exceptions=True)
        failures = [end for end in ends if isinstance(end, BaseException)]
        assert failures
        assert all(isinstance(failure, AsearchError) for failure in failures)
        assert all("closed" in str(failure) for failure in failures)
        await nothing_runs(servers)
    assert sockets() == before
