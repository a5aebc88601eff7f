"""A worker of a run on a Ray cluster: the ordinary library, in a process of its own on some machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asearch.concurrency import as_completed
from asearch.evaluation.searcher import Failure, Job, Searcher

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from asearch.evaluation.entries import Task
    from asearch.evaluation.questions import Question
    from asearch.evaluation.records import Record

Shard = list[tuple["Task", "Question"]]


class SearchActor:
    """Runs the searches of shards, as there is room for them, and streams what is finished.

    Args:
        job: the strategies, the models, and how many searches run at once.
    """

    def __init__(self, job: Job) -> None:
        self._searcher = Searcher(job)

    async def open(self) -> None:
        """Connect to the servers.

        Raises:
            EndpointError: one cannot be used from this machine.
        """
        await self._searcher.__aenter__()

    async def search(self, shard: Shard) -> AsyncGenerator[tuple[int, Record | Failure], None]:
        """The outcome of each search of a shard, with its place there, as soon as it is known."""
        async for i, outcome in as_completed(self._searcher.search(task, question) for task, question in shard):
            yield i, outcome

    async def close(self) -> None:
        """Close the connections and the answer processes."""
        await self._searcher.__aexit__(None, None, None)
