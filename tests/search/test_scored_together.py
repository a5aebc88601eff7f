"""Siblings scored in one go: the same scores, events and failures as one by one, and one by one where a budget is kept."""

import pytest

from asearch import DVTS, Budget, CausalPRM, Failed, OpenAIClient, Path, Problem, Scored, ServerError, Step, solve
from worlds import ScriptedClient, ScriptedPRM, World, run

WORLD = World(branching=4, depth=3)
STRATEGY = DVTS(n=8, width=4)


class Together(ScriptedPRM):
    """A verifier that can score several paths in one call."""

    calls = 0

    async def score_all(self, paths):
        self.calls += 1
        results = []
        for path in paths:
            try:
                results.append(await self.score(path))
            except ServerError as failure:
                results.append(failure)
        return results


def searched(prm, **options):
    events = []
    result = run(
        solve(STRATEGY, ScriptedClient(WORLD, enumerate=True), prm, "Which?", on_event=events.append, **options)
    )
    told = [(type(event).__name__, event.path.id, event.path.score) for event in events]
    return result, told


def bad(path):
    return ServerError("cannot", endpoint="prm", status=500) if path.id == (1,) else None


@pytest.mark.parametrize("fail", [None, bad], ids=["all well", "one fails"])
def test_the_same_tree_and_events_as_one_by_one(fail):
    one_by_one, told = searched(ScriptedPRM(WORLD, fail=fail))
    prm = Together(WORLD, fail=fail)
    together, told_together = searched(prm)
    assert prm.calls
    assert sorted(told_together, key=str) == sorted(told, key=str)
    assert together.to_json() | {"usage": 0} == one_by_one.to_json() | {"usage": 0}
    assert any(kind == Failed.__name__ for kind, *_ in told) == (fail is not None)


def test_where_a_budget_is_kept_each_is_asked_by_itself():
    prm = Together(WORLD, tokens=5)
    result, _ = searched(prm, budget=Budget(tokens=150))
    assert prm.calls == 0
    assert result.usage.tokens <= 150
    assert result.stopped_by == "tokens"


async def test_the_served_verifier_gives_the_same_scores_both_ways(servers):
    client, one, other = OpenAIClient(servers.policy), CausalPRM(servers.prm), CausalPRM(servers.prm)
    try:
        scores = {}
        problem = Problem("What is $7 \\cdot (12 - 5) + 8$?")
        await solve(DVTS(n=16), client, one, problem, on_event=lambda e: note(e, scores))
        grown = list(scores)
        assert len(grown) > 4
        bare = [unscored(path) for path in grown]
        together = await other.score_all(bare)
        assert [s[-1] for s in together] == pytest.approx([scores[path] for path in grown], abs=1e-5)
        fresh = CausalPRM(servers.prm)
        assert [await fresh.score(path) for path in bare] == together
        await fresh.aclose()
    finally:
        for opened in (client, one, other):
            await opened.aclose()


async def test_one_that_is_too_long_fails_alone(servers):
    prm = CausalPRM(servers.prm)
    try:
        root = Path(Problem("What is $1 + 2$?"))
        texts = ["$1 + 2 = 3$\n\n", "and so on " * 300 + "\n\n", "$1 + 2 = 4$\n\n"]
        paths = [root.grow(Step(text, "step", None, 1), i) for i, text in enumerate(texts)]
        first, second, third = await prm.score_all(paths)
        assert isinstance(second, Exception)
        assert [first, third] == [await prm.score(paths[0]), await prm.score(paths[2])]
        with pytest.raises(type(second)):
            await prm.score(paths[1])
    finally:
        await prm.aclose()


def note(event, scores):
    if isinstance(event, Scored):
        scores[event.path] = event.path.score


def unscored(path):
    bare = Path(path.problem)
    for i, step in enumerate(path.steps):
        bare = bare.grow(Step(step.text, step.finish, step.token_ids, step.tokens), path.id[i])
    return bare
