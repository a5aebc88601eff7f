"""Our schedule against the lockstep of the reference (huggingface/search-and-learn), over the same clients and servers.

    python benchmarks/speed/lockstep.py
    python benchmarks/speed/lockstep.py --servers http://policy:8000 http://prm:8000   # vLLM, see servers.py

Seconds are those of the embedded servers, whose engine computes: a step takes longer the more sequences are in it, so
that a batch of 64 is not much slower one way or the other. On a GPU a step costs the same for 4 sequences as for 128;
for that the engine's steps are counted, too.

The reference's schedule: all beams advance together; the PRM runs when the whole level is written, and the policy when
the whole level is scored; the PRM reads every solution from its first step at every level, each beam for itself; beam
search takes one problem at a time (its `search_batch_size` must be 1), DVTS a batch of 25.

Both sides run the same strategy values with the same seeds, hence the same trees (of embedded servers that is checked; on
a GPU what a sequence says depends on its neighbours in the last bits, so there the equal trees are counted, and tokens and
scores of both sides stand in the table): the schedule is put between strategy
and clients, as two wrappers that hold requests back, and a PRM that remembers nothing. Nothing else of the reference is
reproduced: it also runs beam search for 40 levels whatever has ended, and looks a step ahead by default, which would be
more tokens, not another schedule.
"""

from __future__ import annotations

import argparse
import asyncio
from collections import deque
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import measuring
import servers
from counters import STEPS, Counts

import asearch
from asearch.usage import ledger

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence

    from servers import Fresh, Kept

DVTS_BATCH = 25  # search_batch_size of the reference


class Turns:
    """Two kinds of work that never run together: all of one, then all of the other."""

    def __init__(self) -> None:
        self.running: str | None = None
        self.in_flight = 0
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {"write": deque(), "score": deque()}

    @asynccontextmanager
    async def turn(self, kind: str) -> AsyncIterator[None]:
        if self.in_flight and self.running != kind:
            ticket = asyncio.get_running_loop().create_future()
            self._waiting[kind].append(ticket)
            await ticket
        else:
            self.running = kind
            self.in_flight += 1
        try:
            yield
        finally:
            self.in_flight -= 1
            if not self.in_flight:
                self._change()

    def _change(self) -> None:
        other = "score" if self.running == "write" else "write"
        self.running = other
        tickets, self._waiting[other] = self._waiting[other], deque()
        self.in_flight = len(tickets)
        for ticket in tickets:
            ticket.set_result(None)


class LockstepPolicy:
    """A policy whose turn ends when all that was asked for is written."""

    def __init__(self, client: asearch.OpenAIClient, turns: Turns) -> None:
        self._client, self._turns = client, turns

    @property
    def can_continue(self) -> bool:
        return self._client.can_continue

    async def connect(self) -> None:
        await self._client.connect()

    async def aclose(self) -> None:
        await self._client.aclose()

    async def extend(self, path: asearch.Path, n: int, **options: Any) -> list[asearch.Step]:
        async with self._turns.turn("write"):
            return await self._client.extend(path, n, **options)


class LockstepPRM:
    """A PRM that reads every path from its beginning, after the policy."""

    def __init__(self, prm: ForgetfulPRM, turns: Turns) -> None:
        self._prm, self._turns = prm, turns

    async def connect(self) -> None:
        await self._prm.connect()

    async def aclose(self) -> None:
        await self._prm.aclose()

    async def score(self, path: asearch.Path) -> list[float]:
        async with self._turns.turn("score"):
            return (await self._prm.score(unscored(path)))[-len(path.unscored) :]


class ForgetfulPRM(asearch.CausalPRM):
    """The client as it is, without its memory: equal texts are asked as often as they come."""

    async def _verdicts(self, prefixes: list[str]) -> list[Any]:
        verdicts = await self._batcher.submit_all(prefixes)
        for verdict in verdicts:
            if isinstance(verdict, Exception):
                raise verdict
        done = [verdict for verdict in verdicts if not isinstance(verdict, Exception)]
        tokens, requests = sum(v.tokens for v in done), sum(v.requests for v in done)
        ledger.get().book(prm_requests=requests, prm_tokens=tokens, scored=len(done))
        return verdicts


def unscored(path: asearch.Path) -> asearch.Path:
    """The same solution, with no step scored."""
    bare = asearch.Path(path.problem)
    for step, index in zip(path.steps, path.id, strict=True):
        bare = bare.grow(asearch.Step(step.text, step.finish, step.token_ids, step.tokens), index)
    return bare


@dataclass
class Side:
    """What one side took: seconds from the first request to the last vote, and steps of both engines."""

    seconds: float
    steps: int
    prm_steps: int
    results: list[asearch.Result]

    @property
    def tokens(self) -> int:
        return sum(result.usage.policy_tokens for result in self.results)

    @property
    def scored(self) -> int:
        return sum(result.usage.scored for result in self.results)


async def ours(on: Fresh | Kept, strategy: asearch.Strategy, problems: Sequence[asearch.Problem]) -> Side:
    """As the library does it, on servers with empty caches, as the other side has them."""
    async with opened(on) as (client, prm, _):
        return await timed(strategy, client, prm, (client, prm), [problems])


async def lockstep(
    on: Fresh | Kept, strategy: asearch.Strategy, problems: Sequence[asearch.Problem], batch: int
) -> Side:
    """As the reference does it."""
    async with opened(on) as (client, _, forgetful):
        turns = Turns()
        batches = [problems[first : first + batch] for first in range(0, len(problems), batch)]
        policy, prm = LockstepPolicy(client, turns), LockstepPRM(forgetful, turns)
        return await timed(strategy, policy, prm, (client, forgetful), batches)


