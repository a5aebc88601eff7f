"""The calls that people make: `await asearch.dvts(client, prm, problem, n=64)` and its siblings.

Each makes a strategy value and hands it to `solve`, which opens what it was given, searches within the budget, votes,
and returns a `Result` whatever ended the search.
"""

from __future__ import annotations

import asyncio
import itertools
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, TypeVar

from asearch.client import Client, as_client
from asearch.concurrency import seniority
from asearch.errors import SearchFailed, UsageError
from asearch.events import Event, Stopped
from asearch.jury import Jury
from asearch.prm import PRM, as_prm
from asearch.problem import Problem, as_problem
from asearch.result import Node, Result, Tree, conclude
from asearch.search import Search
from asearch.strategies import DVTS, STRATEGIES, BeamSearch, BestOfN, Greedy, Majority, Strategy
from asearch.usage import Budget, Ledger, ledger
from asearch.workers import AnswerWorkers, default_workers

if TYPE_CHECKING:
    import re
    from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Sequence

    from asearch.path import Path

T = TypeVar("T", Client, PRM)
_searches = itertools.count(1)


async def solve(
    strategy: Strategy | str,
    client: Any,
    prm: Any,
    problem: str | Problem,
    *,
    seed: int = 0,
    budget: Budget | None = None,
    on_event: Callable[[Event], Awaitable[None] | None] | None = None,
    workers: AnswerWorkers | None = None,
    pattern: str | re.Pattern[str] | Callable[[str], str | None] | None = None,
) -> Result:
    r"""Search for the answer to one problem.

    Args:
        strategy: a strategy value such as `DVTS(n=64)`, or the name of one with its defaults.
        client: a base URL, an `openai.AsyncOpenAI`, or any `Client`.
        prm: a base URL, an async function, or any `PRM`; None where the strategy needs none.
        problem: the question, or a `Problem`.
        seed: the same seed and servers give the same tree, whatever the order of replies.
        budget: a hard limit; at the limit the best so far is returned, with `stopped_by`.
        on_event: called (and awaited, if async) with each event.
        workers: processes that parse answers; one pool per event loop by default.
        pattern: how to find the answer in a solution; by default the last \boxed{}, or "the final answer is".

    Raises:
        UsageError: the call is wrong; nothing was sent.
        EndpointError: a server cannot be used at all.
        SearchFailed: every path failed; what there is hangs on it.
    """
    strategy = as_strategy(strategy)
    strategy.check()
    problem = as_problem(problem)
    if prm is None and strategy.needs_prm:
        raise UsageError(f"{strategy.name} needs a PRM: pass its URL, a PRM or an async function")
    book = Ledger(budget)
    ledger_token, senior_token = ledger.set(book), seniority.set(next(_searches))
    try:
        async with AsyncExitStack() as stack:
            policy = await stack.enter_async_context(opened(as_client, client))
            verifier = None if prm is None else await stack.enter_async_context(opened(as_prm, prm))
            search = Search(
                policy,
                verifier,
                problem,
                Jury(workers or default_workers(), strategy.select, pattern),
                sampling=strategy.sampling,
                reduction=strategy.reduction,
                seed=seed,
                book=book,
                on_event=on_event,
            )
            return await _searched(strategy, search)
    finally:
        ledger.reset(ledger_token)
        seniority.reset(senior_token)


async def _searched(strategy: Strategy, search: Search) -> Result:
    loop = asyncio.get_running_loop()
    began = loop.time()
    paths = await _within_time(strategy, search)
    if not paths:  # cut short before any candidate stood: the most promising of what there is
        paths = search.rank(search.leaves())[: max(1, strategy.n)]
    if not paths and search.failures:
        why = search.failures[0]
        raise SearchFailed(f"every path failed; the first: {why}", tuple(search.explored.values())) from why
    values = [search.value(path) for path in paths]
    verdict = await search.jury.verdict(paths, values)
    search.book.book(seconds=loop.time() - began)
    result = conclude(
        problem=search.problem,
        strategy=strategy.describe(),
        paths=paths,
        values=values,
        answers=verdict.answers,
        groups=verdict.groups,
        usage=search.book.usage,
        tree=Tree(tuple(Node(search.explored[key], search.fates[key]) for key in sorted(search.explored))),
        judged=any(path.scores for path in paths),
        stopped_by=search.stopped_by,
        errors=[str(failure) for failure in search.failures],
    )
    winner = paths[verdict.winner] if verdict.winner is not None else search.root
    await search.tell(Stopped(winner, search.book.usage, search.stopped_by))
    return result


