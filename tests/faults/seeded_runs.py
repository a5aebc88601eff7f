"""One run over many problems, as all tests of faults make it, and when two runs count as the same."""

import asyncio
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise

import aiohttp
import pytest

from asearch import DVTS, CausalPRM, OpenAIClient, Result, Retry, Timeouts, solve_all
from asearch.transport import EndpointStats

STRATEGY = DVTS(n=4, width=2)
RETRY = Retry(attempts=10, total=100.0, first=0.01, longest=0.1)
PATIENT = Retry(attempts=200, total=60.0, first=0.05, longest=0.5)  # longer than a server takes to start
TIMEOUTS = Timeouts(read=2.0)  # what ends a hang; far longer than an honest answer of these servers takes
NOISE = 1e-5  # scores of the same text in other batches: the server's arithmetic


@dataclass(frozen=True)
class Run:
    """What came out, and what both endpoints counted."""

    results: list[Result]
    policy: EndpointStats
    prm: EndpointStats


@asynccontextmanager
async def clients(policy, prm, retry=RETRY, timeouts=TIMEOUTS):
    """Both clients; at the end nothing may be under way."""
    client = OpenAIClient(policy, retry=retry, timeouts=timeouts)
    verifier = CausalPRM(prm, retry=retry, timeouts=timeouts)
    try:
        yield client, verifier
        for endpoint in (client.endpoint, verifier.endpoint):
            assert endpoint.limiter.in_use == endpoint.limiter.waiting == 0
    finally:
        await client.aclose()
        await verifier.aclose()


async def searched(policy, prm, problems, *, retry=RETRY, timeouts=TIMEOUTS, on_event=None):
    """All problems at once, through clients of their own."""
    async with clients(policy, prm, retry, timeouts) as (client, verifier):
        return await searched_by(client, verifier, problems, on_event=on_event)


async def searched_by(client, verifier, problems, *, on_event=None):
    """All problems at once, through these clients."""
    options = {"seed": 3, "at_once": len(problems), "on_event": on_event}
    results = [result async for result in solve_all(STRATEGY, client, verifier, problems, **options)]
    return Run(results, client.endpoint.stats, verifier.endpoint.stats)


def assert_same(results, undisturbed):
    """Raise unless each result is that of the undisturbed run: every path of the tree, its fate, its scores; the answer."""
    assert len(results) == len(undisturbed)
    for result, clean in zip(results, undisturbed, strict=True):
        assert result.errors == clean.errors == ()
        assert (result.problem, result.answer, result.stopped_by) == (clean.problem, clean.answer, clean.stopped_by)
        assert outline(result) == outline(clean)
        for node, other in zip(result.tree.nodes, clean.tree.nodes, strict=True):
            assert node.path.scores == pytest.approx(other.path.scores, abs=NOISE)
        assert [path.id for path in result.paths] == [path.id for path in clean.paths]
        assert result.score == pytest.approx(clean.score, abs=NOISE)


def outline(result):
    """All of a tree but its scores."""
    return [(node.path.id, node.path.text, node.path.finish, node.fate) for node in result.tree.nodes]


class Script:
    """Listens to all searches, and does things in the middle of them.

    Args:
        acts: (an event's kind, how many of it, what to do then).
    """

    def __init__(self, *acts):
        self.acts, self.seen = acts, Counter()
        self.times = []  # of all events, on the clock of the event loop

    def __call__(self, event):
        self.times.append(asyncio.get_running_loop().time())
        self.seen[type(event)] += 1
        for kind, times, act in self.acts:
            if isinstance(event, kind) and self.seen[kind] == times:
                act()

    @property
    def longest_pause(self):
        """Seconds in which nothing happened to any search, between the first event and the last."""
        return max(later - earlier for earlier, later in pairwise(self.times))


async def running(url):
    """Sequences that a server says are running or waiting."""
    async with aiohttp.ClientSession() as session, session.get(f"{url}/metrics") as reply:
        lines = (await reply.text()).splitlines()
    names = ("vllm:num_requests_running", "vllm:num_requests_waiting")
    return sum(float(line.split()[-1]) for line in lines if line.startswith(names))


async def nothing_runs(servers):
    """Raise unless both servers come to have nothing to do, and no task is left here.

    A server is told of a cancelled request by its closed connection, which takes it a step or two to see.
    """
    for url in (servers.policy, servers.prm):
        for _ in range(200):
            if await running(url) == 0:
                break
            await asyncio.sleep(0.02)
        assert await running(url) == 0
    assert len(asyncio.all_tasks()) == 1


async def until(condition):
    """Wait for something that is seen by looking only."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.001)
