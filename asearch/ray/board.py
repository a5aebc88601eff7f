"""Who searches what: the state of a run on several workers, moved by plain functions that wait for nothing.

Work goes out in shards: at first as large as a worker takes, towards the end smaller, so that no worker is
left with a pile while others are idle. A search whose worker was lost is put back. At the very end idle workers take what a
straggler has had for long, too; whoever comes first counts.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from asearch.evaluation.entries import Task
    from asearch.evaluation.questions import Question

SLOW = 3.0  # a search that takes so many times as long as the longest so far is given to another worker, too
DEADLY = 2  # deaths of workers after which a search is tried alone


@dataclass(slots=True, eq=False)
class Item:
    """One search on its way.

    Args:
        task: which.
        question: of what.
        deaths: workers that were lost with it.
        since: per worker that has it, when it was sent there.
        over: its outcome is known.
    """

    task: Task
    question: Question
    deaths: int = 0
    since: dict[int, float] = field(default_factory=dict)
    over: bool = False


class Board:
    """What is to be done, who has it, and what is done.

    Args:
        work: the searches, in their order.
        workers: how many there are.
        shard: searches that a worker is sent together, at most.
    """

    def __init__(self, work: Iterable[tuple[Task, Question]], *, workers: int, shard: int) -> None:
        self._waiting = deque(Item(task, question) for task, question in work)
        self._suspects: deque[Item] = deque()
        self._out: dict[int, set[Item]] = {}
        self._workers = workers
        self._shard = shard
        self._longest = 0.0
        self.left = len(self._waiting)

    def take(self, worker: int, now: float) -> list[Item]:
        """The next shard for a worker; empty where there is nothing for it at this time."""
        size = max(1, min(self._shard, len(self._waiting) // (2 * self._workers)))
        shard = [self._waiting.popleft() for _ in range(min(size, len(self._waiting)))]
        shard = shard or self._overdue(worker, now)
        for item in shard:
            item.since[worker] = now
        self._out.setdefault(worker, set()).update(shard)
        return shard

    def _overdue(self, worker: int, now: float) -> list[Item]:
        """A search that another worker has had for long, and only one."""
        late = [item for item in self._lone(worker) if self._due(item) <= now]
        return sorted(late, key=self._due)[:1]

    def next_due(self, worker: int) -> float | None:
        """When the next search of another worker becomes overdue; None: never, as things are."""
        return min((self._due(item) for item in self._lone(worker)), default=None)

    def _lone(self, worker: int) -> list[Item]:
        if not self._longest:  # nobody knows yet how long a search takes
            return []
        others = (items for other, items in self._out.items() if other != worker)
        return [item for items in others for item in items if len(item.since) == 1 and not item.over]

    def _due(self, item: Item) -> float:
        return min(item.since.values()) + SLOW * self._longest

    def finish(self, worker: int, item: Item, now: float) -> bool:
        """A worker has the outcome of a search; says whether it is the first."""
        self._out.get(worker, set()).discard(item)
        if worker in item.since and not item.over:
            self._longest = max(self._longest, now - item.since[worker])
        item.since.pop(worker, None)
        if item.over:
            return False
        item.over = True
        self.left -= 1
        return True

    def lose(self, worker: int) -> None:
        """A worker is gone: what nobody else has is put back, first in line."""
        for item in sorted(self._out.pop(worker, set()), key=lambda item: item.task, reverse=True):
            item.since.pop(worker, None)
            item.deaths += 1
            if item.over or item.since:
                continue
            if item.deaths >= DEADLY:
                self._suspects.append(item)
            else:
                self._waiting.appendleft(item)

    def suspect(self) -> Item | None:
        """A search with which workers were lost again and again, to be tried by a worker of its own."""
        return self._suspects.popleft() if self._suspects else None