async def timed(
    strategy: asearch.Strategy, policy: Any, prm: Any, clients: tuple[Any, Any], batches: Iterable[Any]
) -> Side:
    """One batch of problems after another, each all at once."""
    counts = [Counts(client.endpoint.url, STEPS) for client in clients]
    for each in counts:
        await each.begin()
    watch = measuring.Stopwatch()
    results = [
        result
        for batch in batches
        async for result in asearch.solve_all(strategy, policy, prm, batch, at_once=len(batch))
    ]
    seconds = watch.read().wall
    (steps,), (prm_steps,) = [await each.read() for each in counts]
    return Side(seconds, steps, prm_steps, results)


@asynccontextmanager
async def opened(on: Fresh | Kept) -> AsyncIterator[tuple[asearch.OpenAIClient, asearch.CausalPRM, ForgetfulPRM]]:
    async with AsyncExitStack() as stack:
        pair = await stack.enter_async_context(on.pair())
        client, prm, forgetful = (
            asearch.OpenAIClient(pair.policy),
            asearch.CausalPRM(pair.prm),
            ForgetfulPRM(pair.prm),
        )
        for each in (client, prm, forgetful):
            stack.push_async_callback(each.aclose)
        for verifier in (prm, forgetful):  # what is loaded on first use is loaded: servers, answer workers
            await asearch.solve(asearch.DVTS(n=64), client, verifier, "What is $1 + 2$?")
        yield client, prm, forgetful


def equal_trees(some: Sequence[asearch.Result], others: Sequence[asearch.Result]) -> int:
    """Problems for which both sides explored the same tree: there nothing but the schedule differed."""
    return sum(explored(one) == explored(other) for one, other in zip(some, others, strict=True))


def explored(result: asearch.Result) -> tuple[str | None, list[tuple[Any, str]]]:
    """The answer, and all steps with their places."""
    return result.answer, [(node.path.id, node.path.text) for node in result.tree.nodes]


async def compare(
    on: Fresh | Kept, strategy: asearch.Strategy, problems: Sequence[asearch.Problem], batch: int, rounds: int
) -> list[str]:
    """One line of the table."""
    mine: list[Side] = []
    theirs: list[Side] = []
    equal = []
    for _ in range(rounds):
        mine.append(await ours(on, strategy, problems))
        theirs.append(await lockstep(on, strategy, problems, batch))
        equal.append(equal_trees(mine[-1].results, theirs[-1].results))
        assert equal[-1] == len(problems) or not on.exact, "the embedded servers write the same for the same seeds"

    def middles(name: str) -> tuple[float, float]:
        """Of the lockstep, and of ours."""
        them, us = (measuring.median([getattr(side, name) for side in sides]) for sides in (theirs, mine))
        return them, us

    seconds, steps, tokens = middles("seconds"), middles("steps"), middles("tokens")
    speed = tuple(count / took for count, took in zip(tokens, seconds, strict=True))
    per_step = tuple(count / took for count, took in zip(tokens, steps, strict=True))
    return [
        strategy.name,
        str(strategy.n),
        str(min(batch, len(problems))),
        f"{min(equal)} of {len(problems)}",
        *both(tokens, ",.0f"),
        *both(middles("scored"), ",.0f"),
        *both(seconds, ".2f"),
        f"{seconds[0] / seconds[1]:.1f}",
        *both(speed, ",.0f"),
        f"{speed[1] / speed[0]:.1f}",
        *both(steps, ",.0f"),
        f"{steps[0] / steps[1]:.1f}",
        *both(per_step, ".0f"),
        *both(middles("prm_steps"), ",.0f"),
    ]


def both(pair: Sequence[float], form: str) -> list[str]:
    return [format(value, form) for value in pair]


HEAD = (
    "strategy",
    "n",
    "problems in lockstep",
    "equal trees",
    "policy tokens, lockstep",
    "policy tokens, asearch",
    "scores, lockstep",
    "scores, asearch",
    "lockstep, s",
    "asearch, s",
    "ratio",
    "tokens/s, lockstep",
    "tokens/s, asearch",
    "ratio of tokens/s",
    "engine steps, lockstep",
    "engine steps, asearch",
    "ratio of steps",
    "tokens per step, lockstep",
    "tokens per step, asearch",
    "PRM steps, lockstep",
    "PRM steps, asearch",
)


async def run(arguments: argparse.Namespace) -> None:
    problems = await measuring.problems(arguments.problems)
    kinds = {"beam": (asearch.BeamSearch, 1), "dvts": (asearch.DVTS, DVTS_BATCH)}
    async with servers.chosen(arguments) as on:
        print(measuring.heading("Against the lockstep schedule", "aiohttp", servers=on.name))
        print(
            f"{len(problems)} problems, all at once in asearch; medians of {arguments.rounds} rounds, equal trees of the"
            " worst; all requests have seeds.\n"
        )
        strategies = [(make(n=n), batch) for make, batch in map(kinds.get, arguments.only) for n in arguments.n]
        await measuring.show(
            HEAD, (await compare(on, strategy, problems, batch, arguments.rounds) for strategy, batch in strategies)
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=16)
    parser.add_argument("--n", type=int, nargs="+", default=[4, 16, 64])
    parser.add_argument("--only", nargs="+", choices=("beam", "dvts"), default=["beam", "dvts"])
    parser.add_argument("--rounds", type=int, default=3)
    servers.add_arguments(parser)
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
