"""The calls that people make: `await asearch.dvts(client, prm, problem, n=64)` and its siblings.

Each makes a strategy value and hands it to `solve`, which opens what it was given, searches within the budget, votes,
and returns a `Result` whatever ended the search.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, TypeVar

from asearch.admission import admission
from asearch.client import Client, as_client
from asearch.concurrency import cancel_and_wait, seniority, together
from asearch.errors import AsearchError, SearchFailed, UsageError
from asearch.events import Event, Stopped
from asearch.jury import Jury
from asearch.prm import PRM, as_prm
from asearch.problem import Problem, as_problem
from asearch.result import Node, Result, Tree, conclude
from asearch.search import Search
from asearch.strategies import (
    DVTS,
    STRATEGIES,
    BeamSearch,
    BestOfN,
    ComputeOptimal,
    Greedy,
    Majority,
    ParticleFilter,
    Rebase,
    SelfRefine,
    SelfVerify,
    Strategy,
)
from asearch.transport import is_source
from asearch.usage import Budget, Ledger, ledger
from asearch.workers import AnswerWorkers, default_workers

if TYPE_CHECKING:
    import re
    from collections.abc import (
        AsyncGenerator,
        AsyncIterable,
        AsyncIterator,
        Awaitable,
        Callable,
        Hashable,
        Iterable,
        Sequence,
    )

    from asearch.path import Path

    Listener = Callable[[Event], Awaitable[None] | None]
    Pattern = str | re.Pattern[str] | Callable[[str], str | None]

T = TypeVar("T", Client, PRM)
VOTE_SECONDS = 1.0  # after the deadline, for finding out which answers are equal
_searches = itertools.count(1)


async def solve(
    strategy: Strategy | str,
    client: Any,
    prm: Any,
    problem: str | Problem,
    *,
    seed: int = 0,
    budget: Budget | None = None,
    on_event: Listener | None = None,
    workers: AnswerWorkers | None = None,
    pattern: Pattern | None = None,
) -> Result:
    r"""Search for the answer to one problem.

    Args:
        strategy: a strategy value such as `DVTS(n=64)`, or the name of one with its defaults.
        client: a base URL, an `openai.AsyncOpenAI`, or any `Client`.
        prm: a base URL, an async function, or any `PRM`; None where the strategy needs none.
        problem: the question, or a `Problem`.
        seed: the same seed and servers give the same tree, whatever the order of replies.
        budget: a hard limit; at the limit the best so far is returned, with `stopped_by`.
        on_event: called (and awaited, if async) with each event; what it raises ends the search.
        workers: processes that parse answers; one pool per event loop by default.
        pattern: how to find the answer in a solution; by default the last \boxed{}, or "the final answer is".

    Raises:
        UsageError: the call is wrong; nothing was sent.
        EndpointError: a server cannot be used at all.
        SearchFailed: every path failed; what there is hangs on it.
    """
    strategy = ready(as_strategy(strategy), prm)
    problem = as_problem(problem)
    book = Ledger(budget)
    return await solve_within(
        strategy, client, prm, problem, book, seed=seed, on_event=on_event, workers=workers, pattern=pattern
    )


async def solve_within(
    strategy: Strategy,
    client: Any,
    prm: Any,
    problem: Problem,
    book: Ledger,
    *,
    seed: int = 0,
    on_event: Listener | None = None,
    workers: AnswerWorkers | None = None,
    pattern: Pattern | None = None,
) -> Result:
    """As `solve`, with the ledger in which everything is booked."""
    ledger_token, senior_token = ledger.set(book), seniority.set(next(_searches))
    try:
        async with AsyncExitStack() as stack:
            policy, verifier = await open_servers(stack, strategy, client, prm)
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


async def open_servers(stack: AsyncExitStack, strategy: Strategy, client: Any, prm: Any) -> tuple[Client, PRM | None]:
    """The policy, and the verifier where the strategy asks one, open for as long as the stack is."""
    policy = await stack.enter_async_context(opened(as_client, client))
    if prm is None or not strategy.uses_prm:
        return policy, None
    return policy, await stack.enter_async_context(opened(as_prm, prm))


def ready(strategy: Strategy, prm: Any) -> Strategy:
    """The strategy, checked, and as it can run with or without a PRM.

    Raises:
        UsageError: in one sentence that says what would be valid.
    """
    strategy.check()
    if prm is not None or not strategy.uses_prm:
        return strategy
    if strategy.needs_prm:
        raise UsageError(f"{strategy.name} needs a PRM: pass its URL, a PRM or an async function")
    if strategy.select == "weighted":  # there is nothing to weigh by: every candidate has one vote
        return replace(strategy, select="majority")
    if strategy.select == "best" and strategy.n > 1:
        raise UsageError(f'{strategy.name} with select="best" needs a PRM; without one, use select="majority"')
    return strategy


async def _searched(strategy: Strategy, search: Search) -> Result:
    paths = await _within_time(strategy, search)
    if not paths and search.stopped_by is not None:  # cut short before any candidate stood
        paths = best_so_far(search)[: strategy.n]
    if not paths and search.failures:
        why = search.failures[0]
        raise SearchFailed(f"every path failed; the first: {why}", tuple(search.explored.values())) from why
    values = [search.value(path) for path in paths]
    within = VOTE_SECONDS if search.stopped_by == "seconds" else None
    verdict = await search.jury.verdict(paths, values, within=within)
    result = conclude(
        problem=search.problem,
        strategy=strategy.describe(),
        paths=paths,
        values=values,
        answers=verdict.answers,
        groups=verdict.groups,
        usage=search.usage,
        tree=Tree(tuple(Node(search.explored[key], search.fates[key]) for key in sorted(search.explored))),
        judged=any(path.scores for path in paths),
        stopped_by=search.stopped_by,
        errors=[str(failure) for failure in search.failures],
    )
    winner = paths[result.winner] if result.winner is not None else search.root
    await search.tell(Stopped, winner, search.stopped_by, result)
    return result


async def _within_time(strategy: Strategy, search: Search) -> Sequence[Path]:
    """The strategy's candidates; at the deadline in-flight requests are cancelled and the explored leaves stand in."""
    timer = asyncio.timeout(search.book.budget.seconds)
    try:
        async with timer:
            await search.connect(stepwise=strategy.stepwise)
            return await strategy.run(search)
    except TimeoutError:
        if not timer.expired():
            raise
        search.stopped_by = "seconds"
        return [path for path in search.leaves() if path.complete]


