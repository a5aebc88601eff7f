"""The problems of an evaluation: a question with its reference answer, and what the dataset says about it."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING

import orjson

from asearch.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


@dataclass(frozen=True, slots=True)
class Question:
    """A problem of a dataset.

    Args:
        id: its name within the dataset; the searches' seeds depend on it.
        problem: the question.
        answer: the reference answer.
        solution: the reference solution, if any.
        subject: the dataset's own, if any.
        level: the dataset's own level of difficulty, if any.
    """

    id: str
    problem: str
    answer: str
    solution: str | None = None
    subject: str | None = None
    level: int | float | str | None = None


def check_distinct(questions: Sequence[Question]) -> None:
    """Refuse ids that stand for two problems: their records could not be told apart.

    Raises:
        UsageError: naming one of them.
    """
    twice = [id_ for id_, times in Counter(question.id for question in questions).items() if times > 1]
    if twice:
        raise UsageError(
            f"{len(twice)} ids stand for more than one problem, such as {twice[0]!r}; name a column with unique ids, "
            "or none, and the problems are numbered"
        )


def fingerprint(questions: Iterable[Question]) -> str:
    """A hash of all that the questions say: two runs of the same questions have the same."""
    digest = hashlib.sha256()
    for question in questions:
        digest.update(orjson.dumps(astuple(question), default=str, option=orjson.OPT_APPEND_NEWLINE))
    return digest.hexdigest()[:32]
