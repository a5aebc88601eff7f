"""From an order to results: the searches of one request, and all that are under way."""

from __future__ import annotations

import asyncio
import logging
import random
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from asearch.calls import solve
from asearch.concurrency import cancel_and_wait, together
from asearch.errors import AsearchError, UsageError
from asearch.proxy.errors import ApiError, api_error
from asearch.proxy.replies import progress_line
from asearch.proxy.wire import problem_of
from asearch.usage import Budget

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from asearch.client import Client
    from asearch.events import Event
    from asearch.prm import PRM
    from asearch.problem import Problem
    from asearch.proxy.catalogue import Catalogue
    from asearch.proxy.metrics import Metrics
    from asearch.proxy.wire import ChatRequest
    from asearch.result import Result
    from asearch.strategies import Strategy
    from asearch.workers import AnswerWorkers

    Tell = Callable[[int, str], None]

log = logging.getLogger("asearch.proxy")


@dataclass(frozen=True, slots=True)
class Order:
    """What a request asks for, checked.

    Args:
        strategy: how to search.
        problem: what to solve.
        seeds: one per choice.
        budget: of each search; its seconds are those of the whole request.
    """

    strategy: Strategy
    problem: Problem
    seeds: tuple[int, ...]
    budget: Budget


def order_of(request: ChatRequest, catalogue: Catalogue, *, seconds: float) -> Order:
    """The order that a request is.

    A request without a seed gets one by chance, so that asking again brings other samples; choice i has seed + i.

    Raises:
        ApiError: it asks for something that cannot be had.
    """
    options = request.options
    seed = random.getrandbits(48) if request.seed is None else request.seed
    return Order(
        strategy=catalogue.strategy(request.model, request.of_strategy()),
        problem=problem_of(request.messages, step_prompt=options.step_prompt),
        seeds=tuple(range(seed, seed + (request.n or 1))),
        budget=Budget(options.budget_tokens, seconds, options.budget_requests),
    )


class Searches:
    """Runs searches on the servers behind the proxy, and knows all that are under way.

    Args:
        client: the policy.
        prm: the verifier, if there is one.
        workers: processes that compare answers.
        metrics: where searches are counted.
    """

    def __init__(self, client: Client, prm: PRM | None, workers: AnswerWorkers, metrics: Metrics) -> None:
        self._client, self._prm, self._workers, self._metrics = client, prm, workers, metrics
        self._running: set[asyncio.Task[list[Result]]] = set()
        self._aborted = False

    @asynccontextmanager
    async def begun(
        self, order: Order, deadline: float, tell: Tell | None = None
    ) -> AsyncIterator[asyncio.Task[list[Result]]]:
        """The searches of an order, as a task; what of it still runs at the end of the block is cancelled.

        Args:
            order: what to do.
            deadline: in the time of the event loop.
            tell: called with the number of the choice and a line of progress.
        """
        if self._aborted:  # it waited for a place until now
            raise stopping()
        task = asyncio.ensure_future(self._all(order, deadline, tell))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        try:
            yield task
        finally:
            await cancel_and_wait([task])

    async def results(self, task: asyncio.Task[list[Result]]) -> list[Result]:
        """What the searches found.

        Raises:
            ApiError: they failed, found nothing in time, or were cut short because the proxy stops.
        """
        try:
            return await task
        except asyncio.CancelledError:
            if self._aborted and task.cancelled():
                raise stopping() from None
            raise
        except AsearchError as failure:
            log.log(
                logging.INFO if isinstance(failure, UsageError) else logging.WARNING, "a search failed: %s", failure
            )
            raise api_error(failure) from None

    def abort(self) -> None:
        """Cancel every search; those who wait for it are told that the proxy stops."""
        self._aborted = True
        for task in tuple(self._running):
            task.cancel()

    async def _all(self, order: Order, deadline: float, tell: Tell | None) -> list[Result]:
        return await together(self._one(order, i, deadline, tell) for i in range(len(order.seeds)))

    async def _one(self, order: Order, number: int, deadline: float, tell: Tell | None) -> Result:
        def listen(event: Event) -> None:
            if tell is not None and (line := progress_line(event, judged=judged)):
                tell(number, line)

        judged = self._prm is not None and order.strategy.uses_prm
        left = max(0.001, deadline - asyncio.get_running_loop().time())
        outcome, usage = "failed", None
        try:
            result = await solve(
                order.strategy,
                self._client,
                self._prm,
                order.problem,
                seed=order.seeds[number],
                budget=replace(order.budget, seconds=left),
                on_event=listen,
                workers=self._workers,
            )
            outcome, usage = "done" if result.stopped_by in (None, "decided") else "stopped", result.usage
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        finally:
            self._metrics.searched(order.strategy.name, outcome, usage)
        if not result.paths and result.stopped_by == "seconds":
            raise nothing_in_time()
        return result


def nothing_in_time() -> ApiError:
    """Trying again would take as long."""
    return ApiError(
        "the time was over before the first step of a solution was there; allow more of it by `timeout`",
        status=504,
        param="timeout",
        code="timeout",
        headers={"x-should-retry": "false"},
    )


def stopping() -> ApiError:
    return ApiError("the proxy stops; ask again", status=503, code="stopping", retry_after=5)
