"""Datasets: from a file, the Hugging Face hub, or the embedded task to questions with reference answers."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asearch.embedded import embedded_problems
from asearch.errors import UsageError
from asearch.evaluation.questions import Question, check_distinct, fingerprint
from asearch.evaluation.rows import SUFFIXES, Row, rows_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

EMBEDDED = "embedded"
EMBEDDED_PROBLEMS = 100  # where no limit says how many

# What columns are called in the datasets of the field, where nobody says: the first that is there.
USUAL = {
    "problem": ("problem", "question"),
    "answer": ("answer", "expected_answer", "final_answer"),
    "id": ("unique_id", "id"),
    "level": ("level", "difficulty"),
    "subject": ("subject", "type"),
    "solution": ("solution",),
}
NEEDED = ("problem", "answer")


@dataclass(frozen=True, slots=True)
class Columns:
    """Names of columns; None takes the usual ones."""

    problem: str | None = None
    answer: str | None = None
    id: str | None = None
    level: str | None = None
    subject: str | None = None
    solution: str | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """Which problems of which dataset.

    Args:
        name: a JSONL, JSON, CSV or Parquet file, "owner/name" on the hub (with "@revision", if wanted), or "embedded".
        split: of a dataset on the hub.
        subset: of a dataset on the hub that has several.
        columns: how its columns are called.
        levels: keep the problems of these levels only.
        offset: leave out so many from the beginning (of those levels).
        limit: keep at most so many.
        seed: of embedded problems.
    """

    name: str
    split: str | None = None
    subset: str | None = None
    columns: Columns = field(default_factory=Columns)
    levels: tuple[str, ...] = ()
    offset: int = 0
    limit: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.offset < 0:
            raise UsageError(f"the offset must not be negative, but it is {self.offset}")
        if self.limit is not None and self.limit < 1:
            raise UsageError(f"the limit must be at least 1, not {self.limit}")


@dataclass(frozen=True, slots=True)
class Dataset:
    """Questions, and where they are from, for the run's configuration."""

    questions: tuple[Question, ...]
    origin: Mapping[str, Any]

    def describe(self) -> dict[str, Any]:
        """Plain data that two runs of the same questions have in common, but for `source`."""
        return {**self.origin, "questions": len(self.questions), "fingerprint": fingerprint(self.questions)}


async def load_dataset(source: Source) -> Dataset:
    """The questions of a dataset.

    Raises:
        UsageError: there is no such dataset, file, split or column, or nothing is left of it.
    """
    if source.name == EMBEDDED:
        return await _embedded(source)
    origin: dict[str, Any] = {"source": source.name}
    file = Path(source.name)
    if file.suffix in SUFFIXES:
        rows = await asyncio.to_thread(list, rows_of(file))
    else:
        from asearch.evaluation.hub import fetch, is_hub_id

        if not is_hub_id(source.name):
            raise UsageError(
                f"{source.name!r} is no dataset: pass a file ({', '.join(SUFFIXES)}), the id of one on the Hugging Face "
                "hub such as HuggingFaceH4/MATH-500, or 'embedded'"
            )
        files, revision = await asyncio.to_thread(fetch, source.name, source.split, source.subset)
        rows = [row for part in files for row in await asyncio.to_thread(list, rows_of(part))]
        origin |= {"revision": revision, "split": source.split, "subset": source.subset}
    questions = questions_of(rows, source.columns, source.name)
    return Dataset(tuple(selected(questions, source)), origin | _selection(source))


async def _embedded(source: Source) -> Dataset:
    if source.levels:
        raise UsageError("the embedded problems have no levels")
    wanted = EMBEDDED_PROBLEMS if source.limit is None else source.limit
    pairs = await embedded_problems(source.offset + wanted, source.seed)
    questions = [Question(str(i), problem, answer) for i, (problem, answer) in enumerate(pairs)]
    return Dataset(tuple(questions[source.offset :]), {"source": EMBEDDED, "seed": source.seed} | _selection(source))


def _selection(source: Source) -> dict[str, Any]:
    return {"levels": list(source.levels), "offset": source.offset, "limit": source.limit}


def as_dataset(given: Iterable[Any]) -> Dataset:
    """Questions from Python: `Question` values, mappings with the usual columns, or (problem, answer) pairs.

    Raises:
        UsageError: something else is among them, or nothing at all.
    """
    rows: list[Row] = []
    for item in given:
        if isinstance(item, Question):
            rows.append(asdict(item))
        elif isinstance(item, dict):
            rows.append(item)
        elif isinstance(item, tuple | list) and len(item) == 2:
            rows.append({"problem": item[0], "answer": item[1]})
        else:
            raise UsageError(f"expected a (problem, answer) pair, a mapping or a Question, not {type(item).__name__}")
    return Dataset(tuple(questions_of(rows, Columns(), "the dataset")), {"source": "python"})


def questions_of(rows: Sequence[Row], columns: Columns, name: str) -> list[Question]:
    """Questions from rows; those without an id are numbered from 0.

    Raises:
        UsageError: a column is missing, a row has no problem or no answer, or two have the same id.
    """
    if not rows:
        raise UsageError(f"{name} has no problems")
    found = {role: _column(role, getattr(columns, role), rows[0], name) for role in USUAL}
    questions = [_question(row, found, i, name) for i, row in enumerate(rows)]
    check_distinct(questions)
    return questions


def _column(role: str, wanted: str | None, row: Row, name: str) -> str | None:
    """The name of a column: the given one, else the first usual one that is there."""
    if wanted is not None and wanted not in row:
        raise UsageError(f"{name} has no column {wanted!r} for the {role}; it has {', '.join(map(str, row))}")
    there = wanted or next((usual for usual in USUAL[role] if usual in row), None)
    if there is None and role in NEEDED:
        raise UsageError(
            f"{name} has no column {USUAL[role][0]!r}; say which of {', '.join(map(str, row))} is the {role} "
            f"(--{role}-column)"
        )
    return there


def _question(row: Row, columns: Mapping[str, str | None], i: int, name: str) -> Question:
    def text(role: str) -> str | None:
        column = columns[role]
        value = None if column is None else row.get(column)
        return None if value is None else str(value)

    problem, answer = text("problem"), text("answer")
    if not (problem or "").strip() or not (answer or "").strip():
        lacks = "problem" if not (problem or "").strip() else "answer"
        raise UsageError(f"row {i + 1} of {name} has no {lacks} (column {columns[lacks]!r})")
    level = row.get(columns["level"]) if columns["level"] else None
    return Question(
        text("id") or str(i),
        str(problem),
        str(answer),
        text("solution"),
        text("subject"),
        level if isinstance(level, int | float | None) else str(level),
    )


def selected(questions: Sequence[Question], source: Source) -> list[Question]:
    """The questions of the wanted levels, without the first `offset`, at most `limit`.

    Raises:
        UsageError: none are left.
    """
    kept = [question for question in questions if not source.levels or level_name(question.level) in source.levels]
    if source.levels and not kept:
        there = sorted({level_name(question.level) for question in questions})
        raise UsageError(
            f"{source.name} has no problems of level {', '.join(source.levels)}; it has {', '.join(there)}"
        )
    part = kept[source.offset :][: source.limit]
    if not part:
        raise UsageError(f"{source.name} has {len(kept)} problems, so none are left after an offset of {source.offset}")
    return part


def level_name(level: float | str | None) -> str:
    """A level as people write it on a command line: 'Level 5', '5' and 5 are the same."""
    return str(level).removeprefix("Level ")
