"""An evaluation against the limit: the same tokens written, and the same texts scored, in saturating batches.

    python benchmarks/speed/limit.py

A search is run over 64 problems, and every request that reaches the servers is kept. The limit is then what fresh servers
of the same kind need for that work when nothing depends on anything: both servers get all of theirs at once, at the
same time, in two forms, of which the faster counts:

- the same requests again, shortest prompts first (the same tokens; prefixes are cached as they come);
- as few requests as there can be: for each problem one request for as many whole solutions as give the same number of
  tokens, without any step boundary, and the texts to be scored in lists of 1,024.

Beside it stands what the search's own requests need when all are sent at once in the order in which the search sent them:
contexts of the same mixed lengths in each batch, and as many requests. The distance from there is the schedule's; the
distance of that from the limit is what this engine takes for mixed contexts and for requests.

Both servers compute on this machine's cores, beside each other in the search and in the limit alike.
"""

from __future__ import annotations

import argparse
import asyncio
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import measuring

import asearch
from asearch.embedded import embedded_servers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

COMPLETIONS = "/v1/completions"
LIST = 1024  # prompts in one request, at most
STRATEGIES = {"best_of_n": asearch.BestOfN, "beam_search": asearch.BeamSearch, "dvts": asearch.DVTS}


@dataclass
class Work:
    """What a search asked of the two servers.

    Args:
        written: bodies of the policy's requests.
        texts: what the PRM was asked to judge, with the rest of the request.
        tokens: generated.
    """

    written: list[dict[str, Any]] = field(default_factory=list)
    scored: list[dict[str, Any]] = field(default_factory=list)
    tokens: int = 0

    def note_policy(self, route: str, body: Any, reply: Any) -> None:
        if route == COMPLETIONS:
            self.written.append(dict(body))
            self.tokens += reply["usage"]["completion_tokens"]

    def note_prm(self, route: str, body: Any, _: Any) -> None:
        if route == COMPLETIONS and isinstance(body.get("prompt"), list):
            self.scored.append(dict(body))

    @property
    def texts(self) -> list[str]:
        return sorted((text for body in self.scored for text in body["prompt"]), key=len)

    def again(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """The same requests, in an order in which prefixes come before what they begin."""
        written = sorted(self.written, key=lambda body: len(body["prompt"]))
        return written, in_lists(self.scored[0], self.texts, 64)

    def as_asked(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """The same requests in the order of the search."""
        return self.written, self.scored

    def straight(self, length: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """The same number of tokens as solutions of `length` tokens without a break."""
        roots = beginnings([body["prompt"] for body in self.written])
        counts = Counter({i: self.tokens // length // len(roots) for i in range(len(roots))})
        counts.update(range(self.tokens // length % len(roots)))
        common = {
            "model": self.written[0]["model"],
            "add_special_tokens": False,
            "ignore_eos": True,
            "temperature": 0.8,
        }
        bodies = [
            {**common, "prompt": roots[i], "n": n, "max_tokens": length, "min_tokens": length, "seed": i}
            for i, n in counts.items()
            if n
        ]
        return bodies, in_lists(self.scored[0], self.texts, LIST)


def in_lists(like: dict[str, Any], texts: Sequence[str], size: int) -> list[dict[str, Any]]:
    return [{**like, "prompt": list(texts[i : i + size])} for i in range(0, len(texts), size)]


def beginnings(prompts: Sequence[list[int]]) -> list[list[int]]:
    """The prompts with which no shorter one begins: one per problem."""
    roots: list[list[int]] = []
    for prompt in sorted(prompts, key=len):
        if not any(prompt[: len(root)] == root for root in roots):
            roots.append(prompt)
    return roots


@asynccontextmanager
async def opened() -> AsyncIterator[tuple[asearch.OpenAIClient, asearch.CausalPRM]]:
    """Fresh servers, with everything loaded that is loaded on first use."""
    async with AsyncExitStack() as stack:
        servers = await stack.enter_async_context(embedded_servers())
        client, prm = asearch.OpenAIClient(servers.policy), asearch.CausalPRM(servers.prm)
        stack.push_async_callback(client.aclose)
        stack.push_async_callback(prm.aclose)
        await asearch.solve(asearch.DVTS(n=64), client, prm, "What is $1 + 2$?")
        yield client, prm


async def searched(strategy: asearch.Strategy, problems: Sequence[asearch.Problem]) -> tuple[float, Work, int, int]:
    """Seconds for all problems, with the library's defaults; what was asked; answers; steps of the policy's engine."""
    async with opened() as (client, prm):
        work = Work()
        client.endpoint.stats.on_exchange.append(work.note_policy)
        prm.endpoint.stats.on_exchange.append(work.note_prm)
        before = await measuring.counted(client.endpoint.url, "engine_steps_total")
        watch = measuring.Stopwatch()
        results = [result async for result in asearch.solve_all(strategy, client, prm, problems)]
        wall = watch.read().wall
        steps = await measuring.counted(client.endpoint.url, "engine_steps_total") - before
        return wall, work, sum(result.answer is not None for result in results), steps


async def batched(written: list[dict[str, Any]], scored: list[dict[str, Any]]) -> tuple[float, float, float]:
    """Seconds for all of it at once, and when each server was done."""
    async with opened() as (client, prm):
        for endpoint in (client.endpoint, prm.endpoint):
            endpoint.limiter.limit = 10**6
        loop = asyncio.get_running_loop()

        async def all_of(endpoint: Any, bodies: list[dict[str, Any]]) -> float:
            began = loop.time()
            await asyncio.gather(*(endpoint.post(COMPLETIONS, body) for body in bodies))
            return loop.time() - began

        policy, verifier = await asyncio.gather(all_of(client.endpoint, written), all_of(prm.endpoint, scored))
        return max(policy, verifier), policy, verifier


async def compare(strategy: asearch.Strategy, problems: Sequence[asearch.Problem], rounds: int) -> list[str]:
    """One line of the table."""
    walls: list[float] = []
    mixed: list[float] = []
    limits: list[tuple[float, float, float]] = []
    for _ in range(rounds):
        wall, work, answered, steps = await searched(strategy, problems)
        walls.append(wall)
        length = max(1, round(work.tokens / (strategy.n * len(problems))))
        mixed.append((await batched(*work.as_asked()))[0])
        limits.append(min(await batched(*work.again()), await batched(*work.straight(length))))
    wall = measuring.median(walls)
    limit, policy, verifier = (measuring.median([found[i] for found in limits]) for i in range(3))
    return [
        strategy.name,
        str(strategy.n),
        f"{answered} of {len(problems)}",
        f"{work.tokens:,}",
        f"{len(work.texts):,}",
        f"{work.tokens / steps:.0f}",
        f"{policy:.2f}",
        f"{verifier:.2f}",
        f"{limit:.2f}",
        f"{measuring.median(mixed):.2f}",
        f"{wall:.2f}",
        f"{wall / limit:.2f}",
        f"{wall / measuring.median(mixed):.2f}",
    ]


async def run(arguments: argparse.Namespace) -> None:
    print(measuring.heading("Against the limit", "aiohttp"))
    problems = await measuring.problems(arguments.problems)
    rows = [
        await compare(
            STRATEGIES[name](n=n, **({"early_stop": False} if name == "best_of_n" else {})), problems, arguments.rounds
        )
        for name in arguments.only
        for n in arguments.n
    ]
    head = [
        "strategy",
        "n",
        "answered",
        "policy tokens",
        "texts scored",
        "tokens per engine step",
        "policy done, s",
        "PRM done, s",
        "limit, s",
    ]
    print(f"{len(problems)} problems; medians of {arguments.rounds} rounds.\n")
    print(measuring.table([*head, "as asked, s", "asearch, s", "to the limit", "to as asked"], rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=64)
    parser.add_argument("--n", type=int, nargs="+", default=[16])
    parser.add_argument("--only", nargs="+", choices=STRATEGIES, default=list(STRATEGIES))
    parser.add_argument("--rounds", type=int, default=3)
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
