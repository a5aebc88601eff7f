"""Tasks that belong together: run, yield as they end, cancel and see out."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Collection, Coroutine, Iterable
    from typing import Any

T = TypeVar("T")


async def together(coroutines: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Run coroutines at once and return their results in order.

    The first failure cancels the others and is raised as it is, not wrapped in a group.
    """
    coroutines = list(coroutines)
    if len(coroutines) == 1:  # nothing to run beside it: spare the task
        return [await coroutines[0]]
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(c) for c in coroutines]
    except BaseExceptionGroup as failures:
        raise first_failure(failures) from None
    return [task.result() for task in tasks]


async def as_completed(coroutines: Iterable[Coroutine[Any, Any, T]]) -> AsyncGenerator[tuple[int, T], None]:
    """Yield (index, result) as coroutines end; leaving the loop early cancels what still runs and waits for it."""
    tasks = {asyncio.ensure_future(c): i for i, c in enumerate(coroutines)}
    waiting = set(tasks)
    try:
        while waiting:
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in sorted(done, key=tasks.__getitem__):
                yield tasks[task], task.result()
    finally:
        await cancel_and_wait(tasks)


async def cancel_and_wait(tasks: Iterable[asyncio.Future[Any]]) -> None:
    """Cancel tasks and see each of them out, so that nothing runs on behind the caller's back."""
    pending = set(tasks)
    for task in pending:
        task.cancel()
    if pending:
        await asyncio.wait(pending)
    for task in pending:
        if not task.cancelled():
            task.exception()  # seen: nobody else will ask


def cancel_when_done(task: asyncio.Task[Any], futures: Collection[asyncio.Future[Any]]) -> None:
    """Cancel a task once all of the futures are done, by whatever way: nobody waits for it any longer."""
    waiting = set(futures)

    def note(future: asyncio.Future[Any]) -> None:
        waiting.discard(future)
        if not waiting:
            task.cancel()

    for future in futures:
        future.add_done_callback(note)


def first_failure(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first leaf of an exception group."""
    failure: BaseException = group
    while isinstance(failure, BaseExceptionGroup):
        failure = failure.exceptions[0]
    return failure
