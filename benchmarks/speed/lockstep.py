"""Our schedule against the lockstep of the reference (huggingface/search-and-learn), over the same clients and servers.

    python benchmarks/speed/lockstep.py

Seconds are those of the embedded servers, whose engine computes: a step takes longer the more sequences are in it, so
that a batch of 64 is not much slower one way or the other. On a GPU a step costs the same for 4 sequences as for 128;
for that the engine's steps are counted, too.

The reference's schedule: all beams advance together; the PRM runs when the whole level is written, and the policy when
the whole level is scored; the PRM reads every solution from its first step at every level, each beam for itself; beam
search takes one problem at a time (its `search_batch_size` must be 1), DVTS a batch of 25.

Both sides run the same strategy values with the same seeds, hence the same trees: the schedule is put between strategy
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

import asearch
from asearch.embedded import embedded_servers
from asearch.usage import ledger

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence

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
    """What one side took: seconds from the first request to the last vote, and steps of the policy's engine."""

    seconds: float
    steps: int
    results: list[asearch.Result]


async def ours(strategy: asearch.Strategy, problems: Sequence[asearch.Problem]) -> Side:
    """As the library does it, on servers of its own, so that no cache is warm for either side."""
    async with opened() as (client, prm, _):
        return await timed(strategy, client, prm, client, [problems])


async def lockstep(strategy: asearch.Strategy, problems: Sequence[asearch.Problem], batch: int) -> Side:
    """As the reference does it."""
    async with opened() as (client, _, forgetful):
        turns = Turns()
        batches = [problems[first : first + batch] for first in range(0, len(problems), batch)]
        policy, prm = LockstepPolicy(client, turns), LockstepPRM(forgetful, turns)
        return await timed(strategy, policy, prm, client, batches)


async def timed(
    strategy: asearch.Strategy, policy: Any, prm: Any, client: asearch.OpenAIClient, batches: Iterable[Any]
) -> Side:
    """One batch of problems after another, each all at once."""
    before = await measuring.counted(client.endpoint.url, "engine_steps_total")
    watch = measuring.Stopwatch()
    results = [
        result
        for batch in batches
        async for result in asearch.solve_all(strategy, policy, prm, batch, at_once=len(batch))
    ]
    seconds = watch.read().wall
    return Side(seconds, await measuring.counted(client.endpoint.url, "engine_steps_total") - before, results)


@asynccontextmanager
async def opened() -> AsyncIterator[tuple[asearch.OpenAIClient, asearch.CausalPRM, ForgetfulPRM]]:
    async with AsyncExitStack() as stack:
        servers = await stack.enter_async_context(embedded_servers())
        client, prm, forgetful = (
            asearch.OpenAIClient(servers.policy),
            asearch.CausalPRM(servers.prm),
            ForgetfulPRM(servers.prm),
        )
        for each in (client, prm, forgetful):
            stack.push_async_callback(each.aclose)
        for verifier in (prm, forgetful):  # what is loaded on first use is loaded: servers, answer workers
            await asearch.solve(asearch.DVTS(n=64), client, verifier, "What is $1 + 2$?")
        yield client, prm, forgetful


def check_same(some: Sequence[asearch.Result], others: Sequence[asearch.Result]) -> None:
    """The two sides must have explored the same trees: then nothing but the schedule differed."""
    for one, other in zip(some, others, strict=True):
        mine = [(node.path.id, node.path.text) for node in one.tree.nodes]
        assert mine == [(node.path.id, node.path.text) for node in other.tree.nodes], one.problem.text
        assert one.answer == other.answer


async def compare(
    strategy: asearch.Strategy, problems: Sequence[asearch.Problem], batch: int, rounds: int
) -> list[str]:
    """One line of the table."""
    sides: dict[str, list[Side]] = {"ours": [], "lockstep": []}
    for _ in range(rounds):
        sides["ours"].append(await ours(strategy, problems))
        sides["lockstep"].append(await lockstep(strategy, problems, batch))
        check_same(sides["ours"][-1].results, sides["lockstep"][-1].results)
    us, them = (measuring.median([side.seconds for side in sides[name]]) for name in ("ours", "lockstep"))
    few, many = (measuring.median([side.steps for side in sides[name]]) for name in ("ours", "lockstep"))
    scored = [sum(result.usage.scored for result in sides[name][-1].results) for name in ("lockstep", "ours")]
    tokens = sum(result.usage.policy_tokens for result in sides["ours"][-1].results)
    return [
        strategy.name,
        str(strategy.n),
        str(min(batch, len(problems))),
        f"{tokens:,}",
        *(f"{count:,}" for count in scored),
        f"{them:.2f}",
        f"{us:.2f}",
        f"{them / us:.1f}",
        f"{many:,.0f}",
        f"{few:,.0f}",
        f"{many / few:.1f}",
    ]


async def run(arguments: argparse.Namespace) -> None:
    print(measuring.heading("Against the lockstep schedule", "aiohttp"))
    problems = await measuring.problems(arguments.problems)
    kinds = {"beam": (asearch.BeamSearch, 1), "dvts": (asearch.DVTS, DVTS_BATCH)}
    rows = []
    for kind in arguments.only:
        make, batch = kinds[kind]
        rows += [await compare(make(n=n), problems, batch, arguments.rounds) for n in arguments.n]
    head = ["strategy", "n", "problems in lockstep", "policy tokens (both)", "scores, lockstep", "scores, asearch"]
    print(f"{len(problems)} problems, all at once in asearch; seconds are medians of {arguments.rounds} rounds.\n")
    head += ["lockstep, s", "asearch, s", "ratio", "engine steps, lockstep", "engine steps, asearch"]
    print(measuring.table([*head, "ratio of steps"], rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=16)
    parser.add_argument("--n", type=int, nargs="+", default=[4, 16, 64])
    parser.add_argument("--only", nargs="+", choices=("beam", "dvts"), default=["beam", "dvts"])
    parser.add_argument("--rounds", type=int, default=3)
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
