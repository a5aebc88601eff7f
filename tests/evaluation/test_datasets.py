"""Datasets: files of every kind, columns by any name, parts; and clear words about what is wrong with them."""

import csv
import json

import pyarrow as pa
import pytest
from pyarrow import parquet

from asearch import UsageError
from asearch.evaluation import Columns, Question, Source, load_dataset
from asearch.evaluation.datasets import as_dataset
from asearch.evaluation.questions import fingerprint

ROWS = [
    {
        "problem": f"What is ${i} + 1$?",
        "answer": str(i + 1),
        "unique_id": f"test/{i}.json",
        "level": i % 5 + 1,
        "subject": "Algebra",
        "solution": f"It is $\\boxed{{{i + 1}}}$.",
    }
    for i in range(20)
]


def write(file, rows):
    if file.suffix == ".jsonl":
        file.write_text("\n".join(map(json.dumps, rows)))
    elif file.suffix == ".json":
        file.write_text(json.dumps(rows))
    elif file.suffix == ".parquet":
        parquet.write_table(pa.Table.from_pylist(rows), file)
    else:
        with file.open("w", newline="") as out:
            writer = csv.DictWriter(out, rows[0].keys())
            writer.writeheader()
            writer.writerows(rows)
    return str(file)


async def questions(name, **options):
    return (await load_dataset(Source(name, **options))).questions


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".parquet"])
async def test_every_kind_of_file_gives_the_same(tmp_path, suffix):
    found = await questions(write(tmp_path / f"data{suffix}", ROWS))
    assert [q.id for q in found] == [row["unique_id"] for row in ROWS]
    assert found[3] == Question(
        "test/3.json", "What is $3 + 1$?", "4", ROWS[3]["solution"], "Algebra", "4" if suffix == ".csv" else 4
    )


async def test_text_with_line_ends_and_quotes_survives_csv(tmp_path):
    rows = [{"problem": 'He said: "1,\n2".\r\nSo?', "answer": "ü"}]
    (question,) = await questions(write(tmp_path / "a.csv", rows))
    assert question.problem == rows[0]["problem"]
    assert question.answer == "ü"


async def test_columns_by_any_name(tmp_path):
    rows = [{"Frage": "1+1?", "Antwort": 2, "Nr": 17, "Stufe": "Level 5"}]
    columns = Columns(problem="Frage", answer="Antwort", id="Nr", level="Stufe")
    (question,) = await questions(write(tmp_path / "a.jsonl", rows), columns=columns)
    assert question == Question("17", "1+1?", "2", None, None, "Level 5")


async def test_usual_names_are_found_and_ids_are_numbers_otherwise(tmp_path):
    rows = [{"question": "1+1?", "expected_answer": "2"}, {"question": "1+2?", "expected_answer": "3"}]
    assert [q.id for q in await questions(write(tmp_path / "a.jsonl", rows))] == ["0", "1"]


async def test_a_part_keeps_its_ids(tmp_path):
    rows = [{key: row[key] for key in ("problem", "answer", "level")} for row in ROWS]
    file = write(tmp_path / "a.jsonl", rows)
    assert [q.id for q in await questions(file, offset=3, limit=2)] == ["3", "4"]
    assert [q.id for q in await questions(file, levels=("5", "1"), limit=3)] == ["0", "4", "5"]


async def test_two_runs_of_the_same_questions_are_the_same_whatever_the_file(tmp_path):
    (tmp_path / "b").mkdir()
    one = await load_dataset(Source(write(tmp_path / "a.jsonl", ROWS), limit=5))
    two = await load_dataset(Source(write(tmp_path / "b" / "a.parquet", ROWS[:5]), limit=5))
    assert one.describe() | {"source": 0} == two.describe() | {"source": 0}
    assert fingerprint(one.questions) != fingerprint(one.questions[:4])


@pytest.mark.parametrize(
    ("rows", "options", "says"),
    [
        ([], {}, "no problems"),
        (
            [{"text": "x", "answer": 1}],
            {},
            r"no column 'problem'; say which of text, answer is the problem \(--problem-co",
        ),
        ([{"problem": "x", "label": 1}], {}, "--answer-column"),
        (
            [{"problem": "x", "answer": 1}],
            {"columns": Columns(level="L")},
            "no column 'L' for the level; it has problem",
        ),
        ([{"problem": "x", "answer": 1}, {"problem": " ", "answer": 1}], {}, "row 2 of .* has no problem"),
        ([{"problem": "x", "answer": None}], {}, "row 1 of .* has no answer"),
        ([{"problem": "x", "answer": 1, "id": 1}] * 2, {}, "1 ids stand for more than one problem, such as '1'"),
        ([{"problem": "x", "answer": 1, "level": 2}], {"levels": ("3",)}, "no problems of level 3; it has 2"),
        ([{"problem": "x", "answer": 1}], {"offset": 1}, "1 problems, so none are left after an offset of 1"),
    ],
)
async def test_what_is_wrong_is_said(tmp_path, rows, options, says):
    with pytest.raises(UsageError, match=says):
        await questions(write(tmp_path / "a.jsonl", rows), **options)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.jsonl", b'{"problem": 1}\n{"prob', "a.jsonl, line 2: no JSON"),
        ("a.jsonl", b"[1]", "line 1: a JSON list, not an object"),
        ("a.json", b"{}", "no list of JSON objects"),
        ("a.json", b"{", "is no JSON"),
        ("a.jsonl", b"\xff\xfe", "cannot read .*a.jsonl"),
        ("a.parquet", b"PAR", "no Parquet file"),
        ("b.jsonl", None, "cannot read .*No such file"),
        ("b.parquet", None, "cannot read .*No such file"),
    ],
)
async def test_a_broken_file_is_said_to_be_broken(tmp_path, name, content, says):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=says):
        await questions(str(tmp_path / name))


async def test_a_name_that_is_nothing_is_refused():
    with pytest.raises(UsageError, match="'MATH' is no dataset: pass a file"):
        await questions("MATH")


async def test_embedded_problems():
    found = await questions("embedded", limit=3, offset=2)
    assert [q.id for q in found] == ["2", "3", "4"]
    assert found == (await questions("embedded", limit=5))[2:]
    with pytest.raises(UsageError, match="no levels"):
        await questions("embedded", levels=("1",))


def test_questions_from_python():
    given = [("1+1?", "2"), {"question": "1+2?", "answer": 3}, Question("9", "1+3?", "4", level=1)]
    with pytest.raises(UsageError, match="not int"):
        as_dataset([*given, 5])
    assert [q.answer for q in as_dataset(given[:1]).questions] == ["2"]
    assert as_dataset(given[2:]).questions == (given[2],)
    with pytest.raises(UsageError, match="no problems"):
        as_dataset([])


@pytest.mark.parametrize(("options", "says"), [({"limit": 0}, "at least 1"), ({"offset": -1}, "not be negative")])
def test_a_part_that_cannot_be(options, says):
    with pytest.raises(UsageError, match=says):
        Source("x", **options)
