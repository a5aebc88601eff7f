"""From step scores to a number, and from groups of equal answers to a winner: pure functions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asearch.answers import Group

# How the scores of the steps of a path become one number (Beeching et al. 2024 and Snell et al. 2024 prefer the last).
Reduction = Literal["last", "min", "prod", "mean"]


@dataclass(frozen=True, slots=True)
class Vote:
    """One line of the table of votes.

    Args:
        answer: the text of the answer as its first candidate wrote it.
        weight: what the vote was decided by: a count, a sum of scores, or the best score.
        count: how many candidates gave this answer.
        example: index of a candidate to show: the best of the group where scores are given, else the first seen.
    """

    answer: str
    weight: float
    count: int
    example: int


def reduce_scores(scores: Sequence[float], how: Reduction = "last") -> float:
    """One number for a path from the scores of its steps.

    Raises:
        ValueError: there are no scores (a path without steps has no value), or the reduction is unknown.
    """
    if how not in get_args(Reduction):
        raise ValueError(f"unknown reduction {how!r}; known are {', '.join(get_args(Reduction))}")
    if not scores:
        raise ValueError("no scores to reduce: the path has no scored step")
    if how == "last":
        return float(scores[-1])
    if how == "min":
        return float(min(scores))
    if how == "prod":
        return math.prod(scores, start=1.0)
    return math.fsum(scores) / len(scores)


def majority_vote(groups: Sequence[Group]) -> tuple[Vote, ...]:
    """The most frequent answer first (self-consistency); ties go to the answer that was seen first."""
    return _ranked(
        [(Vote(g.answer, float(len(g.members)), len(g.members), g.members[0]), g.members[0]) for g in groups]
    )


def weighted_vote(groups: Sequence[Group], scores: Sequence[float]) -> tuple[Vote, ...]:
    """The answer with the largest sum of scores first (weighted best-of-N); ties go to the first seen."""
    return _ranked(
        [
            (Vote(g.answer, math.fsum(scores[i] for i in g.members), len(g.members), _best(g, scores)), g.members[0])
            for g in groups
        ]
    )


def best_vote(groups: Sequence[Group], scores: Sequence[float]) -> tuple[Vote, ...]:
    """The answer of the single best candidate first (vanilla best-of-N); ties go to the candidate seen first."""
    best = [_best(group, scores) for group in groups]
    return _ranked(
        [(Vote(g.answer, float(scores[i]), len(g.members), i), i) for g, i in zip(groups, best, strict=True)]
    )


def _best(group: Group, scores: Sequence[float]) -> int:
    """The best candidate of a group, the first seen of equals."""
    return max(group.members, key=lambda i: (_worth(scores[i]), -i))


def _ranked(votes: list[tuple[Vote, int]]) -> tuple[Vote, ...]:
    """Largest weight first, then the smaller index of (vote, index when first seen)."""
    return tuple(vote for vote, _ in sorted(votes, key=lambda item: (-_worth(item[0].weight), item[1])))


def _worth(score: float) -> float:
    """A score that can be ordered: one that is not a number is worth less than any other."""
    return -math.inf if math.isnan(score) else score
