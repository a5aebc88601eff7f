"""One finished search of an evaluation as one JSON line: all that tables, plans and exports need, without grading again.

The columns `problem`, `solution`, `answer`, `subject`, `level`, `unique_id`, `completions`, `scores`, `agg_scores`, `pred`
and `completion_tokens` mean what they mean in the datasets that huggingface/search-and-learn publishes: `answer` is the
reference answer, `scores` has one list of step scores per completion, `agg_scores` one number, and `pred` is the text of
the completion that won.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from asearch.errors import AsearchError
from asearch.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from asearch.evaluation.questions import Question
    from asearch.result import Result, Tree


class BadRecord(AsearchError):
    """A line of a log that is no record."""


class Key(NamedTuple):
    """What tells the records of a run apart: none of them is there twice."""

    label: str
    n: int
    seed: int
    unique_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One search of one problem by one strategy with one seed.

    Lists that have one entry per candidate are in the order of the candidates' places in the tree, so that the first k
    roots of the tree come first.

    Args:
        label: how the strategy is called in tables, such as "DVTS".
        strategy: its name and all options.
        model: the policy's served name.
        n: its budget.
        seed: of the search.
        unique_id: the problem's name within its dataset.
        problem: the question.
        answer: the reference answer.
        solution: the reference solution, where the dataset has one.
        subject: the dataset's own, if any.
        level: the dataset's own level of difficulty, if any.
        completions: the texts of the candidates.
        scores: per candidate, the verifier's score of each scored step; empty lists without a verifier.
        agg_scores: per candidate, its value: the scores reduced to one number as the strategy does, 0 without any.
        completion_tokens: per candidate, the tokens generated along its path.
        pred: the text of the winning candidate; None where there is no candidate.
        steps: per candidate, the lengths of its steps in characters: `step_texts` cuts the completion again.
        finishes: per candidate, why it ended: "eos", "length" (cut off) or "step" (given up before its end).
        ids: per candidate, its place in the tree: the child numbers from the root.
        answers: per candidate, the extracted answer; None where the text has none.
        groups: lists of candidates (by index) whose answers are equal; candidates without an answer are in none.
        correct: per candidate, whether its answer is the reference answer.
        winner: index of the winning candidate.
        right: whether the search's answer is the reference answer.
        usage: requests, tokens and seconds.
        prompt_tokens: length of the policy's prompt, where the server tells it.
        explored_tokens: tokens in the whole explored tree, each once.
        explored_steps: steps in the whole explored tree.
        branch_tokens: `explored_tokens` by child of the root: what the first k samples or subtrees cost is a partial sum.
        stopped_by: what ended the search early; None: it ran its course.
        errors: what failed for good on the way.
        tree: the explored steps as (id, fate, score, tokens, text), if they were kept.
    """

    label: str
    strategy: Mapping[str, Any]
    model: str
    n: int
    seed: int
    unique_id: str
    problem: str
    answer: str
    solution: str | None = None
    subject: str | None = None
    level: int | float | str | None = None
    completions: Sequence[str] = ()
    scores: Sequence[Sequence[float]] = ()
    agg_scores: Sequence[float] = ()
    completion_tokens: Sequence[int] = ()
    pred: str | None = None
    steps: Sequence[Sequence[int]] = ()
    finishes: Sequence[str] = ()
    ids: Sequence[Sequence[int]] = ()
    answers: Sequence[str | None] = ()
    groups: Sequence[Sequence[int]] = ()
    correct: Sequence[bool] = ()
    winner: int | None = None
    right: bool = False
    usage: Usage = field(default_factory=Usage)
    prompt_tokens: int | None = None
    explored_tokens: int = 0
    explored_steps: int = 0
    branch_tokens: Sequence[int] = ()
    stopped_by: str | None = None
    errors: Sequence[str] = ()
    tree: Sequence[Sequence[Any]] | None = None

    @property
    def key(self) -> Key:
        """What tells this record from all others of its run."""
        return Key(self.label, self.n, self.seed, self.unique_id)

    @property
    def seconds(self) -> float:
        """How long the search took."""
        return self.usage.seconds

    def step_texts(self, candidate: int) -> list[str]:
        """The steps of a candidate; joined, they are its completion."""
        ends = [0, *accumulate(self.steps[candidate])]
        text = self.completions[candidate]
        return [text[start:end] for start, end in pairwise(ends)]

    def to_line(self) -> bytes:
        """The record as one line of JSON, with its line end."""
        return orjson.dumps(self, default=str, option=orjson.OPT_APPEND_NEWLINE)

    @classmethod
    def from_line(cls, line: bytes | str) -> Record:
        """A record from such a line. Columns that are not known are left out: a later version may write more.

        Raises:
            BadRecord: it is no JSON object, or lacks what every record has.
        """
        try:
            data = orjson.loads(line)
            usage = Usage(**{name: value for name, value in data["usage"].items() if name in USAGE})
            return cls(**{name: value for name, value in data.items() if name in COLUMNS} | {"usage": usage})
        except (orjson.JSONDecodeError, TypeError, KeyError, AttributeError) as failure:
            raise BadRecord(f"this line is no record of an evaluation: {failure}") from None


