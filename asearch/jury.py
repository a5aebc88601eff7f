"""From candidates to an answer: extract, group what is equal, vote; and say when a vote can be ended early."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from asearch.answers import Group, extract, fast_form
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

ROUNDING = 1e-9  # a lead in sums of scores must exceed what the order of adding them can change


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the jury found.

    Args:
        answers: one per candidate; None where there is none.
        groups: candidates with equal answers, by index; those that were cut off, too.
        votes: the full table, winner first.
        winner: index of the candidate that stands for the winning answer; None when nobody voted.
        provisional: only solutions that were cut off voted, and one that comes to its end would silence them.
    """

    answers: tuple[str | None, ...]
    groups: tuple[Group, ...]
    votes: tuple[Vote, ...]
    winner: int | None
    provisional: bool


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
        self._answers: dict[str, str | None] = {}  # a poll asks for the same texts again and again

    async def verdict(self, paths: Sequence[Path], values: Sequence[float], *, within: float | None = None) -> Verdict:
        """Vote over candidates.

        Solutions that were cut off vote only when none came to its end: what they say is half a thought.

        Args:
            paths: the candidates.
            values: one per candidate.
            within: seconds after which answers are compared as texts, if it takes longer to find out what they mean.
        """
        answers = tuple(self._answer(path.text) for path in paths)
        groups = tuple(await self._group(answers, within))
        voters = electorate(groups, paths, answers)
        votes = tally(voters, values, self.select)
        provisional = not any(paths[i].complete for group in voters for i in group.members)
        return Verdict(answers, groups, votes, representative(voters, votes, values), provisional)

    async def _group(self, answers: Sequence[str | None], within: float | None) -> list[Group]:
        timer = asyncio.timeout(within)
        try:
            async with timer:
                return await self.workers.group(answers)
        except TimeoutError:
            if not timer.expired():
                raise
            return same_texts(answers)

    def _answer(self, text: str) -> str | None:
        if text not in self._answers:
            self._answers[text] = extract(text, self.pattern)
        return self._answers[text]


class Poll:
    """Watches a vote while candidates come in, and says when more of them cannot change the answer.

    It looks only when the vote could be settled: `due` is the smallest number of candidates at which that is possible,
    if all that come until then are for the leader. So a clear vote is looked at once, and a close one O(log n) times.

    Args:
        jury: counts.
        n: candidates in all.
        confidence: 1 settles what is certain: the lead exceeds all that may still come (one vote each, or, weighted, a
            score of at most 1 each), so that not even a tie is at stake. Below 1: adaptive consistency (arXiv
            2305.11860), the probability that the leader would stay ahead of the second for good.
    """

    def __init__(self, jury: Jury, n: int, *, confidence: float = 1.0) -> None:
        self.jury = jury
        self.n = n
        self.confidence = confidence
        self.settled = False
        self.due = self._next_due(0, 0.0, 0.0)

    async def look(self, paths: Sequence[Path], values: Sequence[float], seen: int) -> bool:
        """Whether the vote is settled after `seen` candidates, of which some may have failed and left no path."""
        verdict = await self.jury.verdict(paths, values)
        votes = () if verdict.provisional else verdict.votes
        first = self._power(votes[0]) if votes else 0.0
        second = self._rival(votes[1:])
        self.settled = bool(votes) and self._enough(first, second, self.n - seen)
        self.due = seen if self.settled else self._next_due(seen, first, second)
        return self.settled

    def _power(self, vote: Vote) -> float:
        return float(vote.count) if self.jury.select == "majority" else vote.weight

    def _rival(self, votes: Sequence[Vote]) -> float:
        """The most that another answer than the leader can have by now.

        That is more than the second has where answers that look different may turn out to be equal: an answer to come
        may be equal to both (2x and y = 2x). Two different numbers never are.
        """
        settled, open_ = [0.0], 0.0
        for vote in votes:
            if is_plain(vote.answer):
                settled.append(self._power(vote))
            else:
                open_ += self._power(vote)
        return max(settled) + open_

    def _enough(self, first: float, second: float, to_come: int) -> bool:
        if first - second > to_come + ROUNDING:
            return True
        return self.confidence < 1 and sure(round(first), round(second)) >= self.confidence

    def _next_due(self, seen: int, first: float, second: float) -> int:
        return next((k for k in range(seen + 1, self.n) if self._enough(first + k - seen, second, self.n - k)), self.n)


def is_plain(answer: str) -> bool:
    """Whether an answer is a number or a word, which no further answer can turn out to be equal to another of."""
    form = fast_form(answer)
    return form is not None and (form.kind == "number" or form.probe is None)


def sure(first: int, second: int) -> float:
    """The probability that the leader is the more frequent of the two leading answers, given their votes so far.

    Under a flat prior the share of the leader is Beta(first + 1, second + 1); the mass above one half is a binomial sum,
    exact here (Aggarwal et al. 2023, "Let's sample step by step", the Beta criterion).

    >>> sure(4, 0)
    0.96875
    """
    n = first + second + 1
    return float(sum(math.comb(n, i) for i in range(first + 1)) / 2**n)


def same_texts(answers: Sequence[str | None]) -> list[Group]:
    """Groups of answers that are written in the same way."""
    members: dict[str, list[int]] = {}
    for i, answer in enumerate(answers):
        if answer is not None and answer.strip():
            members.setdefault("".join(answer.split()), []).append(i)
    return [Group(answers[found[0]] or "", tuple(found)) for found in members.values()]


class Ending(Protocol):
    """As much of a path as decides who votes."""

    @property
    def complete(self) -> bool:
        """The model itself ended its text."""
        ...


def electorate(groups: Sequence[Group], paths: Sequence[Ending], answers: Sequence[str | None]) -> list[Group]:
    """Who votes: the candidates that came to their end, or, where none of them has an answer, those that were cut off."""
    complete = [[i for i in group.members if paths[i].complete] for group in groups]
    if not any(complete):
        return list(groups)
    return [Group(answers[members[0]] or "", tuple(members)) for members in complete if members]


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
    """The way of selecting by its name.

    Raises:
        UsageError: there is no such way.
    """
    for known in SELECTS:
        if select == known:
            return known
    raise UsageError(f"unknown selection {select!r}; known are {', '.join(SELECTS)}")
