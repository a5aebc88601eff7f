"""Reproducible: the same seed gives the same result in whatever order replies arrive, and another seed another one."""

import random

import pytest

from asearch import (
    DVTS,
    BeamSearch,
    BestOfN,
    Majority,
    ParticleFilter,
    Problem,
    Rebase,
    SelfRefine,
    solve,
    solve_all,
)
from worlds import ScriptedClient, ScriptedPRM, World, run

WORLD = World(branching=5, depth=4)
STRATEGIES = [
    Majority(n=12),
    BestOfN(n=12),
    BestOfN(n=12, early_stop=False),
    BestOfN(n=12, confidence=1.0),
    Majority(n=12, confidence=0.9),
    BestOfN(n=12, select="best", reduction="prod"),
    BeamSearch(n=12, width=3),
    BeamSearch(n=12, width=3, lookahead=2),
    DVTS(n=12, width=3),
    DVTS(n=12, width=3, lookahead=1),
    ParticleFilter(n=12),
    ParticleFilter(n=12, iterations=3),
    Rebase(n=12),
    SelfRefine(n=12),
]


def searched(strategy, order, *, seed=0, problem="What?", world=WORLD):
    chance = random.Random(order)
    client = ScriptedClient(world, latency=lambda *_: chance.expovariate(1))
    prm = ScriptedPRM(world, latency=lambda _: chance.expovariate(1))
    return run(solve(strategy, client, prm, problem, seed=seed))


def told(result):
    return result.to_json() | {"usage": None}


@pytest.mark.parametrize("strategy", STRATEGIES, ids=repr)
def test_any_order_of_replies_gives_the_same_result(strategy):
    results = [told(searched(strategy, order)) for order in range(12)]
    assert all(result == results[0] for result in results)


@pytest.mark.parametrize("strategy", STRATEGIES, ids=repr)
def test_another_seed_gives_another_tree(strategy):
    assert told(searched(strategy, 0, seed=1))["tree"] != told(searched(strategy, 0, seed=2))["tree"]


def test_requests_of_one_search_never_share_a_seed():
    client = ScriptedClient(World(branching=10**6, depth=4))
    run(solve(BeamSearch(n=16, width=4), client, ScriptedPRM(client.world), "What?"))
    run(solve(BestOfN(n=16), client, ScriptedPRM(client.world), "What else?"))
    seeds = [seed + i for _, n, seed, _ in client.asked for i in range(n)]
    assert len(seeds) == len(set(seeds))
    assert all(0 < seed < 2**63 for seed in seeds)


def test_two_equal_problems_are_two_searches():
    async def both():
        client, prm = ScriptedClient(WORLD), ScriptedPRM(WORLD)
        return [result async for result in solve_all(DVTS(n=8), client, prm, ["What?", "What?"])]

    one, two = run(both())
    assert one.problem.text == two.problem.text
    assert told(one)["tree"] != told(two)["tree"]
    assert told(one) == told(searched(DVTS(n=8), 0))
    again = searched(DVTS(n=8), 0, problem=Problem("What?", id=two.problem.id))
    assert told(two) == told(again)
