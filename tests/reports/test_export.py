"""Training data: every row is true of the log."""

import json

import pytest

from asearch import UsageError
from asearch.cli import main
from asearch.evaluation import read_records
from asearch.export import export


@pytest.fixture(scope="module")
def truth(scripted_run):
    """(problem, text) of every complete solution -> whether it is right."""
    return {
        (record.problem, text): good
        for record in read_records(scripted_run)
        for text, good, finish in zip(record.completions, record.correct, record.finishes, strict=True)
        if finish == "eos"
    }


def asked(row):
    assert [m["role"] for m in row["prompt"]] == ["system", "user"]
    return row["prompt"][-1]["content"]


def test_sft_rows_are_the_right_solutions_each_once(scripted_run, truth):
    rows = [(asked(row), row["completion"][0]["content"]) for row in export(scripted_run, "sft")]
    own = {
        (record.problem, text)
        for record in read_records(scripted_run)
        for text, good in zip(record.completions, record.correct, strict=True)
        if good and record.label != "greedy, larger policy"
    }
    assert len(rows) == len(set(rows))
    assert set(rows) == own
    assert all(truth[row] for row in rows)


def test_preferences_are_right_against_wrong(scripted_run, truth):
    rows = list(export(scripted_run, "preference"))
    assert rows
    for row in rows:
        assert truth[asked(row), row["chosen"][0]["content"]]
        assert not truth[asked(row), row["rejected"][0]["content"]]


def test_siblings_share_their_beginning_and_differ_in_score(scripted_run):
    scores = {
        (record.problem, node[4]): node[2]
        for record in read_records(scripted_run)
        for node in record.tree or ()
        if node[2] is not None
    }
    rows = list(export(scripted_run, "preference", siblings=True, margin=0.2))
    assert rows
    for row in rows:
        problem = row["prompt"].split("\n\n")[0]
        assert scores[problem, row["chosen"]] - scores[problem, row["rejected"]] > 0.2


def test_steps_are_right_if_a_right_solution_begins_with_them(scripted_run, truth):
    rows = list(export(scripted_run, "stepwise"))
    right = {(problem, tuple(s.strip() for s in text.split("\n\n"))) for (problem, text), good in truth.items() if good}
    for row in rows:
        steps = row["completions"]
        for k, label in enumerate(row["labels"], start=1):
            known = any(p == row["prompt"] and said[:k] == tuple(steps[:k]) for p, said in right)
            assert label == known
        assert False not in row["labels"][:-1]
    assert {row["labels"][-1] for row in rows} == {True, False}


def test_limits(scripted_run):
    rows = list(export(scripted_run, "sft", most=1))
    assert len({asked(row) for row in rows}) == len(rows)
    values = {
        (record.problem, text): value
        for record in read_records(scripted_run)
        for text, value in zip(record.completions, record.agg_scores, strict=True)
        if not record.label.startswith("greedy")
    }
    best = list(export(scripted_run, "sft", least=0.7))
    assert best
    assert all(values[asked(row), row["completion"][0]["content"]] >= 0.7 for row in best)


def test_wrong_calls(scripted_run, tmp_path, capsys):
    with pytest.raises(UsageError, match="known are sft"):
        export(scripted_run, "rlhf")
    with pytest.raises(UsageError, match="pairs"):
        export(scripted_run, "sft", siblings=True)
    assert main(["export", str(tmp_path), "--format", "sft"]) == 2
    out = tmp_path / "none.jsonl"
    assert main(["export", str(scripted_run), "--format", "sft", "--min-score", "2", "--out", str(out)]) == 1
    assert not list(tmp_path.iterdir())


def test_the_command_writes_what_datasets_reads(scripted_run, tmp_path):
    out = tmp_path / "rows.jsonl"
    assert main(["export", str(scripted_run), "--format", "stepwise", "--out", str(out)]) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert all(len(row["completions"]) == len(row["labels"]) for row in rows)
    datasets = pytest.importorskip("datasets")
    assert len(datasets.load_dataset("json", data_files=str(out), split="train")) == len(rows)
