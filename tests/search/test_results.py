"""A result is data: it goes through JSON, prints as a tree, and can be sub-sampled where that is valid."""

import json

import pytest

from asearch import (
    DVTS,
    BeamSearch,
    BestOfN,
    Greedy,
    Majority,
    ParticleFilter,
    Problem,
    Rebase,
    Result,
    SelfRefine,
    Step,
    UsageError,
    solve,
)
from asearch.path import Path
from asearch.result import Node, Tree
from worlds import ListedClient, ScriptedClient, ScriptedPRM, World, boxed, run

WORLD = World(branching=3, depth=3)
STRATEGIES = [
    Greedy(),
    Majority(n=8, early_stop=False),
    BestOfN(n=8, early_stop=False),
    BeamSearch(n=8),
    DVTS(n=8, width=2),
    ParticleFilter(n=8),
    Rebase(n=8),
    SelfRefine(n=8),
]


def result_of(strategy, problem="What?", *, seed=0, world=WORLD):
    return run(solve(strategy, ScriptedClient(world), ScriptedPRM(world), problem, seed=seed))


@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda s: s.name)
def test_through_json_and_back(strategy):
    problem = Problem("What?", system="Be brief.", history=(("user", "Hi"), ("assistant", "Hello")), id="p1")
    result = result_of(strategy, problem)
    data = result.to_json()
    assert json.loads(json.dumps(data)) == data
    back = Result.from_json(json.loads(json.dumps(data)))
    assert back.to_json() == data
    assert back.problem == problem
    assert str(back.tree) == str(result.tree)
    assert back.votes == result.votes
    assert [path.text for path in back.paths] == [path.text for path in result.paths]
    assert back.usage == result.usage


@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda s: s.name)
def test_every_result_holds_together(strategy):
    result = result_of(strategy)
    assert len(result.paths) == len(result.values) == len(result.answers)
    assert [path.id for path in result.paths] == sorted(path.id for path in result.paths)
    explored = {node.path.id: node for node in result.tree.nodes}
    assert all(explored[path.id].path is path for path in result.paths)
    assert all(explored[path.id].fate == "finished" for path in result.paths)
    assert all(node.path.id[:-1] in explored or len(node.path.id) == 1 for node in result.tree.nodes)
    if strategy.uses_prm:
        assert all(path.step.score is not None for path in result.paths)
        assert result.score == result.values[result.winner]
    else:
        assert result.score is None
    assert result.answer == result.answers[result.winner]
    assert result.strategy == {"name": strategy.name} | {k: v for k, v in result.strategy.items() if k != "name"}
    json.dumps(strategy.describe())


def test_expanded_steps_are_kept_and_the_others_pruned_or_finished():
    result = result_of(BeamSearch(n=8, width=4), world=World(branching=10**6, depth=3))
    for node in result.tree.nodes:
        children = result.tree.children(node.path.id)
        assert (node.fate == "kept") == bool(children)
        assert node.fate in ("kept", "pruned", "finished")


def same_but_usage(a, b):
    return a.to_json() | {"usage": 0} == b.to_json() | {"usage": 0}


@pytest.mark.parametrize("k", [1, 2, 3, 8])
@pytest.mark.parametrize("kind", [Majority, BestOfN], ids=lambda kind: kind.name)
def test_the_first_k_samples_are_the_run_at_k(kind, k):
    result = result_of(kind(n=8, early_stop=False))
    assert same_but_usage(result.at(k), result_of(kind(n=k, early_stop=False)))


@pytest.mark.parametrize("k", [2, 4, 8])
def test_the_first_subtrees_are_the_run_at_k(k):
    assert same_but_usage(result_of(DVTS(n=8, width=2)).at(k), result_of(DVTS(n=k, width=2)))


def test_the_first_chains_are_the_run_at_k():
    assert same_but_usage(result_of(SelfRefine(n=8)).at(4), result_of(SelfRefine(n=4)))


@pytest.mark.parametrize("select", ["majority", "weighted", "best"])
@pytest.mark.parametrize("reduction", ["last", "min", "prod", "mean"])
def test_the_same_samples_can_be_counted_in_every_way(select, reduction):
    result = result_of(BestOfN(n=8, early_stop=False)).voted(select, reduction)
    assert same_but_usage(result, result_of(BestOfN(n=8, early_stop=False, select=select, reduction=reduction)))


def test_there_is_no_weighing_without_scores():
    result = result_of(Majority(n=8, early_stop=False))
    assert same_but_usage(result.voted("majority"), result)
    with pytest.raises(UsageError, match="nothing to go by"):
        result.voted("weighted")
    with pytest.raises(UsageError, match="known are majority, weighted, best"):
        result.voted("loudest")


def test_sub_samples_in_which_all_were_cut_off_vote_as_such_a_run_would():
    texts = [(boxed(1), "length"), (boxed(1), "length"), boxed(2), boxed(2)]
    run_at = {n: run(solve(Majority(n=n, early_stop=False), ListedClient(texts), None, "What?")) for n in (2, 3, 4)}
    assert [run_at[4].at(k).answer for k in (2, 3, 4)] == [run_at[k].answer for k in (2, 3, 4)] == ["1", "2", "2"]
    assert same_but_usage(run_at[4].at(2), run_at[2])


@pytest.mark.parametrize("strategy", [BeamSearch(n=8), ParticleFilter(n=8), Rebase(n=8)], ids=lambda s: s.name)
def test_where_candidates_competed_there_is_no_sub_sample(strategy):
    with pytest.raises(UsageError, match="run it at n=4"):
        result_of(strategy).at(4)


def test_a_sub_sample_must_fit():
    result = result_of(DVTS(n=8, width=2))
    for k in (0, 1, 3, 10):
        with pytest.raises(UsageError, match="multiple of 2 from 2 to 8"):
            result.at(k)


def test_a_run_that_was_cut_short_has_no_sub_samples():
    early = run(solve(Majority(n=8), ListedClient([boxed(1)] * 8), None, "What?"))
    assert early.stopped_by == "decided"
    with pytest.raises(UsageError, match="early_stop=False"):
        early.at(2)


def test_the_tree_prints():
    problem = Problem("What?")
    root = Path(problem)
    a = root.grow(Step("first\n\nline\n\n", "step", None, 1, 0.25), 0)
    b = a.grow(Step("x" * 200, "eos", None, 1, 1.0), 0)
    c = root.grow(Step("second", "eos"), 1)
    tree = Tree((Node(a, "kept"), Node(b, "finished"), Node(c, "pruned")))
    lines = str(tree).splitlines()
    assert lines[0] == "├─ 0.250 • first line"
    assert lines[1].startswith("│  └─ 1.000 ✓ xxx")
    assert len(lines[1]) == 100
    assert lines[1].endswith("…")
    assert lines[2] == "└─   -   ✂ second"
    assert len(tree) == 3


def test_a_tree_of_thousands_of_levels_prints():
    path, nodes = Path(Problem("What?")), []
    for i in range(3000):
        path = path.grow(Step(f"{i}", "step"), 0)
        nodes.append(Node(path, "kept"))
    assert len(list(Tree(tuple(nodes)).lines())) == 3000


def test_repr_is_short():
    assert repr(result_of(Greedy())).startswith("Result(answer=")