def best_so_far(search: Search) -> list[Path]:
    """The ends of a search that was cut short: those still open or finished, by value, before those that were pruned."""
    ranked = search.rank(search.leaves())
    return sorted(ranked, key=lambda path: (not path.complete, search.fates[path.id] == "pruned"))


def stream(
    strategy: Strategy | str, client: Any, prm: Any, problem: str | Problem, **options: Any
) -> AsyncGenerator[Event, None]:
    """The events of a search as they happen: `async for event in asearch.stream(DVTS(n=16), client, prm, problem)`.

    The last event is `Stopped`, with the `result`. Leaving the loop early ends the search; close the generator
    (`contextlib.aclosing`) to wait until its requests are cancelled. What a search raises is raised here.

    Args:
        strategy: as for `solve`, and likewise the others.
        client: the policy.
        prm: the verifier.
        problem: the question.
        **options: further arguments of `solve`, without `on_event`.
    """
    chosen = ready(as_strategy(strategy), prm)
    return _events(chosen, client, prm, as_problem(problem), options)


async def _events(
    strategy: Strategy, client: Any, prm: Any, problem: Problem, options: dict[str, Any]
) -> AsyncGenerator[Event, None]:
    queue: asyncio.Queue[Event | None] = asyncio.Queue()
    task = asyncio.ensure_future(solve(strategy, client, prm, problem, on_event=queue.put_nowait, **options))
    task.add_done_callback(lambda _: queue.put_nowait(None))
    try:
        while (event := await queue.get()) is not None:
            yield event
        await task
    finally:
        await cancel_and_wait([task])


