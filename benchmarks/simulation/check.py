"""Is the model of a server right? Predict runs on the embedded servers, and measure them.

    python benchmarks/simulation/check.py

The servers' rates are measured first, with requests that have nothing to do with searches. Then a search over some problems is
run and timed on the real servers and recorded, and run again on the virtual clock against the model of them. The client's
own CPU time per request, which is part of a real run's time, is taken from the real run.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import statistics
import sys
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import asearch
from asearch.embedded import embedded_problems, embedded_servers
from asearch.prm import CausalPRM
from simulation import clock
from simulation.calibrate import measured_machine
from simulation.network import network
from simulation.report import NAMES, table
from simulation.study import Setting, strategy_of
from simulation.trace import Hands, Recording, Replayed, key

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from simulation.hardware import Machine

MODELS = Path(__file__).parents[2] / "backends/asearch_backends/embedded/models"


@dataclass
class Measured:
    """One search on real servers: its seed, seconds of wall time, of the client's CPU, requests, and what was said."""

    seed: int
    wall: float
    cpu: float
    requests: int
    policy: Recording
    prm: Recording


def main() -> None:
    """Measure, predict, and print both."""
    options = parse()
    print(asyncio.run(real(options)))


async def real(options: argparse.Namespace) -> str:
    """Everything; predictions are made in a thread of their own, because they need an event loop of their own."""
    problems = [problem for problem, _ in await embedded_problems(options.problems, 0)]
    rows = []
    async with embedded_servers() as servers:
        machines = await calibrated(servers.policy, servers.prm)
        for number, name in enumerate(options.only):
            strategy = strategy_of(Setting(name, options.n, options.problems))
            seeds = range(
                options.repeats * number, options.repeats * (number + 1)
            )  # or the prefix caches would know all
            runs = [await timed(servers, strategy, problems, options.at_once, seed) for seed in seeds]
            run = sorted(runs, key=lambda r: r.wall)[len(runs) // 2]
            predicted, busy = await asyncio.to_thread(predict, machines, run, strategy, problems, options.at_once)
            rows.append(row(NAMES.get(name, name), run, predicted, busy, [r.wall for r in runs]))
    head = (
        "strategy|measured, s (median)|all runs, s|client CPU, s|predicted, s|predicted / measured|policy busy|PRM busy"
    )
    return "\n\n".join([machine_line(), rates(machines), table(head, rows)])


async def calibrated(policy: str, prm: str) -> tuple[Machine, Machine]:
    """Both servers' rates."""
    client, verifier = asearch.OpenAIClient(policy), CausalPRM(prm, family="embedded")
    await client.connect()
    await verifier.connect()
    verdict = {"logprobs": 0, "logprob_token_ids": list(verifier.verdicts), "return_tokens_as_token_ids": True}
    try:
        return (
            await measured_machine("policy", client.endpoint, str(client.model), {"return_token_ids": True}),
            await measured_machine("PRM", verifier.endpoint, str(verifier.model), verdict),
        )
    finally:
        await client.aclose()
        await verifier.aclose()


async def timed(servers: Any, strategy: Any, problems: Sequence[str], at_once: int, seed: int) -> Measured:
    """One run on the real servers."""
    policy, prm = Recording(), Recording()
    client, verifier = asearch.OpenAIClient(servers.policy), CausalPRM(servers.prm, family="embedded")
    await watched(client, policy)
    await watched(verifier, prm)
    await asearch_all(strategy, client, verifier, problems[:1], at_once, seed)  # everything is imported and connected
    began, cpu = time.perf_counter(), time.process_time()
    before = client.endpoint.stats.requests + verifier.endpoint.stats.requests
    await asearch_all(strategy, client, verifier, problems[1:], at_once, seed)
    wall, cpu = time.perf_counter() - began, time.process_time() - cpu
    requests = client.endpoint.stats.requests + verifier.endpoint.stats.requests - before
    await client.aclose()
    await verifier.aclose()
    return Measured(seed, wall, cpu, requests, policy, prm)


async def watched(client: Any, recording: Recording) -> None:
    """Record what goes over a client's endpoint."""
    client.endpoint.stats.on_exchange.append(recording.note)
    recording.replies[key("/v1/models", {})] = await client.endpoint.get("/v1/models")
    await client.connect()


async def asearch_all(strategy: Any, client: Any, prm: Any, problems: Sequence[str], at_once: int, seed: int) -> None:
    """All problems, results thrown away."""
    async with asearch.AnswerWorkers() as workers:
        results: AsyncIterator[asearch.Result] = asearch.solve_all(
            strategy, client, prm, problems, at_once=at_once, seed=seed, workers=workers
        )
        async for result in results:
            if result.errors:
                raise RuntimeError(result.errors[0])


def predict(
    machines: tuple[Machine, Machine], run: Measured, strategy: Any, problems: Sequence[str], at_once: int
) -> tuple[float, list[float]]:
    """The same on the virtual clock: the predicted wall time, and how busy both engines are."""
    from asearch_backends.embedded.tokenizer import Tokenizer

    tokenizer = Tokenizer(MODELS / "prm", 119)

    async def again() -> tuple[float, list[float]]:
        hands = Hands(run.cpu / run.requests)
        servers = [
            Replayed(machine, recording, lambda text: tokenizer.encode(text, add_special_tokens=False), hands)
            for machine, recording in zip(machines, (run.policy, run.prm), strict=True)
        ]
        with network(dict(zip(("policy", "prm"), servers, strict=True))):
            client = asearch.OpenAIClient("http://policy:80")
            verifier = CausalPRM("http://prm:80", family="embedded")
            await asearch_all(strategy, client, verifier, problems[:1], at_once, run.seed)
            loop = asyncio.get_running_loop()
            began, busy = loop.time(), [server.engine.counters.busy for server in servers]
            await asearch_all(strategy, client, verifier, problems[1:], at_once, run.seed)
            wall = loop.time() - began
            shares = [(s.engine.counters.busy - b) / wall for s, b in zip(servers, busy, strict=True)]
            await client.aclose()
            await verifier.aclose()
            return wall, shares

    return clock.run(again())


def row(name: str, run: Measured, predicted: float, busy: Sequence[float], walls: Sequence[float]) -> list[str]:
    """A line of the table."""
    shares = [f"{100 * share:.0f} %" for share in busy]
    spread = " ".join(f"{wall:.2f}" for wall in sorted(walls))
    return [
        name,
        f"{statistics.median(walls):.2f}",
        spread,
        f"{run.cpu:.2f}",
        f"{predicted:.2f}",
        f"{predicted / run.wall:.2f}",
        *shares,
    ]


def rates(machines: Sequence[Machine]) -> str:
    """The calibrated models."""
    rows = [
        [
            m.name,
            *(f"{1e6 * x:.0f}" for x in (m.host, m.flop, m.prompt_sequence + m.sequence, m.flop + m.sequence)),
            *(f"{1e9 * x:.0f}" for x in (m.read, m.load)),
            *(f"{1e6 * x:.0f}" for x in (m.request, m.latency)),
        ]
        for m in machines
    ]
    head = "server|us per iteration|us per prompt token|us per prompt|us per running sequence|ns per token of context"
    return table(f"{head}|ns per cached token|us per request|us of latency", rows)


def machine_line() -> str:
    """Where this was measured."""
    load = os.getloadavg()[0]
    return f"{os.cpu_count()} cores ({platform.machine()}), load {load:.1f}; Python {platform.python_version()}, asearch {version('asearch')}"


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=25, help="the first only warms up")
    parser.add_argument("--n", type=int, default=16)
    parser.add_argument("--at-once", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--only", nargs="+", choices=NAMES, default=["best_of_n", "beam_search", "dvts", "particle_filter"]
    )
    options = parser.parse_args()
    if options.problems < 2 or options.n % 4 or options.repeats < 1:
        parser.error("at least 2 problems and 1 repeat, and an n that is a multiple of 4")
    return options


if __name__ == "__main__":
    main()
