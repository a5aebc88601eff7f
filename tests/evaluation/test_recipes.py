"""Recipes: every shipped one is a plan that can be carried out, and what is wrong with another is said in one line."""

from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from asearch import UsageError
from asearch.cli import main, parser
from asearch.cli.eval import laid_over, strategy_of
from asearch.evaluation.datasets import USUAL, Columns, as_dataset
from asearch.evaluation.entries import Choice, entries_of
from asearch.evaluation.recipe import ColumnNames, checked, read_recipe
from asearch.evaluation.searcher import Model, Models

RECIPES = Path(__file__).parents[2] / "recipes"
MODELS = Models(Model("http://policy"), Model("http://prm"))
MINIMAL = {"dataset": "embedded", "embedded": True}


def plan(**said):
    return checked({**MINIMAL, **said}, "test").plan(as_dataset([("1+1?", "2")]), MODELS)


def shape(entries):
    return [(entry.label, entry.strategy.n, entry.seeds) for entry in entries]


def flags(*words):
    return parser().parse_args(["eval", *words])


@pytest.mark.parametrize("file", sorted(RECIPES.glob("*.yaml")), ids=lambda file: file.stem)
def test_every_recipe_is_a_plan(file):
    recipe = checked(laid_over(read_recipe(file), flags()), str(file))
    entries = recipe.plan(as_dataset([("1+1?", "2")]), MODELS).job.entries
    found = {(entry.strategy.name, entry.strategy.n) for entry in entries}
    assert {("greedy", 1), ("best_of_n", 256), ("dvts", 256)} <= found
    assert {("beam_search", n) for n in (4, 16, 64, 256)} <= found
    assert all(entry.strategy.temperature == 0.8 for entry in entries if entry.strategy.name != "greedy")
    assert recipe.seed_list == [0, 1, 2, 3, 4]
    assert recipe.folder == Path("runs") / file.stem
    if not recipe.embedded:
        assert recipe.policy.model.split("/")[1].lower().startswith(file.stem)
        assert f"asearch eval --config recipes/{file.name}" in file.read_text()


def test_independent_samples_are_run_once_and_the_others_at_each_budget():
    entries = plan(strategies=["greedy", "majority", "best-of-n", "beam-search", "dvts"], budgets=[1, 4, 16], seeds=2)
    assert shape(entries.job.entries) == [
        ("greedy", 1, (0,)),
        ("best-of-N", 16, (0, 1)),  # the majority is counted over the same samples
        ("beam search", 4, (0, 1)),
        ("beam search", 16, (0, 1)),
        ("DVTS", 16, (0, 1)),
    ]
    assert all(not getattr(entry.strategy, "early_stop", False) for entry in entries.job.entries)


def test_a_majority_without_a_best_of_n_is_run():
    assert shape(plan(strategies=["majority"], seeds=1).job.entries) == [("majority", 64, (0,))]
    both = plan(strategies=["majority", {"name": "best-of-n", "temperature": 0.5}], budgets=[4], seeds=1)
    assert shape(both.job.entries) == [("majority", 4, (0,)), ("best-of-N, temperature 0.5", 4, (0,))]


def test_fewer_seeds_at_a_large_budget():
    entries = plan(
        strategies=["best-of-n", "beam-search"], budgets=[4, 64, 256], seeds=3, seeds_at={256: 1}
    ).job.entries
    assert shape(entries) == [
        ("best-of-N", 64, (1, 2)),  # of seed 0 this is a part of the next
        ("best-of-N", 256, (0,)),
        ("beam search", 4, (0, 1, 2)),
        ("beam search", 64, (0, 1, 2)),
        ("beam search", 256, (0,)),
    ]


def test_options_of_all_and_options_of_one():
    options = {"temperature": 0.6, "width": 2, "max_tokens": 99}
    beam = {"name": "beam-search", "lookahead": 1, "temperature": 0.9, "budgets": [2]}
    greedy, best, beam = plan(strategies=["greedy", "best-of-n", beam], options=options).job.entries
    assert (greedy.strategy.temperature, greedy.strategy.max_tokens) == (0, 99)
    assert (best.label, best.strategy.temperature) == ("best-of-N", 0.6)
    assert (beam.label, beam.strategy.n) == ("beam search, lookahead 1, temperature 0.9", 2)
    assert (beam.strategy.width, beam.strategy.lookahead, beam.strategy.temperature) == (2, 1, 0.9)