async def _within_time(strategy: Strategy, search: Search) -> Sequence[Path]:
    """The strategy's candidates; at the deadline in-flight requests are cancelled and the explored leaves stand in."""
    timer = asyncio.timeout(search.book.budget.seconds)
    try:
        async with timer:
            await search.connect()
            return await strategy.run(search)
    except TimeoutError:
        if not timer.expired():
            raise
        search.stopped_by = "seconds"
        return [path for path in search.leaves() if path.complete]


async def greedy(client: Any, prm: Any, problem: str | Problem, **options: Any) -> Result:
    """One solution at temperature 0; scored if there is a PRM (else pass None)."""
    return await _call(Greedy, client, prm, problem, options)


async def majority(client: Any, prm: Any, problem: str | Problem, *, n: int = 16, **options: Any) -> Result:
    """N samples, one vote each (self-consistency). The PRM is not asked, and may be None."""
    del prm
    return await _call(Majority, client, None, problem, {"n": n, **options})


async def best_of_n(client: Any, prm: Any, problem: str | Problem, *, n: int = 16, **options: Any) -> Result:
    """N samples, scored by the PRM; the answer with the largest sum of scores (`select="best"`: the single best)."""
    return await _call(BestOfN, client, prm, problem, {"n": n, **options})


async def beam_search(client: Any, prm: Any, problem: str | Problem, *, n: int = 16, **options: Any) -> Result:
    """Beam search over steps: the n/width best paths go on after each, with `width` continuations each."""
    return await _call(BeamSearch, client, prm, problem, {"n": n, **options})


async def dvts(client: Any, prm: Any, problem: str | Problem, *, n: int = 16, **options: Any) -> Result:
    """Diverse verifier tree search: n/width independent subtrees, the best child goes on in each."""
    return await _call(DVTS, client, prm, problem, {"n": n, **options})


async def _call(kind: type[Strategy], client: Any, prm: Any, problem: str | Problem, options: dict[str, Any]) -> Result:
    names = {field.name for field in fields(kind)}
    own = {name: value for name, value in options.items() if name in names}
    others = {name: value for name, value in options.items() if name not in names}
    unknown = sorted(others.keys() - {"seed", "budget", "on_event", "workers", "pattern"})
    if unknown:
        raise UsageError(f"{kind.name} has no option {unknown[0]!r}; it has {', '.join(sorted(names))}")
    return await solve(kind(**own), client, prm, problem, **others)


def as_strategy(strategy: Strategy | str, **options: Any) -> Strategy:
    """A strategy value, or one by name with options."""
    if isinstance(strategy, Strategy):
        return replace(strategy, **options)
    kind = STRATEGIES.get(strategy.replace("-", "_"))
    if kind is None:
        raise UsageError(f"unknown strategy {strategy!r}; known are {', '.join(STRATEGIES)}")
    return kind(**options)


@dataclass(slots=True)
class _Shared:
    value: Any
    users: int = 0


_shared: dict[tuple[int, Hashable, int | str], _Shared] = {}


@asynccontextmanager
async def opened(make: Callable[[Any], T], given: Any) -> AsyncIterator[T]:
    """What was given, as a client or PRM: one that the caller made stays open; one made here from a URL is shared by
    all searches that run at the same time, and closed with the last of them.
    """
    made = make(given)
    if made is given:
        yield made
        return
    key = (id(asyncio.get_running_loop()), make, given if isinstance(given, str) else id(given))
    shared = _shared.setdefault(key, _Shared(made))
    shared.users += 1
    try:
        yield shared.value
    finally:
        shared.users -= 1
        if shared.users == 0:
            del _shared[key]
            await shared.value.aclose()
