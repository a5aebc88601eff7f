"""`asearch report` as people call it: the table fits the terminal, methods can be chosen, and mistakes are a sentence."""

import json

import pytest

from asearch.cli import main

HEADER = "accuracy in %"


def test_methods_on_the_command_line(scripted_run, tmp_path, capsys):
    call = ["report", str(scripted_run), "--out", str(tmp_path), "--methods", "dvts", "beam-search", "--json"]
    assert main(call) == 0
    labels = {point["label"] for point in json.loads(capsys.readouterr().out)["points"]}
    assert labels == {"greedy", "greedy, larger policy", "DVTS", "beam search"}


def test_the_baseline_alone_makes_a_report(scripted_run, tmp_path, capsys):
    assert main(["report", str(scripted_run), "--out", str(tmp_path), "--methods", "greedy"]) == 0
    assert "greedy, larger policy" in capsys.readouterr().out
    assert (tmp_path / "report.html").exists()


def test_a_method_that_is_not_there_writes_nothing(scripted_run, tmp_path, capsys):
    assert main(["report", str(scripted_run), "--out", str(tmp_path / "out"), "--methods", "dvts", "mcts"]) == 2
    said = capsys.readouterr().err
    assert "the run has no method 'mcts'; it has 'DVTS'" in said
    assert not (tmp_path / "out").exists()


def test_a_file_has_no_methods(tmp_path, capsys):
    (tmp_path / "a.jsonl").touch()
    assert main(["report", str(tmp_path / "a.jsonl"), "--methods", "dvts"]) == 2
    assert "--methods chooses among the methods of a run" in capsys.readouterr().err


@pytest.mark.parametrize(("width", "deviations"), [("200", True), ("50", False)])
def test_every_method_has_one_line(scripted_run, tmp_path, capsys, monkeypatch, width, deviations):
    monkeypatch.setenv("COLUMNS", width)
    assert main(["report", str(scripted_run), "--out", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    table = lines[: lines.index("")]
    assert HEADER in table[0]
    assert all(line[0].strip() for line in table), "no line goes on with the rest of another"
    assert ("±" in "".join(table)) is deviations
    assert len(table) == len({line.split("  ")[0] for line in table})
