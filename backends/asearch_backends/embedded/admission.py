"""Who joins the batch next, and what need not be computed for them."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Iterable

    from asearch_backends.embedded.cache import Key, Match, PrefixCache
    from asearch_backends.embedded.sequence import Sequence


class Admission(NamedTuple):
    """A sequence whose prompt will be computed, what the cache has of it, and those that ride along."""

    carrier: Sequence
    match: Match
    riders: list[Sequence]

    @property
    def to_compute(self) -> int:
        return len(self.carrier.prompt) - self.match.tokens


class _Pool(NamedTuple):
    carrier: Sequence
    riders: list[Sequence]


def admit(
    waiting: deque[Sequence], cache: PrefixCache, *, rows: int, tokens: int, pending: Iterable[Key | None] = ()
) -> list[Admission]:
    """Take sequences from the queue while there are free rows, and tokens left in this step's budget.

    Two savings beside the cache: a prompt that is the beginning of another one (or equal to it: siblings) rides along and
    reads its logits from the other's pass; and a prompt whose next block is being computed by another one waits a step, after
    which that block is in the cache. Both keep the order of arrival otherwise.
    """
    admitted: list[Admission] = []
    missing = set(pending)
    taken: set[int] = set()
    for pool in carpool(list(islice(waiting, rows))):
        if rows <= 0 or tokens <= 0:
            break
        match = cache.match(pool.carrier.data)
        if match.missing is not None and match.missing in missing:
            continue
        # The logits of a cached place are gone: who ends there computes its last tokens itself, later.
        riders = [r for r in pool.riders if len(r.prompt) > match.tokens][: rows - 1]
        missing.add(match.missing)
        admission = Admission(pool.carrier, match, riders)
        admitted.append(admission)
        taken.update(map(id, (pool.carrier, *riders)))
        rows -= 1 + len(riders)
        tokens -= admission.to_compute
    if taken:
        remaining = [s for s in waiting if id(s) not in taken]
        waiting.clear()
        waiting.extend(remaining)
    # Neighbours of similar length share one rectangle of attention.
    return sorted(admitted, key=lambda a: a.to_compute)


def carpool(sequences: list[Sequence]) -> list[_Pool]:
    """Group sequences so that every rider's prompt is the beginning of its carrier's, oldest group first."""
    order = {id(s): i for i, s in enumerate(sequences)}
    pools: list[_Pool] = []
    # What begins with p follows p immediately in sorted order, so backwards the longest comes first.
    for sequence in sorted(sequences, key=lambda s: (s.data, order[id(s)]), reverse=True):
        if pools and pools[-1].carrier.data.startswith(sequence.data):
            pools[-1].riders.append(sequence)
        else:
            pools.append(_Pool(sequence, []))
    for pool in pools:
        pool.riders.sort(key=lambda s: order[id(s)])
    return sorted(pools, key=lambda p: min(order[id(s)] for s in (p.carrier, *p.riders)))