def solve_all(
    strategy: Strategy | str,
    client: Any,
    prm: Any,
    problems: Iterable[str | Problem] | AsyncIterable[str | Problem],
    *,
    at_once: int | None = None,
    **options: Any,
) -> AsyncGenerator[Result, None]:
    """Search for the answers to many problems; yields one result per problem, in their order.

    Endpoints, batchers and answer workers are shared. Problems are taken as there is room, so that they may come from
    an endless source. Where every path of a problem fails, its result has no answer, `stopped_by="error"` and the
    `errors`, and the others go on. Equal problems are searches of their own: the second and further ones get an id that
    tells them apart, and so other samples.

    Args:
        strategy: as for `solve`.
        client: the policy.
        prm: the verifier.
        problems: questions, from any iterable or async iterable.
        at_once: how many are searched at the same time; None: the next one begins as soon as the policy has room for
            more sequences than those under way (see `asearch.admission`).
        **options: further arguments of `solve`, which apply to each problem; a budget is one per problem.

    Raises:
        UsageError: the call is wrong; nothing was sent.
        EndpointError: a server cannot be used at all.
    """
    chosen = ready(as_strategy(strategy), prm)
    if at_once is not None and (not isinstance(at_once, int) or at_once < 1):
        raise UsageError(f"at_once must be at least 1, or None for as many as the policy has room for, not {at_once}")
    if isinstance(problems, str | Problem):
        raise UsageError("solve_all takes several problems: pass a list, or use solve for one")
    return _results(chosen, client, prm, problems, at_once, options)


AHEAD = 4  # results that may wait behind a slow one, per search under way


async def _results(
    strategy: Strategy,
    client: Any,
    prm: Any,
    problems: Iterable[str | Problem] | AsyncIterable[str | Problem],
    at_once: int | None,
    options: dict[str, Any],
) -> AsyncGenerator[Result, None]:
    async with AsyncExitStack() as stack:
        policy, verifier = await open_servers(stack, strategy, client, prm)
        await together(server.connect() for server in (policy, verifier) if server is not None)
        budget, others = options.get("budget"), {name: given for name, given in options.items() if name != "budget"}
        places = admission(policy, strategy.n, at_once)

        async def search(problem: Problem) -> Result:
            async with places.place(budget) as book:
                return await _result_or_errors(strategy, policy, verifier, problem, book, others)

        tasks: list[asyncio.Task[Result]] = []
        try:
            async for problem in told_apart(problems):
                tasks.append(asyncio.create_task(search(problem)))
                if len(tasks) >= AHEAD * places.most:
                    yield await tasks[0]
                    tasks.pop(0)
            while tasks:
                yield await tasks[0]
                tasks.pop(0)
        finally:
            await cancel_and_wait(tasks)


async def _result_or_errors(
    strategy: Strategy, client: Client, prm: PRM | None, problem: Problem, book: Ledger, options: dict[str, Any]
) -> Result:
    """A result in any case, unless the call itself is wrong."""
    try:
        return await solve_within(strategy, client, prm, problem, book, **options)
    except UsageError:
        raise
    except AsearchError as failure:
        return conclude(
            problem=problem,
            strategy=strategy.describe(),
            paths=(),
            values=(),
            answers=(),
            groups=(),
            usage=Ledger().usage,
            tree=Tree(()),
            judged=False,
            stopped_by="error",
            errors=[str(failure)],
        )


async def told_apart(problems: Iterable[str | Problem] | AsyncIterable[str | Problem]) -> AsyncGenerator[Problem, None]:
    """The problems, with an id of their own for the second and further ones that are equal."""
    seen: Counter[int] = Counter()  # hashes: the source may be endless
    async for given in each(problems):
        problem = as_problem(given)
        seen[hash(problem)] += 1
        times = seen[hash(problem)]
        yield problem if times == 1 else replace(problem, id=f"{problem.id}#{times}")


async def each(items: Iterable[Any] | AsyncIterable[Any]) -> AsyncGenerator[Any, None]:
    """The items of any iterable."""
    if hasattr(items, "__aiter__"):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item


async def greedy(client: Any, prm: Any, problem: str | Problem, **options: Any) -> Result:
    """One solution at temperature 0; scored if there is a PRM (else pass None)."""
    return await _call(Greedy, client, prm, problem, options)


async def majority(client: Any, prm: Any, problem: str | Problem, *, n: int = 16, **options: Any) -> Result:
    """N samples, one vote each (self-consistency). The PRM is not asked, and may be None."""
    return await _call(Majority, client, prm, problem, {"n": n, **options})


async def best_of_n(client: Any, prm: Any, problem: str | Problem, *, n: int = 16, **options: Any) -> Result:
    """N samples, scored by the PRM; the answer with the largest sum of scores (`select="best"`: the single best)."""
    return await _call(BestOfN, client, prm, problem, {"n": n, **options})


