"""Budgets, deadlines, cancellation and partial failure: a search ends when told to, with what it has, and leaves nothing."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asearch import (
    DVTS,
    BeamSearch,
    BestOfN,
    Budget,
    FunctionPRM,
    Majority,
    ParticleFilter,
    ProtocolError,
    Rebase,
    SearchFailed,
    SelfRefine,
    ServerError,
    Step,
    UsageError,
    solve,
)
from worlds import ListedClient, ScriptedClient, ScriptedPRM, World, boxed, number, run

WORLD = World(branching=10**6, depth=4)
STRATEGIES = [
    Majority(n=8),
    BestOfN(n=8),
    BestOfN(n=8, select="best"),
    BestOfN(n=8, confidence=1.0),
    BeamSearch(n=8, width=2),
    BeamSearch(n=8, width=2, lookahead=2),
    DVTS(n=8, width=2),
    ParticleFilter(n=8),
    ParticleFilter(n=8, iterations=2),
    Rebase(n=8),
    SelfRefine(n=8),
]
every = pytest.mark.parametrize("strategy", STRATEGIES, ids=repr)


def slow(seconds=1.0):
    return lambda *_: seconds


async def finished_and_clean(searching, client, prm):
    """The result of a search, after which nothing may be left running."""
    result = await searching
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []
    assert (client.open, prm.open) == (0, 0)
    return result


# -- budgets -----------------------------------------------------------------------------------------------------------


@every
@pytest.mark.parametrize("tokens", [1, 25, 130, 500, 10**6])
def test_tokens_are_never_overspent(strategy, tokens):
    client, prm = ScriptedClient(WORLD, latency=slow()), ScriptedPRM(WORLD, latency=slow(), tokens=5)
    result = run(finished_and_clean(solve(strategy, client, prm, "What?", budget=Budget(tokens=tokens)), client, prm))
    assert result.usage.tokens <= tokens
    if tokens < 60:
        assert result.stopped_by == "tokens"
    if tokens == 10**6:
        assert result.stopped_by in (None, "decided")


@every
@pytest.mark.parametrize("requests", [1, 2, 5, 12, 10**6])
def test_requests_are_never_overspent(strategy, requests):
    client, prm = ScriptedClient(WORLD, latency=slow()), ScriptedPRM(WORLD, latency=slow())
    result = run(
        finished_and_clean(solve(strategy, client, prm, "What?", budget=Budget(requests=requests)), client, prm)
    )
    assert client.requests + prm.requests <= requests
    if requests < 4:
        assert result.stopped_by == "requests"
        assert result.text
    if requests == 10**6:
        assert result.stopped_by in (None, "decided")


@every
@pytest.mark.parametrize("seconds", [0.5, 1.5, 2.5, 4.5, 1000])
def test_time_ends_a_search_on_the_dot(strategy, seconds):
    client, prm = ScriptedClient(WORLD, latency=slow()), ScriptedPRM(WORLD, latency=slow())
    result = run(finished_and_clean(solve(strategy, client, prm, "What?", budget=Budget(seconds=seconds)), client, prm))
    assert result.usage.seconds <= seconds
    if result.stopped_by == "seconds":
        assert result.usage.seconds == pytest.approx(seconds)
    if seconds == 0.5:
        assert (result.stopped_by, result.answer, result.paths, result.text) == ("seconds", None, (), "")
    if seconds == 1000:
        assert result.stopped_by in (None, "decided")


def test_cut_short_the_best_so_far_is_returned():
    """One path is complete, and worse than one that is still under way: the complete one has the answer."""

    class Uneven(World):
        def step(self, before, choice):
            if choice % 2 and not before:
                return boxed(7), "eos"
            return f"on {len(before)} {choice % 2}\n\n", "step"

        def score(self, steps):
            return 0.2 if "box" in steps[-1] else 0.9

    world = Uneven(branching=2)
    client, prm = ScriptedClient(world, enumerate=True, latency=slow()), ScriptedPRM(world, latency=slow())
    result = run(solve(BeamSearch(n=2, width=2), client, prm, "What?", budget=Budget(seconds=7)))
    assert (result.answer, result.stopped_by) == ("7", "seconds")
    assert (result.score, len(result.paths)) == (0.2, 1)


def test_cut_short_without_any_answer_the_most_promising_beginning_is_shown():
    client, prm = ScriptedClient(WORLD, latency=slow()), ScriptedPRM(WORLD, latency=slow())
    result = run(solve(DVTS(n=8, width=2), client, prm, "What?", budget=Budget(seconds=4.5)))
    assert result.answer is None
    best = max(
        (n.path for n in result.tree.nodes if n.path.id and n.fate != "pruned"), key=lambda p: (p.depth, p.score or 0)
    )
    assert result.text
    assert best.depth >= 2


def test_a_vote_after_the_deadline_does_not_wait_for_answers_that_are_hard_to_read():
    class Stuck:
        async def group(self, answers):
            await asyncio.sleep(10**6)

    client = ScriptedClient(World(branching=5, depth=1), latency=lambda _, seed: 1 if number(seed) % 4 else 10)
    budget = Budget(seconds=5)
    result = run(solve(Majority(n=16, early_stop=False), client, None, "What?", budget=budget, workers=Stuck()))
    assert result.stopped_by == "seconds"
    assert result.usage.seconds == pytest.approx(5 + 1)
    assert result.answer is not None
    assert sum(vote.count for vote in result.votes) == len(result.paths)


def test_what_the_budget_left_unscored_is_counted_by_heads():
    texts = [boxed(1), boxed(2), boxed(2)]
    client = ListedClient(texts, latency=lambda i: 1 + i)
    prm = ScriptedPRM(WORLD, latency=lambda _: 10)
    result = run(solve(BestOfN(n=3), client, prm, "What?", budget=Budget(seconds=5)))
    assert (result.answer, result.score, result.stopped_by) == ("2", None, "seconds")


def test_a_step_that_the_budget_cut_is_no_end_of_its_own():
    client, prm = ScriptedClient(WORLD, tokens=10), ScriptedPRM(WORLD)
    result = run(solve(BeamSearch(n=2, width=2), client, prm, "What?", budget=Budget(tokens=27)))
    assert result.stopped_by == "tokens"
    assert result.usage.tokens <= 27


@pytest.mark.parametrize("wrong", [{"tokens": 0}, {"seconds": -1}, {"requests": 0}, {"seconds": float("nan")}])
def test_a_budget_must_be_positive(wrong):
    with pytest.raises(UsageError, match="must be positive"):
        Budget(**wrong)


# -- cancellation ------------------------------------------------------------------------------------------------------


@every
@settings(max_examples=8, deadline=None)
@given(moment=st.floats(0.01, 12))
def test_asyncio_timeout_around_a_call_works_as_people_expect(strategy, moment):
    async def main():
        client, prm = ScriptedClient(WORLD, latency=slow()), ScriptedPRM(WORLD, latency=slow(0.7))
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            async with asyncio.timeout(moment):
                await solve(strategy, client, prm, "What?")
        except TimeoutError:
            assert loop.time() - began == pytest.approx(moment)
        assert (client.open, prm.open) == (0, 0)
        assert len(asyncio.all_tasks()) == 1

    run(main())


def test_a_timeout_inside_a_client_is_no_deadline_of_ours():
    def fail(*_):
        raise TimeoutError("the client's own")

    client = ScriptedClient(WORLD, latency=fail)
    with pytest.raises(TimeoutError, match="the client's own"):
        run(solve(Majority(n=2), client, None, "What?", budget=Budget(seconds=100)))


# -- partial failure ---------------------------------------------------------------------------------------------------

BROKEN = ServerError("the server failed", endpoint="http://policy", status=500)


@every
def test_while_any_path_lives_the_search_goes_on(strategy):
    """A third of all requests fails for good: the rest must do, and what failed is on record."""
    client = ScriptedClient(WORLD, fail=lambda path, seed: BROKEN if number(seed) % 3 == 0 else None)
    prm = ScriptedPRM(WORLD, fail=lambda path: BROKEN if number(path.text) % 10 == 0 else None)
    complete = 0
    for seed in range(6):
        try:
            result = run(finished_and_clean(solve(strategy, client, prm, "What?", seed=seed), client, prm))
        except SearchFailed:
            continue
        complete += result.answer is not None
        assert all(error == "http://policy: the server failed (HTTP 500)" for error in result.errors)
        assert not any(node.fate == "failed" and node.path in result.paths for node in result.tree.nodes)
    assert complete >= 1


@every
def test_when_none_lives_that_is_an_error_with_what_there_is(strategy):
    client = ScriptedClient(WORLD, fail=lambda *_: BROKEN)
    prm = ScriptedPRM(WORLD)
    with pytest.raises(SearchFailed, match="every path failed; the first: http://policy: the server failed") as failure:
        run(finished_and_clean(solve(strategy, client, prm, "What?"), client, prm))
    assert failure.value.paths == ()
    assert failure.value.__cause__ is BROKEN


@pytest.mark.parametrize("strategy", [s for s in STRATEGIES if s.stepwise], ids=repr)
def test_what_was_explored_before_the_end_hangs_on_the_error(strategy):
    client = ScriptedClient(WORLD, fail=lambda path, _: BROKEN if path.depth == 2 else None)
    prm = ScriptedPRM(WORLD)
    with pytest.raises(SearchFailed) as failure:
        run(finished_and_clean(solve(strategy, client, prm, "What?"), client, prm))
    assert {path.depth for path in failure.value.paths} == {1, 2}


@pytest.mark.parametrize("strategy", [s for s in STRATEGIES if s.uses_prm], ids=repr)
def test_a_verifier_that_fails_for_all_is_an_error(strategy):
    client, prm = ScriptedClient(WORLD), ScriptedPRM(WORLD, fail=lambda _: BROKEN)
    with pytest.raises(SearchFailed):
        run(finished_and_clean(solve(strategy, client, prm, "What?"), client, prm))


@pytest.mark.parametrize("score", [float("nan"), 1.5, -0.1, float("inf")])
def test_a_score_that_is_no_probability_fails_its_path(score):
    prm = FunctionPRM(lambda _, steps: [score] * len(steps))
    with pytest.raises(SearchFailed) as failure:
        run(solve(BeamSearch(n=2, width=2), ScriptedClient(WORLD), prm, "What?"))
    assert isinstance(failure.value.__cause__, ProtocolError)


def test_a_bug_in_a_users_function_is_raised_as_it_is():
    def broken(_text, _steps):
        raise ZeroDivisionError("oops")

    with pytest.raises(ZeroDivisionError, match="oops"):
        run(solve(BestOfN(n=4), ScriptedClient(WORLD), broken, "What?"))


def test_a_lookahead_that_fails_leaves_the_child_with_its_own_score():
    client = ScriptedClient(WORLD, fail=lambda path, _: BROKEN if path.depth == 3 else None)
    client.fail = lambda path, seed: BROKEN if client.asked[-1][3].temperature == 0 else None
    result = run(solve(DVTS(n=4, width=2, lookahead=1), client, ScriptedPRM(WORLD), "What?"))
    assert result.answer is not None
    assert len(result.errors) > 0


def test_a_blank_step_whose_continuation_fails_takes_no_sibling_with_it():
    class Stutter(World):
        def step(self, before, choice):
            if not before:
                return ("\n\n" if choice % 2 else "well\n\n"), "step"
            return boxed(3), "eos"

    world = Stutter(branching=2)
    client = ScriptedClient(world, enumerate=True, fail=lambda path, _: BROKEN if path.text == "\n\n" else None)
    result = run(solve(DVTS(n=2, width=2), client, ScriptedPRM(world), "What?"))
    assert result.answer == "3"
    assert len(result.errors) == 1
    assert [node.fate for node in result.tree.nodes if node.path.id == (1,)] == ["failed"]


# -- what counts as a step ---------------------------------------------------------------------------------------------


def test_a_blank_step_goes_on_until_it_says_something():
    texts = iter(["\n\n", "\n\n", "so\n\n", boxed(5)])

    class Blank(World):
        def step(self, before, choice):
            text = next(texts)
            return text, "eos" if "box" in text else "step"

    asked = []
    prm = FunctionPRM(lambda _, steps: asked.append(steps) or 0.5)
    result = run(solve(DVTS(n=1, width=1), ScriptedClient(Blank()), prm, "What?"))
    assert [step.text for step in result.paths[0].chain] == ["\n\n\n\nso\n\n", boxed(5)]
    assert [len(steps) for steps in asked] == [1, 2]
    assert all(step.strip() for steps in asked for step in steps)


def test_a_model_that_says_nothing_at_all_is_not_asked_for_ever():
    class Silent(World):
        def step(self, before, choice):
            return "\n\n", "step"

    client = ScriptedClient(Silent())
    asked = []
    prm = FunctionPRM(lambda _, steps: asked.append(steps) or 1.0)
    result = run(solve(BeamSearch(n=2, width=2, depth=3), client, prm, "What?"))
    assert (result.answer, result.score) == (None, 0.0)
    assert asked == []  # nothing was said, so there is nothing to judge
    assert client.requests <= 3 * (1 + 2 * 3)


@pytest.mark.parametrize("strategy", [s for s in STRATEGIES if s.uses_prm], ids=repr)
def test_a_solution_that_ran_out_of_room_is_no_end_and_does_not_vote(strategy):
    class Cramped(World):
        def step(self, before, choice):
            if len(before) == 1:
                return (boxed(1), "length") if number(choice) % 3 else (boxed(2), "eos")
            return f"step {choice}\n\n", "step"

        def score(self, steps):
            return 0.99 if "boxed{1}" in steps[-1] else 0.5

    client, prm = ScriptedClient(Cramped(branching=100)), ScriptedPRM(Cramped())
    result = run(solve(strategy, client, prm, "What?", seed=1))
    if any(path.complete for path in result.paths):
        assert result.answer == "2"
    else:
        assert result.answer == "1"
    if strategy.stepwise and strategy.name != "dvts" and any(path.complete for path in result.paths):
        assert all(path.complete for path in result.paths)


def test_room_that_is_gone_gives_an_empty_step_and_no_division_by_zero():
    class Full(ListedClient):
        async def extend(self, path, n, **options):
            return [Step("", "length", ())] * n

    result = run(solve(BeamSearch(n=4), Full([]), FunctionPRM(lambda *_: 1.0), "What?"))
    assert (result.answer, len(result.paths), result.paths[0].complete) == (None, 1, False)
