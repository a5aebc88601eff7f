"""From candidates to an answer: extract, group what is equal, vote."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from asearch.answers import Group, extract
from asearch.errors import UsageError
from asearch.scoring import Vote, best_vote, majority_vote, weighted_vote

if TYPE_CHECKING:
    import re
    from collections.abc import Callable, Sequence

    from asearch.path import Path
    from asearch.workers import AnswerWorkers

# How candidates are turned into one answer: most candidates, largest sum of values, or the single best value.
Select = Literal["majority", "weighted", "best"]
SELECTS: tuple[Select, ...] = ("majority", "weighted", "best")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the jury found.

    Args:
        answers: one per candidate; None where there is none.
        groups: candidates with equal answers, by index.
        votes: the full table, winner first.
        winner: index of the candidate that stands for the winning answer; None when nobody voted.
    """

    answers: tuple[str | None, ...]
    groups: tuple[Group, ...]
    votes: tuple[Vote, ...]
    winner: int | None


class Jury:
    """Groups answers in killable worker processes and votes.

    Args:
        workers: where answers are parsed.
        select: how to vote.
        pattern: how to find the answer in a text (see `asearch.answers.extract`).
    """

    def __init__(
        self,
        workers: AnswerWorkers,
        select: Select = "weighted",
        pattern: str | re.Pattern[str] | Callable[[str], str | None] | None = None,
    ) -> None:
        self.workers = workers
        self.select: Select = check_select(select)
        self.pattern = pattern

    async def verdict(self, paths: Sequence[Path], values: Sequence[float]) -> Verdict:
        """Vote over candidates.

        Solutions that were cut off vote only when none came to its end: what they say is half a thought.
        """
        answers = [extract(path.text, self.pattern) for path in paths]
        if any(path.complete and answer is not None for path, answer in zip(paths, answers, strict=True)):
            voting = [a if path.complete else None for path, a in zip(paths, answers, strict=True)]
        else:
            voting = answers
        groups = tuple(await self.workers.group(voting))
        votes = tally(groups, values, self.select)
        return Verdict(tuple(answers), groups, votes, representative(groups, votes, values))

    async def decided(self, paths: Sequence[Path], values: Sequence[float], to_come: int) -> bool:
        """Whether the leader cannot be overtaken by `to_come` further candidates, whose values are at most 1 each.

        The lead must be larger than all that may come, so a tie, which goes to the first seen, is never at stake.
        """
        if self.select == "best" or not all(path.complete for path in paths):
            return False
        votes = (await self.verdict(paths, values)).votes
        if not votes:
            return False
        power = [vote.count if self.select == "majority" else vote.weight for vote in votes]
        return power[0] - (power[1] if len(power) > 1 else 0.0) > to_come


def tally(groups: Sequence[Group], values: Sequence[float], select: Select) -> tuple[Vote, ...]:
    """The table of votes, winner first; ties go to the first seen."""
    if select == "majority":
        return majority_vote(groups)
    return (weighted_vote if select == "weighted" else best_vote)(groups, values)


def representative(groups: Sequence[Group], votes: Sequence[Vote], values: Sequence[float]) -> int | None:
    """The most valuable candidate of the winning answer, the first of equals."""
    if not votes:
        return None
    members = next(group.members for group in groups if votes[0].example in group.members)
    return max(members, key=lambda i: (values[i], -i))


def check_select(select: str) -> Select:
    for known in SELECTS:
        if select == known:
            return known
    raise UsageError(f"unknown selection {select!r}; known are {', '.join(SELECTS)}")
