"""What the reference implementation (search-and-learn) gets wrong, and must not go wrong here. One test per fault."""

import asyncio

import pytest

from asearch import (
    DVTS,
    BeamSearch,
    BestOfN,
    Finished,
    FunctionPRM,
    Majority,
    Problem,
    UsageError,
    solve,
    solve_all,
)
from asearch.path import split_steps
from worlds import ListedClient, ScriptedClient, ScriptedPRM, World, boxed, run

WORLD = World(branching=10**6, depth=3)


def searched(strategy, world=WORLD, **options):
    client, prm = ScriptedClient(world, **options), ScriptedPRM(world)
    return run(solve(strategy, client, prm, "What?")), client, prm


def test_1_beam_search_ends_at_n_complete_solutions_and_not_at_level_40():
    _, client, _ = searched(BeamSearch(n=8, width=4))
    assert client.steps == 8 * WORLD.depth


def test_2_a_solution_that_was_cut_off_is_not_complete():
    result = run(solve(Majority(n=3), ListedClient([(boxed(1), "length"), (boxed(1), "length"), boxed(2)]), None, "?"))
    assert result.answer == "2"
    assert [path.complete for path in result.paths] == [False, False, True]


def test_2_nothing_complete_is_a_result_and_no_division_by_zero():
    class Endless(World):
        def step(self, before, choice):
            return f"on and on {choice}\n\n", "step"

    for strategy in (BeamSearch(n=4, depth=3), DVTS(n=4, depth=3)):
        result, _, _ = searched(strategy, Endless(branching=10**6))
        assert (result.answer, bool(result.text), result.votes) == (None, True, ())


def test_3_a_budget_smaller_than_the_width_is_refused():
    with pytest.raises(UsageError, match="multiple of width=4, not 2; try n=4"):
        searched(BeamSearch(n=2, width=4))


def test_4_duplicates_do_not_fill_the_pool_and_vote():
    class Parrot(World):
        def step(self, before, choice):
            return boxed(1) if choice % 4 else boxed(2), "eos"

        def score(self, steps):
            return 0.3 if steps == (boxed(1),) else 0.8

    result, _, _ = searched(BeamSearch(n=16, width=16), Parrot(branching=4))
    assert (result.answer, [vote.count for vote in result.votes]) == ("2", [1, 1])


def test_4_blank_answers_never_win():
    texts = ["I do not know.", r"It is \boxed{}.", r"\boxed{ }", boxed(3)]
    result = run(solve(BestOfN(n=4), ListedClient(texts), FunctionPRM(lambda *_: 0.9), "What?"))
    assert result.answer == "3"
    assert len(result.votes) == 1
    assert result.answers[0] is None


def test_5_dvts_keeps_every_leaf_and_one_path_of_each_subtree():
    class Uneven(World):
        """Of four continuations one ends, with a poor score; after three steps all end."""

        def step(self, before, choice):
            if len(before) == 2 or choice % 4 == 0:
                return f"end {len(before)} {choice}: {boxed(len(before))}", "eos"
            return f"step {choice}\n\n", "step"

        def score(self, steps):
            return 0.1 if "end" in steps[-1] else 0.9

    result, _, _ = searched(DVTS(n=8, width=4), Uneven(branching=4), enumerate=True)
    assert [path.depth for path in result.paths] == [1, 2, 3, 3, 3, 3] * 2
    assert {path.id[0] // 4 for path in result.paths} == {0, 1}
    assert all(answer is not None for answer in result.answers)


def test_6_lookahead_is_scored():
    _, client, prm = searched(BeamSearch(n=4, width=2, lookahead=1))
    near, _, _ = searched(BeamSearch(n=4, width=2))
    assert prm.steps == client.steps > len(near.tree)


def test_7_max_tokens_is_for_the_solution_and_not_for_a_step():
    client = ScriptedClient(WORLD)
    run(solve(BeamSearch(n=4, max_tokens=77), client, ScriptedPRM(WORLD), "What?"))
    assert {sampling.max_tokens for _, _, _, sampling in client.asked} == {77}
    assert {path.tokens for path, _, _, _ in client.asked} == {0, 10, 20}  # what a client subtracts from it


def test_8_prompts_are_the_same_every_day_and_every_request_has_its_seed():
    assert "20" not in Problem("What?").messages[0]["content"]
    one, client, _ = searched(DVTS(n=8))
    two, again, _ = searched(DVTS(n=8))
    assert one.to_json()["tree"] == two.to_json()["tree"]
    assert sorted(seed for _, _, seed, _ in client.asked) == sorted(seed for _, _, seed, _ in again.asked)


def test_9_no_empty_step_is_scored():
    """The reference splits text that ends in a separator, and takes the score of the empty rest for the last."""
    assert split_steps("one\n\ntwo\n\n") == ["one\n\n", "two\n\n"]
    asked = []
    prm = FunctionPRM(lambda _, steps: asked.append(steps) or 0.5)
    run(solve(BestOfN(n=1), ListedClient(["one\n\ntwo\n\n\n\n" + boxed(3) + "\n\n"]), prm, "What?"))
    assert asked == [["one\n\n", "two\n\n\n\n", boxed(3) + "\n\n"]]


def test_10_only_new_steps_are_scored():
    _, client, prm = searched(BeamSearch(n=8, width=2))
    assert prm.steps == client.steps


def test_10_subtrees_do_not_wait_for_each_other():
    world = World(branching=10**6, depth=2)
    client = ScriptedClient(world, latency=lambda path, _: 100 if path.id == (0,) else 1)
    prm = ScriptedPRM(world, latency=lambda _: 1)
    assert finishing_times(DVTS(n=2, width=1), client, prm) == {1: 4, 0: 103}


def test_10_samples_are_scored_the_moment_they_end():
    client = ListedClient([boxed(i) for i in range(4)], latency=lambda i: 1 + 10 * i)
    prm = FunctionPRM(lambda *_: 0.5)
    assert finishing_times(BestOfN(n=4, early_stop=False), client, prm) == {0: 1, 1: 11, 2: 21, 3: 31}


def finishing_times(strategy, client, prm):
    """Number of the sample or subtree -> when its candidate stood."""
    at = {}

    def listen(event):
        if isinstance(event, Finished):
            at[event.path.id[0]] = round(event.usage.seconds, 3)

    run(solve(strategy, client, prm, "What?", on_event=listen))
    return at


def test_11_answers_mean_what_they_say():
    texts = [boxed("(1,2)"), boxed("(2,1)"), boxed(r"(1, 2)"), boxed("a+b"), boxed("b")]
    searching = solve(Majority(n=5, early_stop=False), ListedClient(texts), None, "What?")
    result = asyncio.run(searching)  # these are settled in another process, in real time
    assert [group.members for group in result.groups] == [(0, 2), (1,), (3,), (4,)]


def test_12_two_equal_problems_do_not_merge():
    async def both():
        client = ScriptedClient(WORLD)
        return [result async for result in solve_all(Majority(n=4), client, None, ["What?", "What?"])]

    one, two = run(both())
    assert [path.text for path in one.paths] != [path.text for path in two.paths]
    assert len(one.paths) == len(two.paths) >= 3
