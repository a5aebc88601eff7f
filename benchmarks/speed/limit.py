"""An evaluation against the limit: the same tokens written, and the same texts scored, in saturating batches.

    python benchmarks/speed/limit.py
    python benchmarks/speed/limit.py --servers http://policy:8000 http://prm:8000   # vLLM, see servers.py

A search is run over 64 problems, and every request that reaches the servers is kept. The limit is then what fresh servers
of the same kind (or the same, with empty caches) need for that work when nothing depends on anything: both servers get
all of theirs at once, at the same time, in two forms, of which the faster counts:

- the same requests again, shortest prompts first (the same tokens; prefixes are cached as they come);
- as few requests as there can be: for each problem one request for as many whole solutions as give the same number of
  tokens, without any step boundary, and the texts to be scored in lists of 1,024.

Beside it stands what the search's own requests need when all are sent at once in the order in which the search sent them:
contexts of the same mixed lengths in each batch, and as many requests. The distance from there is the schedule's; the
distance of that from the limit is what this engine takes for mixed contexts and for requests.

Both servers compute beside each other in the search and in the limit alike: embedded ones on this machine's cores, vLLM's
on whatever they were given, which may be one GPU for both.
"""

from __future__ import annotations

import argparse
import asyncio
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import measuring
import servers
from counters import STEPS, Counts

import asearch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from servers import Fresh, Kept

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
    def seeded(self) -> bool:
        """Whether the policy was sent seeds."""
        return any("seed" in body for body in self.written)

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
            {**common, "prompt": roots[i], "n": n, "max_tokens": length, **({"seed": i} if self.seeded else {})}
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
async def opened(on: Fresh | Kept, *, seeds: bool) -> AsyncIterator[tuple[asearch.OpenAIClient, asearch.CausalPRM]]:
    """Servers with empty caches, with everything loaded that is loaded on first use."""
    async with AsyncExitStack() as stack:
        pair = await stack.enter_async_context(on.pair())
        client, prm = servers.policy_client(pair.policy, seeds=seeds), asearch.CausalPRM(pair.prm)
        stack.push_async_callback(client.aclose)
        stack.push_async_callback(prm.aclose)
        await asearch.solve(asearch.DVTS(n=64), client, prm, "What is $1 + 2$?")
        yield client, prm


@dataclass
class Run:
    """A search.

    Args:
        wall: seconds for all problems, with the library's defaults.
        work: what was asked.
        answered: problems that have an answer.
        steps: of the policy's engine, and of the PRM's.
    """

    wall: float
    work: Work
    answered: int
    steps: tuple[int, int]


async def searched(
    on: Fresh | Kept, strategy: asearch.Strategy, problems: Sequence[asearch.Problem], *, seeds: bool
) -> Run:
    """Search all problems, and note what is asked."""
    async with opened(on, seeds=seeds) as (client, prm):
        work = Work()
        client.endpoint.stats.on_exchange.append(work.note_policy)
        prm.endpoint.stats.on_exchange.append(work.note_prm)
        counts = [Counts(endpoint.url, STEPS) for endpoint in (client.endpoint, prm.endpoint)]
        for each in counts:
            await each.begin()
        watch = measuring.Stopwatch()
        results = [result async for result in asearch.solve_all(strategy, client, prm, problems)]
        wall = watch.read().wall
        (written,), (scored,) = [await each.read() for each in counts]
        return Run(wall, work, sum(result.answer is not None for result in results), (written, scored))


async def batched(
    on: Fresh | Kept, written: list[dict[str, Any]], scored: list[dict[str, Any]]
) -> tuple[float, float, float]:
    """Seconds for all of it at once, and when each server was done. The requests have seeds if those of the search had."""
    async with opened(on, seeds=True) as (client, prm):
        for endpoint in (client.endpoint, prm.endpoint):
            endpoint.limiter.limit = 10**6
        loop = asyncio.get_running_loop()

        async def all_of(endpoint: Any, bodies: list[dict[str, Any]]) -> float:
            began = loop.time()
            await asyncio.gather(*(endpoint.post(COMPLETIONS, body) for body in bodies))
            return loop.time() - began

        policy, verifier = await asyncio.gather(all_of(client.endpoint, written), all_of(prm.endpoint, scored))
        return max(policy, verifier), policy, verifier


async def compare(
    on: Fresh | Kept, strategy: asearch.Strategy, problems: Sequence[asearch.Problem], rounds: int, *, seeds: bool
) -> list[str]:
    """One line of the table."""
    runs: list[Run] = []
    mixed: list[float] = []
    limits: list[tuple[float, float, float, str]] = []
    for _ in range(rounds):
        run = await searched(on, strategy, problems, seeds=seeds)
        runs.append(run)
        length = max(1, round(run.work.tokens / (strategy.n * len(problems))))
        mixed.append((await batched(on, *run.work.as_asked()))[0])
        forms = {"again": run.work.again(), "straight": run.work.straight(length)}
        limits.append(min([(*await batched(on, *bodies), name) for name, bodies in forms.items()]))
    wall = measuring.median([run.wall for run in runs])
    limit, policy, verifier = (measuring.median([found[i] for found in limits]) for i in range(3))
    tokens = measuring.median([run.work.tokens for run in runs])
    steps, prm_steps = (measuring.median([run.steps[i] for run in runs]) for i in range(2))
    return [
        strategy.name,
        str(strategy.n),
        f"{runs[-1].answered} of {len(problems)}",
        "yes" if runs[-1].work.seeded else "no",
        f"{tokens:,.0f}",
        f"{measuring.median([len(run.work.texts) for run in runs]):,.0f}",
        f"{steps:,.0f}",
        f"{tokens / steps:.0f}",
        f"{prm_steps:,.0f}",
        f"{policy:.2f}",
        f"{verifier:.2f}",
        f"{limit:.2f} ({', '.join(sorted({found[3] for found in limits}))})",
        f"{measuring.median(mixed):.2f}",
        f"{wall:.2f}",
        f"{tokens / wall:,.0f}",
        f"{wall / limit:.2f}",
        f"{wall / measuring.median(mixed):.2f}",
    ]


HEAD = (
    "strategy",
    "n",
    "answered",
    "seeds",
    "policy tokens",
    "texts scored",
    "engine steps",
    "tokens per engine step",
    "PRM engine steps",
    "policy done, s",
    "PRM done, s",
    "limit, s (form)",
    "as asked, s",
    "asearch, s",
    "policy tokens/s",
    "to the limit",
    "to as asked",
)


async def run(arguments: argparse.Namespace) -> None:
    problems = await measuring.problems(arguments.problems)
    strategies = [
        STRATEGIES[name](n=n, **({"early_stop": False} if name == "best_of_n" else {}))
        for name in arguments.only
        for n in arguments.n
    ]
    async with servers.chosen(arguments) as on:
        print(measuring.heading("Against the limit", "aiohttp", servers=on.name))
        seeds = servers.seeded(arguments, on)
        print(f"{len(problems)} problems; medians of {arguments.rounds} rounds.\n")
        await measuring.show(
            HEAD, (await compare(on, strategy, problems, arguments.rounds, seeds=seeds) for strategy in strategies)
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=64)
    parser.add_argument("--n", type=int, nargs="+", default=[16])
    parser.add_argument("--only", nargs="+", choices=STRATEGIES, default=list(STRATEGIES))
    parser.add_argument("--rounds", type=int, default=3)
    servers.add_arguments(parser)
    servers.add_seeds_argument(parser)
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
