"""Strategies on worlds whose every solution is known: the exact answers that a search must find."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asearch import (
    DVTS,
    BeamSearch,
    BestOfN,
    Greedy,
    Majority,
    ParticleFilter,
    Rebase,
    SelfRefine,
    solve,
)
from asearch.scoring import reduce_scores
from worlds import ScriptedClient, ScriptedPRM, World, run

REDUCTIONS = ["last", "min", "prod", "mean"]
worlds = st.builds(World, branching=st.integers(1, 4), depth=st.integers(1, 4), name=st.text("abcdef", min_size=4))

small_worlds = worlds.filter(lambda world: world.branching ** (2 * world.depth + 1) <= 3000)


def value(world, steps, reduction):
    return reduce_scores([world.score(steps[: i + 1]) for i in range(len(steps))], reduction)


def search(strategy, world, *, enumerate=False, **options):  # noqa: A002
    client, prm = ScriptedClient(world, enumerate=enumerate), ScriptedPRM(world)
    result = run(solve(strategy, client, prm, "What?", **options))
    return result, client, prm


@settings(max_examples=60, deadline=None)
@given(world=small_worlds, reduction=st.sampled_from(REDUCTIONS))
def test_a_beam_that_is_wide_enough_finds_the_global_best(world, reduction):
    width = world.branching
    n = width ** (2 * world.depth + 1)  # all paths before the last step can keep the sqrt(n * width) places of each
    strategy = BeamSearch(n=n, width=width, reduction=reduction, select="best", depth=world.depth)
    result, _, _ = search(strategy, world, enumerate=True)
    best = max(value(world, steps, reduction) for steps in world.solutions())
    assert result.score == pytest.approx(best)
    assert value(world, tuple(step.text for step in result.paths[result.winner].chain), reduction) == pytest.approx(
        best
    )


@settings(max_examples=60, deadline=None)
@given(world=worlds, reduction=st.sampled_from(REDUCTIONS))
def test_dvts_goes_on_with_the_best_child_in_each_subtree(world, reduction):
    strategy = DVTS(n=2 * world.branching, width=world.branching, reduction=reduction)
    result, _, _ = search(strategy, world, enumerate=True)
    expected = ()
    for _ in range(world.depth):
        children = [(*expected, world.step(expected, i)[0]) for i in range(world.branching)]
        expected = max(children, key=lambda steps: value(world, steps, reduction))
    for subtree in range(2):
        leaves = [p for p in result.paths if p.id[0] // world.branching == subtree]
        best = max(leaves, key=lambda p: reduce_scores(p.scores, reduction))
        assert best.text == "".join(expected)


@settings(max_examples=40, deadline=None)
@given(world=worlds, reduction=st.sampled_from(REDUCTIONS), n=st.integers(1, 12))
def test_best_of_n_is_argmax(world, reduction, n):
    result, _, _ = search(BestOfN(n=n, select="best", reduction=reduction), world)
    assert len(result.paths) == n
    values = [value(world, tuple(step.text for step in path.chain), reduction) for path in result.paths]
    assert result.score == pytest.approx(max(values))
    assert result.text == result.paths[values.index(max(values))].text


@pytest.mark.parametrize(
    "strategy",
    [
        BeamSearch(n=1, width=1, temperature=0),
        DVTS(n=1, width=1, temperature=0),
        BestOfN(n=1, temperature=0),
        Majority(n=1, temperature=0),
        ParticleFilter(n=1, temperature=0),
        Rebase(n=1, temperature=0),
        SelfRefine(n=1, revisions=1, temperature=0),
    ],
    ids=lambda strategy: strategy.name,
)
def test_with_one_path_every_strategy_is_greedy(strategy):
    world = World(depth=5)
    expected, _, _ = search(Greedy(), world)
    result, _, _ = search(strategy, world)
    assert result.text == expected.text
    assert result.answer == expected.answer


GROWING = [
    BeamSearch(n=8, width=2),
    BeamSearch(n=8, width=8),
    DVTS(n=8, width=2),
    DVTS(n=8, width=8, depth=2),
    ParticleFilter(n=8),
    ParticleFilter(n=8, iterations=2),
    Rebase(n=8),
]


@pytest.mark.parametrize("strategy", GROWING, ids=repr)
@pytest.mark.parametrize("seed", range(3))
def test_steps_written_are_at_most_n_per_level_and_each_is_scored_once(strategy, seed):
    world = World(branching=10**6, depth=4)  # no two steps are equal
    result, client, prm = search(strategy, world, seed=seed)
    depth = min(strategy.depth, world.depth)
    assert client.steps <= strategy.n * depth
    assert prm.steps == client.steps == len(result.tree) == result.usage.scored
    assert result.usage.requests == client.requests
    assert all(path.depth <= depth for path in result.paths)


@pytest.mark.parametrize("strategy", GROWING, ids=repr)
def test_equal_siblings_are_scored_and_continued_once(strategy):
    result, client, prm = search(strategy, World(branching=2, depth=4))
    assert prm.steps < client.steps == len(result.tree)
    if strategy == ParticleFilter(n=8, iterations=2):
        return  # an iteration may come to a path of the one before it, and say the same again
    for node in result.tree.nodes:
        texts = [child.path.text for child in result.tree.children(node.path.id) if child.path.score is not None]
        assert len(texts) == len(set(texts))


def test_beam_search_stops_at_n_complete_solutions():
    result, client, _ = search(BeamSearch(n=4, width=2, depth=40), World(branching=10**6, depth=3))
    assert client.steps == 4 * 3
    assert sum(path.complete for path in result.paths) == 4
    assert result.stopped_by is None


def test_nothing_is_asked_after_the_answer():
    world = World(branching=10**6, depth=2)
    for strategy in (*GROWING, BestOfN(n=8), Majority(n=8), SelfRefine(n=8)):
        last = {}
        client, prm = ScriptedClient(world), ScriptedPRM(world)

        async def observe(client=client, prm=prm, strategy=strategy, last=last):
            result = await solve(strategy, client, prm, "What?")
            last.update(client=client.requests, prm=prm.requests)
            return result

        result = run(observe())
        assert result.answer is not None
        assert (client.open, prm.open) == (0, 0)
        assert (client.requests, prm.requests) == (last["client"], last["prm"])


@pytest.mark.parametrize("strategy", [BeamSearch(n=4, width=2), DVTS(n=4, width=2)], ids=lambda s: s.name)
def test_a_path_that_is_given_up_at_the_depth_is_still_there(strategy):
    result, client, _ = search(type(strategy)(n=4, width=2, depth=2), World(branching=10**6, depth=5))
    assert result.paths
    assert all(not path.finished and path.depth == 2 for path in result.paths)
    assert client.steps == 4 * 2
    assert result.answer is None
    assert result.text


def test_reward_balanced_search_shares_out_n_expansions():
    result, _, _ = search(Rebase(n=12, balance=0.5), World(branching=10**6, depth=4))
    by_level = [sum(len(node.path.id) == level for node in result.tree.nodes) for level in range(1, 5)]
    assert by_level == [12, 12, 12, 12]
    assert len(result.paths) == 12


def test_a_small_balance_is_greedy_and_a_large_one_is_fair():
    world = World(branching=10**6, depth=2)
    greedy, _, _ = search(Rebase(n=6, balance=1e-6), world)
    fair, _, _ = search(Rebase(n=6, balance=1e6), world)
    assert len({path.id[0] for path in greedy.paths}) == 1
    assert len({path.id[0] for path in fair.paths}) == 6


def test_lookahead_judges_a_step_by_where_it_leads():
    """The first step with the better score leads to a worse end: without lookahead it wins, with it it loses."""
    scores = {"good now\n\n": 0.9, "bad now\n\n": 0.1, "worse": 0.2, "better": 0.95}

    class Fork(World):
        def step(self, before, choice):
            if not before:
                return (["good now\n\n", "bad now\n\n"][choice % 2], "step")
            return ("worse" if before[0] == "good now\n\n" else "better"), "eos"

        def score(self, steps):
            return scores[steps[-1]]

    world = Fork(branching=2, depth=2)
    for kind in (BeamSearch, DVTS):
        near, _, _ = search(kind(n=2, width=2), world, enumerate=True)
        far, client, prm = search(kind(n=2, width=2, lookahead=1), world, enumerate=True)
        assert near.text.endswith("worse")
        assert far.text.endswith("better")
        assert client.steps == 2 + 2 + 2  # two steps, a look beyond each, two ends,
        assert prm.steps == 5  # which are the same
        assert all("worse" not in node.path.text for node in far.tree.nodes)