COLUMNS = frozenset(f.name for f in fields(Record))
USAGE = frozenset(f.name for f in fields(Usage))


def record_of(
    result: Result,
    question: Question,
    *,
    label: str,
    model: str,
    seed: int,
    correct: Sequence[bool],
    prompt_tokens: int | None = None,
    tree: bool = False,
) -> Record:
    """The record of a finished search.

    Args:
        result: what the search returned.
        question: the problem as its dataset has it.
        label: how the strategy is called in tables.
        model: the policy's served name.
        seed: of the search.
        correct: per candidate, whether its answer is the reference answer.
        prompt_tokens: length of the policy's prompt, where it is known.
        tree: keep the explored steps.
    """
    paths = result.paths
    tokens = branch_tokens(result.tree)
    return Record(
        label=label,
        strategy=dict(result.strategy),
        model=model,
        n=int(result.strategy["n"]),
        seed=seed,
        unique_id=question.id,
        problem=question.problem,
        answer=question.answer,
        solution=question.solution,
        subject=question.subject,
        level=question.level,
        completions=[path.text for path in paths],
        scores=[list(path.scores) for path in paths],
        agg_scores=list(result.values),
        completion_tokens=[path.tokens for path in paths],
        pred=None if result.winner is None else paths[result.winner].text,
        steps=[[len(step.text) for step in path.chain] for path in paths],
        finishes=[path.finish for path in paths],
        ids=[list(path.id) for path in paths],
        answers=list(result.answers),
        groups=[list(group.members) for group in result.groups],
        correct=list(correct),
        winner=result.winner,
        right=result.answer is not None and result.winner is not None and correct[result.winner],
        usage=result.usage,
        prompt_tokens=prompt_tokens,
        explored_tokens=sum(tokens),
        explored_steps=len(result.tree),
        branch_tokens=tokens,
        stopped_by=result.stopped_by,
        errors=list(result.errors),
        tree=compact(result.tree) if tree else None,
    )


def branch_tokens(tree: Tree) -> list[int]:
    """Explored tokens by child of the root, each once."""
    tokens = [0] * (max((node.path.id[0] for node in tree.nodes), default=-1) + 1)
    for node in tree.nodes:
        tokens[node.path.id[0]] += node.path.step.tokens if node.path.step else 0
    return tokens


def compact(tree: Tree) -> list[tuple[list[int], str, float | None, int, str]]:
    """The explored steps as (id, fate, score, tokens, text)."""
    return [
        (list(node.path.id), node.fate, node.path.score, node.path.step.tokens, node.path.step.text)
        for node in tree.nodes
        if node.path.step is not None
    ]