async def beam_search(client: Any, prm: Any, problem: str | Problem, *, n: int = 16, **options: Any) -> Result:
    """Beam search over steps: the n/width best paths go on after each, with `width` continuations each."""
    return await _call(BeamSearch, client, prm, problem, {"n": n, **options})


async def dvts(client: Any, prm: Any, problem: str | Problem, *, n: int = 16, **options: Any) -> Result:
    """Diverse verifier tree search: n/width independent subtrees, the best child goes on in each."""
    return await _call(DVTS, client, prm, problem, {"n": n, **options})


async def particle_filter(client: Any, prm: Any, problem: str | Problem, *, n: int = 16, **options: Any) -> Result:
    """N particles, drawn anew after each step in proportion to the verifier's odds; `iterations` for particle Gibbs."""
    return await _call(ParticleFilter, client, prm, problem, {"n": n, **options})


async def rebase(client: Any, prm: Any, problem: str | Problem, *, n: int = 16, **options: Any) -> Result:
    """Reward-balanced search: n expansions per level, shared out over all paths by softmax of their values."""
    return await _call(Rebase, client, prm, problem, {"n": n, **options})


async def self_refine(client: Any, prm: Any, problem: str | Problem, *, n: int = 16, **options: Any) -> Result:
    """Chains of `revisions` attempts, each seeing those before it; the PRM's vote, or, with None, the majority's."""
    return await _call(SelfRefine, client, prm, problem, {"n": n, **options})


async def self_verify(client: Any, prm: Any, problem: str | Problem, *, n: int = 16, **options: Any) -> Result:
    """N samples, scored by the policy itself: P(yes) that each step is right. The PRM is not asked, and may be None."""
    return await _call(SelfVerify, client, prm, problem, {"n": n, **options})


async def compute_optimal(
    client: Any, prm: Any, problem: str | Problem, *, n: int = 16, plan: Any = None, **options: Any
) -> Result:
    """Read the difficulty off a few first samples and go on as the plan says (`asearch plan RUN` makes one)."""
    return await _call(ComputeOptimal, client, prm, problem, {"n": n, "plan": plan, **options})


SOLVE_OPTIONS = {"seed", "budget", "on_event", "workers", "pattern"}


async def _call(kind: type[Strategy], client: Any, prm: Any, problem: str | Problem, options: dict[str, Any]) -> Result:
    own = {name: value for name, value in options.items() if name not in SOLVE_OPTIONS}
    others = {name: value for name, value in options.items() if name in SOLVE_OPTIONS}
    return await solve(made(kind, own), client, prm, problem, **others)


def as_strategy(strategy: Strategy | str, **options: Any) -> Strategy:
    """A strategy value, or one by name with options.

    Raises:
        UsageError: there is no such strategy, or it has no such option.
    """
    if isinstance(strategy, Strategy):
        return replace(strategy, **options)
    kind = STRATEGIES.get(strategy.replace("-", "_")) if isinstance(strategy, str) else None
    if kind is None:
        raise UsageError(f"unknown strategy {strategy!r}; known are {', '.join(STRATEGIES)}")
    return made(kind, options)


def made(kind: type[Strategy], options: dict[str, Any]) -> Strategy:
    """A strategy value from its options; says which there are when one is unknown."""
    names = {field.name for field in fields(kind)}
    for name in options:
        if name not in names:
            raise UsageError(f"{kind.name} has no option {name!r}; it has {', '.join(sorted(names))}")
    return kind(**options)


@dataclass(slots=True)
class _Shared:
    value: Any
    users: int = 0


_shared: dict[tuple[int, Hashable, Hashable], _Shared] = {}


@asynccontextmanager
async def opened(make: Callable[[Any], T], given: Any) -> AsyncIterator[T]:
    """What was given, as a client or PRM: one that the caller made stays open; one made here from a URL is shared by
    all searches that run at the same time, and closed with the last of them.
    """
    made = make(given)
    if made is given:
        yield made
        return
    where = tuple(given) if isinstance(given, list) else given
    key = (id(asyncio.get_running_loop()), make, where if is_source(where) else id(given))
    shared = _shared.setdefault(key, _Shared(made))
    shared.users += 1
    try:
        yield shared.value
    finally:
        shared.users -= 1
        if shared.users == 0:
            del _shared[key]
            await shared.value.aclose()
