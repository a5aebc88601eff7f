"""Reads files in the format of the datasets that huggingface/search-and-learn publishes, and votes over them as it does.

For k = 1, 2, 4 ... up to the number of completions, the first k completions vote: "naive" takes the one with the largest
aggregated score, "weighted" the answer with the largest sum of them, "maj" the most frequent answer. A score is the last
step's (or the file's own `agg_scores`). Its answers are compared here as everywhere in asearch, so that single problems may
come out otherwise than with the reference's canonical forms.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asearch.answers import extract
from asearch.errors import UsageError
from asearch.evaluation.rows import rows_of
from asearch.scoring import Reduction, reduce_scores
from asearch.workers import AnswerWorkers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

WAYS = ("naive", "weighted", "maj")
NEEDED = ("answer", "completions", "scores")


@dataclass(frozen=True, slots=True)
class Published:
    """Accuracies of a published file.

    Args:
        problems: how many rows it has.
        accuracy: way to vote -> k -> accuracy in [0, 1].
    """

    problems: int
    accuracy: Mapping[str, Mapping[int, float]]


async def read_published(
    file: str | Path, *, reduction: Reduction = "last", workers: AnswerWorkers | None = None
) -> Published:
    """Accuracies per way to vote and k, row by row.

    Args:
        file: JSONL or Parquet (or JSON), with the columns answer, completions and scores (or agg_scores).
        reduction: step scores to one number, where the file has no agg_scores.
        workers: processes that read answers.

    Raises:
        UsageError: it cannot be read, or has no such columns.
    """
    right: dict[str, Counter[int]] = defaultdict(Counter)
    counts: Counter[int] = Counter()
    pool = workers or AnswerWorkers()
    rows = 0
    try:
        for number, row in enumerate(rows_of(Path(file)), start=1):
            texts, values = checked(row, f"{file}, row {number}", reduction)
            rows += 1
            for way, k, good in await _votes(pool, texts, values, str(row["answer"])):
                right[way][k] += good
                counts[k] += way == WAYS[0]
    finally:
        if workers is None:
            await pool.aclose()
    if not rows:
        raise UsageError(f"{file} holds no rows")
    return Published(rows, {way: {k: right[way][k] / counts[k] for k in sorted(counts)} for way in WAYS})


def checked(row: Mapping[str, Any], where: str, reduction: Reduction) -> tuple[list[str], list[float]]:
    """The completions of a row and their values.

    Raises:
        UsageError: columns are missing, or do not fit together.
    """
    missing = [name for name in NEEDED if name not in row and not (name == "scores" and "agg_scores" in row)]
    if missing:
        raise UsageError(f"{where} has no {missing[0]!r}: expected the columns answer, completions and scores")
    texts = row["completions"]
    if not isinstance(texts, list) or not texts:
        raise UsageError(f"{where}: completions must be a list of texts")
    given = row.get("agg_scores")
    try:
        values = (
            [reduce_scores(s, reduction) if s else 0.0 for s in row["scores"]]
            if given is None
            else list(map(float, given))
        )
    except (TypeError, ValueError) as failure:
        raise UsageError(f"{where}: these scores cannot be read: {failure}") from None
    if len(values) != len(texts):
        raise UsageError(f"{where} has {len(texts)} completions and {len(values)} scores")
    return [str(text) for text in texts], values


async def _votes(
    workers: AnswerWorkers, texts: Sequence[str], values: Sequence[float], gold: str
) -> list[tuple[str, int, bool]]:
    """Each way to vote at each k, and whether it is right."""
    answers = [extract(text) for text in texts]
    groups = [group.members for group in await workers.group(answers)]
    grades: dict[str, bool] = {}
    found = []
    for k in budgets_of(len(texts)):
        for way, winner in winners(groups, values, k).items():
            answer = None if winner is None else answers[winner]
            if answer is not None and answer not in grades:
                grades[answer] = await workers.grade(answer, gold)
            found.append((way, k, answer is not None and grades[answer]))
    return found


def budgets_of(n: int) -> list[int]:
    """Powers of two up to n.

    >>> budgets_of(10)
    [1, 2, 4, 8]
    """
    return [2**i for i in range(n.bit_length()) if 2**i <= n]


def winners(groups: Sequence[Sequence[int]], values: Sequence[float], k: int) -> dict[str, int | None]:
    """The candidate that wins among the first k, by way to vote; ties go to the answer that came first."""
    kept = sorted((part for group in groups if (part := [i for i in group if i < k])), key=lambda part: part[0])
    naive = max(range(k), key=lambda i: (values[i], -i))
    if not kept:
        return dict.fromkeys(WAYS)
    weighted = max(kept, key=lambda part: (sum(values[i] for i in part), -part[0]))
    most = max(kept, key=lambda part: (len(part), -part[0]))
    return {"naive": naive, "weighted": weighted[0], "maj": most[0]}
