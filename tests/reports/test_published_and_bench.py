"""Files of others: the reference's datasets, and ProcessBench's format."""

import json
import re

import pytest

from asearch import UsageError
from asearch.cli import main
from asearch.embedded import embedded_problems
from asearch.prm_bench import best_threshold, judged, read_cases, verdict
from asearch.reports import read_published

ROWS = [
    {
        "problem": "?", "answer": "1",
        "completions": [r"\boxed{2}", r"\boxed{1}", r"\boxed{1}", r"\boxed{2}"],
        "scores": [[0.1, 0.3], [0.9, 0.2], [0.5, 0.2], [0.2, 0.05]],
    },
    {
        "problem": "??", "answer": r"\frac{1}{2}",
        "completions": [r"\boxed{0.5}", r"\boxed{3}", r"\boxed{3}", "nothing"],
        "scores": [[0.8], [0.1], [0.2], [0.9]],
    },
]  # fmt: skip
# By hand. First row: k=1 "2"; k=2: naive "2", weighted "2", maj tie -> "2"; k=4: naive "2", weighted 1: 0.4 > 0.35,
# maj tie -> "2". Second row: k=1, k=2 "0.5" (tie goes to the first); k=4: naive has no answer, weighted 0.8 > 0.3, maj "3".
EXPECTED = {"naive": {1: 0.5, 2: 0.5, 4: 0.0}, "weighted": {1: 0.5, 2: 0.5, 4: 1.0}, "maj": {1: 0.5, 2: 0.5, 4: 0.0}}


def write(file, rows):
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


async def test_accuracies_of_a_published_file(tmp_path):
    found = await read_published(write(tmp_path / "a.jsonl", ROWS))
    assert found.problems == 2
    assert found.accuracy == EXPECTED


def test_the_same_from_parquet_on_the_command_line(tmp_path, capsys):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    assert main(["report", str(tmp_path / "a.parquet"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["accuracy"] == {way: {str(k): a for k, a in row.items()} for way, row in EXPECTED.items()}


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"answer": "1"}, "completions"),
        ({"answer": "1", "completions": ["a"], "scores": []}, "1 completions and 0 scores"),
        ({"answer": "1", "completions": ["a"], "scores": [["x"]]}, "cannot be read|could not"),
    ],
)
async def test_a_file_of_another_kind(tmp_path, row, says):
    with pytest.raises(UsageError, match=says):
        await read_published(write(tmp_path / "a.jsonl", [row]))


def cases(tmp_path, rows):
    return read_cases(write(tmp_path / "gsm8k.jsonl", rows))


def row(label, steps=3):
    return {"id": "x", "generator": "g", "problem": "p", "steps": ["s"] * steps, "final_answer_correct": label < 0,
            "label": label}  # fmt: skip


def test_f1_by_hand(tmp_path):
    solutions = cases(tmp_path, [row(1), row(0), row(2), row(-1), row(-1)])
    scores = [[0.9, 0.1, 0.9], [0.9, 0.1, 0.9], [0.6, 0.7, 0.4], [0.9, 0.9, 0.9], [0.9, 0.2, 0.9]]
    (found,) = judged(solutions, scores)
    assert (found.subset, found.wrong, found.right) == ("gsm8k", 3, 2)
    assert found.wrong_accuracy == pytest.approx(2 / 3)
    assert found.right_accuracy == 0.5
    assert found.f1 == pytest.approx(2 * (2 / 3) * 0.5 / (2 / 3 + 0.5))
    assert verdict([0.5, 0.5]) == -1


def test_the_threshold_can_be_chosen(tmp_path):
    solutions = cases(tmp_path, [row(1), row(-1)])
    scores = [[0.9, 0.6, 0.9], [0.8, 0.8, 0.8]]
    threshold = best_threshold(solutions, scores, "gsm8k")
    assert judged(solutions, scores, threshold)[0].f1 == 1.0
    assert judged(solutions, scores)[0].f1 == 0.0
    with pytest.raises(UsageError, match="there are gsm8k"):
        best_threshold(solutions, scores, "math")


@pytest.mark.parametrize("bad", [{"label": 3}, {"label": None}, {"steps": "text"}, {"steps": []}])
def test_rows_in_another_format(tmp_path, bad):
    with pytest.raises(UsageError, match="row 1"):
        cases(tmp_path, [row(0) | bad])


def test_wrong_calls(tmp_path):
    file = str(write(tmp_path / "a.jsonl", [row(0)]))
    assert main(["prm-bench", file]) == 2
    assert main(["prm-bench", file, "--prm", "http://127.0.0.1:9", "--fit-on", "math"]) == 2
    assert main(["prm-bench", str(tmp_path / "none.jsonl"), "--prm", "http://127.0.0.1:9"]) == 2


async def mistaken_rows(servers, count):
    """Greedy solutions of the embedded task's problems that are right, and the same with a deliberate mistake."""
    import asearch

    rows = []
    for problem, answer in await embedded_problems(count, 5):
        result = await asearch.greedy(servers.policy, None, problem)
        if result.answer != answer:
            continue
        steps = [step.text.strip() for step in result.paths[0].steps]
        rows.append({"problem": problem, "steps": steps, "label": -1})
        place = len(steps) // 2 - 1
        wrong = re.sub(r"= (-?\d+)", lambda found: f"= {int(found[1]) + 3}", steps[place], count=1)
        assert wrong != steps[place]
        rows.append({"problem": problem, "steps": [*steps[:place], wrong, *steps[place + 1 :]], "label": place})
    return rows


async def test_the_embedded_verifier_finds_deliberate_mistakes(servers, tmp_path):
    from asearch.prm import as_prm
    from asearch.prm_bench import score_cases

    solutions = cases(tmp_path, await mistaken_rows(servers, 30))
    prm = as_prm(servers.prm)
    try:
        scores = await score_cases(prm, solutions, at_once=8)
    finally:
        await prm.aclose()
    assert [len(own) for own in scores] == [len(case.steps) for case in solutions]
    (found,) = judged(solutions, scores)
    assert found.wrong == found.right > 5
    assert found.f1 > 0.5, "it was trained to see such mistakes"
