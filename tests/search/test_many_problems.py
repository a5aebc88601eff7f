"""solve_all: many problems at once, bounded, in order, and one that fails does not stop the others."""

import asyncio
from contextlib import aclosing

import pytest

from asearch import DVTS, BestOfN, Majority, Problem, ServerError, Unreachable, UsageError, solve, solve_all
from worlds import ScriptedClient, ScriptedPRM, World, number, run

WORLD = World(branching=5, depth=3)


def servers(**options):
    return ScriptedClient(WORLD, **options), ScriptedPRM(WORLD, latency=lambda _: 1)


async def listed(results):
    return [result async for result in results]


def uneven(path, _seed):
    return 1 + number(path.problem.text) % 20


def test_results_come_in_order_and_are_those_of_single_searches():
    problems = [f"Problem {i}" for i in range(20)]
    results = run(listed(solve_all(DVTS(n=4, width=2), *servers(latency=uneven), problems, at_once=5, seed=7)))
    assert [result.problem.text for result in results] == problems
    for result in results[:4]:
        alone = run(solve(DVTS(n=4, width=2), *servers(), result.problem, seed=7))
        assert alone.to_json() | {"usage": 0} == result.to_json() | {"usage": 0}


@pytest.mark.parametrize("at_once", [1, 3, 8])
def test_no_more_than_that_many_at_once(at_once):
    under_way, most = set(), 0

    def latency(path, _seed):
        nonlocal most
        under_way.add(path.problem.text)
        most = max(most, len(under_way))
        return 1

    async def main():
        results = solve_all(Majority(n=2), *servers(latency=latency), map(str, range(1, 30)), at_once=at_once)
        async for result in results:
            under_way.discard(result.problem.text)

    run(main())
    assert most >= at_once  # all the room is used,
    assert most <= 4 * at_once  # and finished ones wait for their turn to be handed out


def test_problems_are_taken_as_there_is_room():
    """An endless source is fine, and so is a loop that is left."""
    taken = 0

    def source():
        nonlocal taken
        while True:
            taken += 1
            yield f"Problem {taken}"

    async def main():
        client, _ = servers(latency=lambda *_: 1)
        async with aclosing(solve_all(Majority(n=2), client, None, source(), at_once=2)) as results:
            async for result in results:
                if result.problem.text == "Problem 10":
                    break
        assert client.open == 0
        assert len(asyncio.all_tasks()) == 1

    run(main())
    assert taken <= 10 + 4 * 2


def test_an_async_source():
    async def source():
        for i in range(3):
            await asyncio.sleep(5)
            yield Problem(f"Problem {i}", id=str(i))

    results = run(listed(solve_all(Majority(n=2), *servers(), source())))
    assert [result.problem.id for result in results] == ["0", "1", "2"]


def test_one_that_fails_does_not_stop_the_others():
    broken = ServerError("gone", endpoint="http://policy")
    client, prm = servers(fail=lambda path, _: broken if path.problem.text == "2" else None)
    results = run(listed(solve_all(BestOfN(n=4), client, prm, ["1", "2", "3"])))
    assert [result.answer is None for result in results] == [False, True, False]
    assert results[1].stopped_by == "error"
    assert results[1].errors == ("every path failed; the first: http://policy: gone",)
    assert results[1].to_json()["answer"] is None


def test_a_server_that_cannot_be_used_at_all_is_raised_once():
    class Nowhere(ScriptedClient):
        async def connect(self):
            raise Unreachable("no connection", endpoint="http://nowhere")

    with pytest.raises(Unreachable):
        run(listed(solve_all(Majority(n=2), Nowhere(WORLD), None, ["1", "2"])))


def test_a_bug_is_raised_and_nothing_runs_on():
    async def main():
        client, _ = servers(latency=lambda *_: 1)
        client.fail = lambda path, _: ZeroDivisionError("oops") if path.problem.text == "3" else None
        with pytest.raises(ZeroDivisionError):
            await listed(solve_all(Majority(n=2), client, None, map(str, range(1, 9))))
        assert client.open == 0
        assert len(asyncio.all_tasks()) == 1

    run(main())


def test_refused_at_once():
    client, prm = servers()
    with pytest.raises(UsageError, match="needs a PRM"):
        solve_all(DVTS(), client, None, ["1"])
    with pytest.raises(UsageError, match="at_once must be"):
        solve_all(DVTS(), client, prm, ["1"], at_once=0)
    with pytest.raises(UsageError, match="use solve for one"):
        solve_all(DVTS(), client, prm, "What?")
    assert client.connected == 0
