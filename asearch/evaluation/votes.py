"""What a record says at smaller budgets and under other ways to vote: recomputed from its line, with nothing graded anew.

The article samples best-of-N and DVTS once at the largest budget and takes the first k of n for the smaller ones. That is
right where candidates do not depend on each other; where they competed (beam search, particle filter, REBASE) a record
stands for its own budget only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from asearch.answers import Group
from asearch.errors import UsageError
from asearch.jury import Select, check_select, electorate, representative, tally
from asearch.result import INDEPENDENT
from asearch.scoring import Reduction, reduce_scores

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from asearch.evaluation.records import Record


class Cost(NamedTuple):
    """What a search spent, or the share of it that a smaller budget stands for."""

    policy_tokens: float
    prm_tokens: float
    requests: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a strategy reached on one problem at one budget.

    Args:
        label: of the strategy and, where there are several, of the way to vote: "best-of-N, weighted".
        n: the budget.
        right: whether the answer is the reference answer.
        winner: index of the winning candidate among the record's; None where no candidate has an answer.
        cost: what it took; where it is a part of a larger run, tokens generated are counted and the rest is its share.
        sampled: the budget of the run of which this is a part.
    """

    label: str
    n: int
    right: bool
    winner: int | None
    cost: Cost
    sampled: int


class _Candidate(NamedTuple):
    """As much of a path as a vote looks at."""

    complete: bool


def part_size(record: Record) -> int | None:
    """How many of n belong together when a part of the candidates is taken; None where they competed.

    Nor is there a part of a run that was cut short. One that came to nothing came to nothing at every budget.
    """
    name = record.strategy["name"]
    if name not in INDEPENDENT or record.stopped_by not in (None, "error"):
        return None
    return int(record.strategy[INDEPENDENT[name]]) if INDEPENDENT[name] else 1


def first(record: Record, k: int) -> list[int]:
    """The candidates that the run with budget k would have had, by index.

    Raises:
        UsageError: candidates competed, or k is no part of this run.
    """
    if k == record.n:
        return list(range(len(record.completions)))
    size = part_size(record)
    if size is None or not 1 <= k < record.n or k % size:
        raise UsageError(f"{record.label} at n={record.n} holds no run of n={k}")
    return [i for i, place in enumerate(record.ids) if place[0] < k]


def vote(
    record: Record, k: int | None = None, select: Select | None = None, reduction: Reduction | None = None
) -> int | None:
    """Index of the candidate that wins among the first k; None where none of them has an answer.

    Args:
        record: of a search.
        k: a smaller budget; None: all candidates.
        select: "majority", "weighted" or "best"; None: as the strategy did.
        reduction: step scores to one number; None: as the strategy did.

    Raises:
        UsageError: the record cannot say.
    """
    members = first(record, record.n if k is None else k)
    how = check_select(record.strategy["select"] if select is None else select)
    values = [value_of(record, i, reduction) for i in members]
    if how == "weighted" and not any(values):
        how = "majority"  # nothing was scored, so there is nothing to weigh by
    new = {old: i for i, old in enumerate(members)}
    answers = [record.answers[i] for i in members]
    groups = [
        Group(record.answers[kept[0]] or "", tuple(new[i] for i in kept))
        for group in record.groups
        if (kept := [i for i in group if i in new])
    ]
    voters = electorate(groups, [_Candidate(record.finishes[i] == "eos") for i in members], answers)
    winner = representative(voters, tally(voters, values, how), values)
    return None if winner is None else members[winner]


def value_of(record: Record, candidate: int, reduction: Reduction | None = None) -> float:
    """What a candidate is worth, by the strategy's own reduction of its step scores or another."""
    if reduction is None:
        return record.agg_scores[candidate]
    scores = record.scores[candidate]
    return reduce_scores(scores, reduction) if scores else 0.0


def is_right(record: Record, winner: int | None) -> bool:
    """Whether a winner's answer is the reference answer."""
    return winner is not None and bool(record.correct[winner])


def cost_at(record: Record, k: int) -> Cost:
    """What the first k of n cost: generated tokens as they were, the rest by the share k/n."""
    usage, share = record.usage, k / record.n if record.n else 1.0
    requests = usage.requests + usage.prm_requests
    if k == record.n:
        return Cost(usage.policy_tokens, usage.prm_tokens, requests, usage.seconds)
    part = sum(record.branch_tokens[:k]) / (record.explored_tokens or 1)
    return Cost(usage.policy_tokens * part, usage.prm_tokens * share, requests * share, usage.seconds * share)


def outcomes(record: Record, budgets: Iterable[int]) -> Iterator[Outcome]:
    """Everything that one record says: at its own budget, at each smaller one that is a part of it, by each way to vote.

    Samples that were scored (best-of-N) are counted in all three ways: "<label>, weighted", "<label>, best" and
    "majority", which needs no verifier and whose cost leaves it out. Other strategies vote as they were told to.
    """
    for k in parts(record, budgets):
        cost = cost_at(record, k)
        for label, select in ways(record):
            winner = vote(record, k, select)
            free = cost._replace(prm_tokens=0.0, requests=float(k)) if label == MAJORITY else cost
            yield Outcome(label, k, is_right(record, winner), winner, free, record.n)


MAJORITY = "majority"


def ways(record: Record) -> Sequence[tuple[str, Select]]:
    """The labels under which a record is counted, each with its way to vote."""
    own: Select = check_select(record.strategy["select"])
    if record.strategy["name"] != "best_of_n" or record.stopped_by == "decided":
        return [(record.label, own)]
    if not any(record.scores) and own == "majority":
        return [(MAJORITY, own)]
    if not any(record.scores) and record.stopped_by != "error":
        return [(record.label, own)]
    return [(f"{record.label}, weighted", "weighted"), (f"{record.label}, best", "best"), (MAJORITY, "majority")]


def parts(record: Record, budgets: Iterable[int]) -> list[int]:
    """The record's own budget and those of the others that are parts of it, in order."""
    size = part_size(record)
    smaller = {k for k in budgets if 1 <= k < record.n and size is not None and k % size == 0}
    return sorted({*smaller, record.n})


def pass_at_k(n: int, right: int, k: int) -> float:
    """The probability that one of k samples is right, if `right` of n were: unbiased (Chen et al., arXiv 2107.03374).

    >>> pass_at_k(4, 1, 2)
    0.5
    """
    if not 0 <= right <= n or not 1 <= k <= n:
        raise ValueError(f"there are no {k} of {n} samples with {right} right")
    return 1.0 - math.comb(n - right, k) / math.comb(n, k)
