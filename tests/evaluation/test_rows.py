"""Files of rows: the same rows whatever the format, one after another, and one sentence for what is broken."""

import csv
import json
from itertools import islice

import pytest

from asearch.errors import UsageError
from asearch.evaluation.rows import BATCH, rows_of

ROWS = [{"problem": f"What is ${i} + 1$?\nSay so.", "answer": str(i + 1)} for i in range(BATCH + 3)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)


def write(file, rows):
    if file.suffix == ".parquet":
        pa = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        parquet.write_table(pa.Table.from_pylist(rows), file)
    elif file.suffix == ".csv":
        with file.open("w", newline="") as text:
            writer = csv.DictWriter(text, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    elif file.suffix == ".json":
        file.write_text(json.dumps(rows))
    else:
        file.write_text(LINES)
    return file


@pytest.mark.parametrize("suffix", [".jsonl", ".ndjson", ".json", ".csv", ".parquet", ".txt"])
def test_the_rows_are_the_same_whatever_the_format(tmp_path, suffix):
    assert list(rows_of(write(tmp_path / f"a{suffix}", ROWS))) == ROWS


@pytest.mark.parametrize(
    "text",
    ["\ufeff" + LINES, LINES.replace("\n", "\r\n"), LINES + "\n \n", LINES.rstrip("\n")],
    ids=["a mark at its beginning", "carriage returns", "blank lines", "no last line end"],
)
def test_jsonl_as_editors_leave_it(tmp_path, text):
    (tmp_path / "a.jsonl").write_bytes(text.encode())
    assert list(rows_of(tmp_path / "a.jsonl")) == ROWS


def test_a_line_separator_inside_a_text_ends_no_line(tmp_path):
    row = {"problem": "a\u2028b\x85c\x0bd", "answer": "1"}
    (tmp_path / "a.jsonl").write_text(json.dumps(row, ensure_ascii=False) + "\n")
    assert list(rows_of(tmp_path / "a.jsonl")) == [row]


def test_what_comes_before_a_broken_line_is_read(tmp_path):
    (tmp_path / "a.jsonl").write_text(LINES + "{")
    rows = rows_of(tmp_path / "a.jsonl")
    assert list(islice(rows, len(ROWS))) == ROWS
    with pytest.raises(UsageError, match=f"a.jsonl, line {len(ROWS) + 1}: no JSON"):
        next(rows)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.csv", b'"' + b"x" * 200_000 + b'"\n', "a.csv is no CSV: field larger"),
        ("a.csv", b"\xff", "cannot read .*a.csv"),
        ("a.json", b'{"problem": 1}\n{"problem": 2}', "a.json is no JSON"),
        ("a.parquet", b"", "is no Parquet file"),
        ("a.jsonl", b'"text"', "line 1: a JSON str, not an object"),
        (".", None, "cannot read .*directory"),
    ],
)
def test_what_is_broken_is_said_in_a_sentence(tmp_path, name, content, says):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=says) as refusal:
        list(rows_of(tmp_path / name))
    assert "\n" not in str(refusal.value)
