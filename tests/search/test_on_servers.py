"""Every strategy over real HTTP, on the embedded models: it works, it repeats itself, and it leaves nothing on the server."""

import asyncio
from contextlib import aclosing

import aiohttp
import pytest

from asearch import (
    DVTS,
    BeamSearch,
    BestOfN,
    Budget,
    CausalPRM,
    Greedy,
    Majority,
    OpenAIClient,
    ParticleFilter,
    Rebase,
    Sampled,
    SelfRefine,
    SelfVerifier,
    SelfVerify,
    solve,
    solve_all,
    stream,
)

PROBLEM = r"What is $12 - 3 \cdot (4 + 5)$?"
STRATEGIES = [
    Greedy(),
    Majority(n=8),
    BestOfN(n=8),
    BestOfN(n=8, confidence=1.0),
    BeamSearch(n=8, width=2),
    BeamSearch(n=8, width=4, lookahead=1),
    DVTS(n=8, width=2),
    ParticleFilter(n=8),
    ParticleFilter(n=8, iterations=2),
    Rebase(n=8),
    SelfRefine(n=4, revisions=2),
    SelfVerify(n=4),
]
every = pytest.mark.parametrize("strategy", STRATEGIES, ids=repr)


@pytest.fixture
async def client(servers):
    client = OpenAIClient(servers.policy)
    yield client
    assert client.endpoint.limiter.in_use == client.endpoint.limiter.waiting == 0
    await client.aclose()


@pytest.fixture
async def prm(servers):
    prm = CausalPRM(servers.prm)
    yield prm
    assert prm.endpoint.limiter.in_use == prm.endpoint.limiter.waiting == 0
    await prm.aclose()


async def running(url):
    """Sequences that a server says are running or waiting."""
    async with aiohttp.ClientSession() as session, session.get(f"{url}/metrics") as reply:
        lines = (await reply.text()).splitlines()
    names = ("vllm:num_requests_running", "vllm:num_requests_waiting")
    return sum(float(line.split()[-1]) for line in lines if line.startswith(names))


async def drains(url):
    """Whether a server comes to have nothing to do (a search that was left behind would go on for seconds)."""
    for _ in range(50):
        if await running(url) == 0:
            return True
    return False


async def nothing_runs(servers):
    """The server is told of a cancelled request by its closed connection, which takes it a step or two to see."""
    for url in (servers.policy, servers.prm):
        assert await drains(url)
    assert len(asyncio.all_tasks()) == 1


def told(result):
    return result.to_json() | {"usage": None}


@every
async def test_it_works_and_repeats_itself(strategy, client, prm):
    first, second = [await solve(strategy, client, prm, PROBLEM, seed=5) for _ in range(2)]
    assert first.text
    assert first.errors == ()
    assert told(first) == told(second)
    assert first.usage.policy_tokens > 0
    if strategy.stepwise:
        assert first.usage.scored <= len(first.tree) + first.usage.requests * strategy.lookahead
        assert all(0 <= node.path.score <= 1 for node in first.tree.nodes if node.path.score is not None)


@every
async def test_in_company_it_finds_the_same_as_alone(strategy, client, prm):
    """Other searches at the same time change the batches, and nothing else."""
    alone = await solve(strategy, client, prm, PROBLEM, seed=5)
    problems = [PROBLEM, *(f"What is ${i} + 3 \\cdot 4$?" for i in range(5))]
    results = [result async for result in solve_all(strategy, client, prm, problems, seed=5, at_once=6)]
    assert told(results[0]) == told(alone)


async def test_urls_are_enough(servers):
    result = await solve(DVTS(n=4), servers.policy, servers.prm, PROBLEM)
    assert result.text


@every
async def test_a_deadline_leaves_nothing_on_the_servers(strategy, client, prm, servers):
    result = await solve(strategy, client, prm, PROBLEM, budget=Budget(seconds=0.05))
    assert result.stopped_by in ("seconds", "decided", None)
    await nothing_runs(servers)


async def test_an_early_stop_leaves_nothing_on_the_servers(client, servers):
    result = await solve(Majority(n=32, early_stop="any_order"), client, None, r"What is $2 + 3$?")
    assert result.stopped_by == "decided"
    await nothing_runs(servers)


async def test_leaving_a_stream_leaves_nothing_on_the_servers(client, prm, servers):
    async with aclosing(stream(BestOfN(n=32), client, prm, PROBLEM)) as events:
        async for event in events:
            if isinstance(event, Sampled):
                break
    await nothing_runs(servers)


@every
async def test_requests_stay_within_the_budget(strategy, client, prm):
    result = await solve(strategy, client, prm, PROBLEM, budget=Budget(requests=3))
    assert result.usage.requests + result.usage.prm_requests <= 3
    assert result.text


async def test_the_policy_judges_its_own_steps(client):
    result = await solve(BeamSearch(n=4, width=2), client, SelfVerifier(client), PROBLEM)
    assert all(0 <= node.path.score <= 1 for node in result.tree.nodes if node.path.score is not None)
    assert result.usage.prm_requests == result.usage.scored > 0
    votes = await solve(BestOfN(n=2), client, SelfVerifier(client, votes=2), PROBLEM)
    assert all(0 <= path.score <= 1 for path in votes.paths)
