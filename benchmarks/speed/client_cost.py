"""What a search costs the client: CPU per step request on real sockets, and memory with a whole evaluation in flight.

    python benchmarks/speed/client_cost.py

The servers are one process that answers at once (instant_server.py), so all that is measured here is the library: making
requests, reading replies, books, tree, choosing, votes. A step request is one request for n=4 continuations, and the
scoring of them. CPU is this process's user and system time, divided by the step requests that the server counted.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import statistics
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import measuring

import asearch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SERVER = Path(__file__).with_name("instant_server.py")


@asynccontextmanager
async def instant_server(*options: str) -> AsyncIterator[str]:
    """The server that answers at once, for the time of the block; yields its URL."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(SERVER), *options, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        yield json.loads(await process.stdout.readline())["url"]
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()


async def run(url: str, strategy: asearch.Strategy, problems: int, at_once: int, limit: int) -> dict[str, Any]:
    """Search all problems; CPU, wall time and memory of this process, and what the server counted."""
    client = asearch.OpenAIClient(url + "/policy", limit=limit)
    prm = asearch.CausalPRM(url + "/prm", limit=4 * limit)
    counts = asearch.OpenAIClient(url)
    asked = [asearch.Problem("What is $1 + 1$?", id=str(i)) for i in range(problems)]
    try:
        await client.connect()
        await prm.connect()
        await counts.endpoint.get("/counts")
        gc.collect()
        before = measuring.memory()
        watch = measuring.Stopwatch()
        nodes = steps = 0
        async for result in asearch.solve_all(strategy, client, prm, asked, at_once=at_once):
            assert result.answer is not None, result.errors
            nodes += len(result.tree)
            steps = max(steps, *(path.depth for path in result.paths))
        cost = watch.read()
        counted = await counts.endpoint.get("/counts")
    finally:
        for opened in (client, prm, counts):
            await opened.aclose()
    return {"cpu": cost.cpu, "wall": cost.wall, "before": before, "nodes": nodes, "steps": steps, **counted}


def row(label: str, runs: list[dict[str, Any]]) -> list[str]:
    each = [1000 * run["cpu"] / run["requests"] for run in runs]
    last = runs[-1]
    wall = statistics.median(run["wall"] for run in runs)
    return [
        label,
        f"{last['requests']:,}",
        f"{last['scores']:,}",
        f"{last['most']:,}",
        f"{statistics.median(each):.3f}",
        f"{min(each):.3f}",
        f"{last['requests'] / wall:,.0f}",
    ]


async def cpu(arguments: argparse.Namespace) -> None:
    print(measuring.heading("Client cost: CPU", "aiohttp", "orjson"))
    async with instant_server("--depth", str(arguments.depth), "--tokens", str(arguments.tokens)) as url:
        rows = []
        for n, problems, at_once in arguments.sizes:
            strategy = asearch.DVTS(n=n)
            await run(url, strategy, min(problems, 4), at_once, arguments.limit)  # warm
            runs = [await run(url, strategy, problems, at_once, arguments.limit) for _ in range(arguments.rounds)]
            rows.append(row(f"DVTS n={n}, {problems} problems, {at_once} at once", runs))
    head = [
        "search",
        "step requests",
        "steps scored",
        "most sequences at the server",
        "CPU ms per step request (median)",
    ]
    print(measuring.table([*head, "(best)", "step requests/s"], rows))


def memory(arguments: argparse.Namespace) -> None:
    """Each size in a process of its own, because the peak of a process never falls."""
    print("\n" + measuring.heading("Client cost: memory", "aiohttp", "orjson"))
    rows = []
    for problems, n in arguments.memory:
        command = [sys.executable, __file__, "--one", str(problems), str(n)]
        command += ["--depth", str(arguments.memory_depth), "--tokens", str(arguments.tokens)]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        grown = found["peak"] - found["before"]
        rows.append(
            [
                f"{problems} problems, n={n}",
                f"{problems * n:,}",
                f"{found['nodes']:,}",
                f"{found['peak']:,.0f}",
                f"{grown:,.0f}",
                f"{2**20 * grown / found['nodes']:,.0f}",
                f"{found['wall']:.0f}",
            ]
        )
    head = ["DVTS", "sequences in flight", "steps explored", "peak MB", "of which grown", "bytes per step", "seconds"]
    print(measuring.table(head, rows))


async def one(problems: int, n: int, arguments: argparse.Namespace) -> None:
    """All problems at once, results dropped as they come: JSON for `memory`."""
    async with instant_server("--depth", str(arguments.depth), "--tokens", str(arguments.tokens)) as url:
        found = await run(url, asearch.DVTS(n=n), problems, problems, arguments.limit)
    print(json.dumps({**found, "peak": measuring.peak_memory()}))


def tune() -> None:
    """What a program can do for its own event loop: uvloop, and the garbage collector as the `asearch` command sets it."""
    import gc

    import uvloop

    from asearch.cli import GARBAGE_THRESHOLD

    uvloop.install()
    gc.set_threshold(GARBAGE_THRESHOLD, 10, 10)


def size(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("x"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=size, nargs="*", metavar="NxPROBLEMSxAT_ONCE")
    parser.add_argument("--memory", type=size, nargs="*", metavar="PROBLEMSxN")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--depth", type=int, default=8, help="steps of a solution")
    parser.add_argument("--memory-depth", type=int, default=4, help="steps of a solution where memory is measured")
    parser.add_argument("--tokens", type=int, default=32, help="tokens of a step")
    parser.add_argument("--limit", type=int, default=1024, help="sequences at the policy's server")
    parser.add_argument("--tuned", action="store_true", help="uvloop, and fewer runs of the garbage collector")
    parser.add_argument("--one", type=int, nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.tuned:
        tune()
    if arguments.one:
        asyncio.run(one(*arguments.one, arguments))
        return
    if arguments.sizes is None:
        arguments.sizes = [(4, 256, 256), (16, 64, 64), (64, 16, 16), (256, 4, 4), (64, 64, 64)]
    if arguments.memory is None:
        arguments.memory = [(125, 64), (125, 256), (500, 64), (500, 256)]
    if arguments.sizes:
        asyncio.run(cpu(arguments))
    if arguments.memory:
        memory(arguments)


if __name__ == "__main__":
    main()
