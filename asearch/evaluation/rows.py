"""Files of rows: JSONL, JSON, CSV and Parquet, one row after another, as the datasets of the field come."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Any

import orjson

from asearch.errors import AsearchError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Row = dict[str, Any]
SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".parquet")
BATCH = 64  # rows of a Parquet file that are in memory at a time; a row may hold 256 solutions


class MissingExtra(AsearchError):
    """A package of the extra `eval` is not installed."""


def rows_of(file: Path) -> Iterator[Row]:
    """The rows of a file, one after another, by its suffix; one with any other is read as JSONL.

    Raises:
        UsageError: it is not there, or not what its name says.
        MissingExtra: it is a Parquet file, and pyarrow is not installed.
    """
    readers = {".parquet": _parquet, ".csv": _csv, ".json": _json}
    try:
        yield from readers.get(file.suffix, _jsonl)(file)
    except (OSError, UnicodeDecodeError) as failure:
        raise UsageError(f"cannot read {file}: {getattr(failure, 'strerror', None) or failure}") from None


def json_object(line: str | bytes, where: str) -> Row:
    """A line of a JSONL file; `where` names it.

    Raises:
        UsageError: it is no JSON object.
    """
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError as failure:
        raise UsageError(f"{where}: no JSON ({failure})") from None
    if not isinstance(row, dict):
        raise UsageError(f"{where}: a JSON {type(row).__name__}, not an object with columns")
    return row


def _jsonl(file: Path) -> Iterator[Row]:
    with file.open(encoding="utf-8-sig", newline="\n") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield json_object(line, f"{file}, line {number}")


def _json(file: Path) -> Iterator[Row]:
    try:
        rows = orjson.loads(file.read_text(encoding="utf-8-sig"))
    except orjson.JSONDecodeError as failure:
        raise UsageError(f"{file} is no JSON: {failure}") from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UsageError(f"{file} is no list of JSON objects; name it .jsonl if it has one object per line")
    yield from rows


def _csv(file: Path) -> Iterator[Row]:
    with file.open(encoding="utf-8-sig", newline="") as text:  # line ends inside a field are the field's own
        try:
            yield from csv.DictReader(text)
        except csv.Error as failure:
            raise UsageError(f"{file} is no CSV: {failure}") from None


def _parquet(file: Path) -> Iterator[Row]:
    try:
        from pyarrow import ArrowInvalid, parquet
    except ImportError:
        raise MissingExtra("Parquet files need pyarrow: pip install 'asearch[eval]'") from None
    try:
        with parquet.ParquetFile(file) as table:
            for batch in table.iter_batches(batch_size=BATCH):
                yield from batch.to_pylist()
    except ArrowInvalid as failure:
        raise UsageError(f"{file} is no Parquet file: {failure}") from None
