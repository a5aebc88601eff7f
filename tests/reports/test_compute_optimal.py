"""The plan's file, and the search that follows it."""

import json

import pytest

import asearch
from asearch import ComputeOptimal, UsageError
from asearch.plan import Plan, read_plan
from asearch.reports import gather, make_plan
from worlds import ScriptedClient, ScriptedPRM, World, run

WORLD = World(branching=4, depth=3, answers=3)
BEAM = {"strategy": "beam_search", "options": {"width": 4}, "label": "beam search"}
DVTS = {"strategy": "dvts", "options": {"width": 3}, "label": "DVTS"}
BEST = {"strategy": "best_of_n", "options": {}, "label": "best-of-N"}
FORMAT = {"format": 1, "samples": 2, "thresholds": [0.5], "budgets": {"8": {"unread": BEAM, "levels": [DVTS, BEST]}}}


def search(plan, n, name="", **options):
    client = ScriptedClient(WORLD)
    result = run(asearch.compute_optimal(client, ScriptedPRM(WORLD), f"Problem {name}", n=n, plan=plan, **options))
    return client, result


def level_of(result):
    values = [v for v, path in zip(result.values, result.paths, strict=True) if path.id[0] < 2]
    return 1 if sum(values) / len(values) > 0.5 else 2


def test_the_level_decides_and_first_samples_are_candidates():
    levels = set()
    for name in range(12):
        _, result = search(FORMAT, 12, name)
        level = level_of(result)
        levels.add(level)
        roots = {node.path.id[0] for node in result.tree.nodes}
        assert roots == set(range(12)), "the whole budget is spent, and no child of the root has a number twice"
        assert {path.id[0] for path in result.paths} >= {0, 1}
        if level == 2:
            assert len(result.paths) == 12
        else:  # 9 of the remaining 10 are three subtrees, and one is a further sample
            assert {path.id[0] for path in result.paths} >= {0, 1, 2}
            pruned = {node.path.id[0] for node in result.tree.nodes if node.fate == "pruned"}
            assert pruned
            assert min(pruned) >= 3
    assert levels == {1, 2}


def test_the_samples_after_the_first_are_others():
    client, result = search({**FORMAT, "thresholds": []} | {"budgets": {"8": {"unread": BEST, "levels": [BEST]}}}, 8)
    assert len(result.paths) == 8
    assert len({seed for _, _, seed, _ in client.asked}) == 8


def test_too_small_a_budget_reads_no_level():
    _, result = search(FORMAT, 4)
    assert {node.path.id[0] for node in result.tree.nodes} == {0, 1, 2, 3}
    _, beam = run_beam(4)
    assert [path.id for path in result.paths] == [path.id for path in beam.paths]


def run_beam(n):
    client = ScriptedClient(WORLD)
    return client, run(asearch.beam_search(client, ScriptedPRM(WORLD), "Problem ", n=n))


def test_the_same_seed_gives_the_same_result():
    assert [p.text for p in search(FORMAT, 12)[1].paths] == [p.text for p in search(FORMAT, 12)[1].paths]


def test_the_strategy_is_described_with_the_content_of_its_plan(tmp_path):
    file = tmp_path / "plan.json"
    file.write_text(json.dumps(FORMAT))
    described = ComputeOptimal(n=8, plan=str(file)).describe()
    assert described["plan"]["thresholds"] == [0.5]
    assert ComputeOptimal(**{k: v for k, v in described.items() if k != "name"}).describe() == described


def test_the_plan_of_the_embedded_models_ships():
    plan = read_plan()
    assert plan.samples >= 1
    for n in (1, 4, 16, 64, 256, 1000):
        assert len(plan.row(n).levels) == len(plan.thresholds) + 1
    ComputeOptimal(n=64).check()


def test_a_fitted_plan_goes_to_json_and_back(scripted_run, tmp_path):
    plan = make_plan(gather(scripted_run, first=2), count=3)
    file = tmp_path / "plan.json"
    file.write_text(json.dumps(plan.to_json()))
    assert read_plan(file) == plan
    assert isinstance(plan, Plan)
    _, result = search(str(file), 8)
    assert result.strategy["plan"]["samples"] == 2


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"format": 9}, "format 9"),
        ({"samples": 0}, "samples"),
        ({"thresholds": [0.2, 0.5]}, "falling"),
        ({"budgets": {}}, "budgets"),
        ({"budgets": {"x": {}}}, "no budget"),
        ({"budgets": {"8": {"unread": BEAM, "levels": [BEAM]}}}, "part 2 levels"),
        ({"budgets": {"8": {"unread": {}, "levels": [BEAM, BEAM]}}}, "names a strategy"),
        ({"budgets": {"8": {"unread": {"strategy": "guess"}, "levels": [BEAM, BEAM]}}}, "'guess'"),
        ({"budgets": {"8": {"unread": BEAM, "levels": [BEAM, BEAM | {"options": {"wide": 2}}]}}}, "'wide'"),
    ],
)
def test_a_wrong_plan_is_refused_before_anything_is_sent(change, says):
    client = ScriptedClient(WORLD)
    with pytest.raises(UsageError, match=says):
        run(asearch.compute_optimal(client, ScriptedPRM(WORLD), "Problem", n=8, plan={**FORMAT, **change}))
    assert client.requests == 0


def test_no_such_file(tmp_path):
    with pytest.raises(UsageError, match="asearch plan RUN"):
        read_plan(tmp_path / "plan.json")
    (tmp_path / "plan.json").write_text("{")
    with pytest.raises(UsageError, match="no JSON"):
        read_plan(tmp_path / "plan.json")


async def test_on_the_embedded_servers(servers):
    result = await asearch.compute_optimal(servers.policy, servers.prm, "What is $12 - 5 + 8$?", n=16)
    assert result.answer is not None
    assert {node.path.id[0] for node in result.tree.nodes} <= set(range(16))