@pytest.mark.parametrize(
    ("said", "says"),
    [
        ({"budget": [4]}, "budget: there is no such setting"),
        ({"budgets": "4"}, "budgets: input should be a valid list"),
        ({"budgets": [0]}, "budgets must be whole numbers of at least 1, not 0"),
        ({"budgets": [4, 4]}, "budgets must be different"),
        ({"budgets": []}, "there must be one at least"),
        ({"seeds": 0}, "seeds must be whole numbers"),
        ({"seeds": [1, 1]}, "seeds must be different"),
        ({"seeds_at": {4: 0}}, "numbers of seeds must be whole numbers of at least 1"),
        ({"dataset": {"name": "x", "limit": 0}}, "dataset.limit: input should be greater than or equal to 1"),
        ({"dataset": {"split": "x"}}, "dataset.name: field required"),
        ({"dataset": {"name": "x", "columns": {"text": "T"}}}, "dataset.columns.text: there is no such setting"),
        ({"dataset": {"name": "x", "columns": {"problem": 3}}}, "dataset.columns.problem: input should be a valid str"),
        ({"dataset": {"name": "x", "columns": ["T"]}}, "dataset.columns: input should be a valid dict"),
        ({"strategies": ["mcts"]}, "unknown strategy 'mcts'; known are greedy"),
        ({"strategies": []}, "nothing to evaluate"),
        ({"strategies": [{"name": "dvts", "beams": 3}]}, "dvts has no option 'beams'; it has"),
        ({"strategies": [{"name": "dvts", "n": 3}]}, "the n of dvts is a budget"),
        ({"strategies": ["dvts"], "budgets": [2]}, "dvts needs a budget of at least 4"),
        ({"strategies": ["dvts"], "budgets": [6]}, "n of dvts must be a multiple of width=4, not 6"),
        ({"strategies": [{"name": "dvts", "width": "two"}]}, "width must be a whole number"),
        ({"strategies": ["dvts", "dvts"]}, "two strategies are called 'DVTS' at n=64: give one a label"),
        ({"options": {"lookahead": 1}, "strategies": ["greedy"]}, "no strategy of this run has an option 'lookahead'"),
        ({"at_once": 0}, "at_once: input should be greater"),
        ({"policy": {"url": 3}}, "policy.url"),
    ],
)
def test_what_is_wrong_is_said(said, says):
    with pytest.raises(UsageError) as refusal:
        plan(**said)
    assert says in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_recipe_can_name_every_column():
    assert set(ColumnNames.model_fields) == {field.name for field in fields(Columns)} == set(USUAL)


def test_a_strategy_that_needs_a_verifier():
    with pytest.raises(UsageError, match="dvts needs a PRM"):
        entries_of([Choice("dvts", {})], [4], [0], verifier=False)
    (entry,) = entries_of([Choice("self-refine", {})], [4], [0], verifier=False)
    assert entry.strategy.select == "majority"  # there is nothing to weigh by


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"dataset: [", r"line 1: no YAML \("),
        (b"- a", "is no recipe: it must be a mapping"),
        (b"", "is no recipe"),
        (b"\xff", "cannot read"),
        (b"!!python/object/apply:os.system ['true']", "no YAML"),
        (None, "No such file"),
    ],
)
def test_a_file_that_is_no_recipe(tmp_path, content, says):
    if content is not None:
        (tmp_path / "r.yaml").write_bytes(content)
    with pytest.raises(UsageError, match=says):
        read_recipe(tmp_path / "r.yaml")


def test_flags_are_laid_over_a_recipe(tmp_path):
    file = tmp_path / "r.yaml"
    file.write_text(
        yaml.safe_dump(
            {
                "dataset": {"name": "a.jsonl", "limit": 5, "columns": {"problem": "P"}},
                "policy": {"url": "http://a", "model": "m"},
                "options": {"width": 2, "depth": 9},
                "budgets": [4],
            }
        )
    )
    words = "b.csv --limit 7 --answer-column A --policy http://b --width 8 -n 8 16 --seeds 3 4 --no-tree --prm http://c"
    recipe = checked(laid_over(read_recipe(file), flags(*words.split(), "--seeds-at", "16=1")), "x")
    assert (recipe.dataset.name, recipe.dataset.limit) == ("b.csv", 7)
    assert (recipe.dataset.columns.problem, recipe.dataset.columns.answer) == ("P", "A")
    assert (recipe.policy.url, recipe.policy.model, recipe.prm.url) == ("http://b", "m", "http://c")
    assert recipe.options == {"width": 8, "depth": 9}
    assert (recipe.budgets, recipe.seed_list, recipe.tree, recipe.seeds_at) == ([8, 16], [3, 4], False, {16: 1})


def test_strategies_as_they_are_written_on_a_command_line():
    assert strategy_of("dvts") == {"name": "dvts"}
    assert strategy_of("beam-search:lookahead=1,temperature=0.7,reduction=min") == {
        "name": "beam-search",
        "lookahead": 1,
        "temperature": 0.7,
        "reduction": "min",
    }
    with pytest.raises(UsageError, match="write options as name=value"):
        strategy_of("dvts:width")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--embedded"], "no dataset: pass a file"),
        (["embedded"], "no policy: pass --policy URL"),
        (["embedded", "--embedded", "--policy", "http://x"], "brings its own servers"),
        (["embedded", "--embedded", "--strategies", "mcts"], "unknown strategy 'mcts'"),
        (["embedded", "--embedded", "--seeds-at", "256"], "write a budget and its number of seeds"),
        (["embedded", "--embedded", "--system-prompt", "/none"], "cannot read /none"),
        (["embedded", "--embedded", "--workers", "2"], "--workers and --ray-address are for --engine ray"),
        (["none.jsonl", "--embedded"], "cannot read none.jsonl"),
        (["--config", "none.yaml"], "cannot read none.yaml"),
    ],
)
def test_a_wrong_command_is_one_line_and_status_2(words, says, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["eval", *words]) == 2
    shown = capsys.readouterr().err
    assert says in shown
    assert shown.count("\n") == 1
    assert list(tmp_path.iterdir()) == []  # nothing was begun
