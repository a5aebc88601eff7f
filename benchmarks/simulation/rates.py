"""One GPU as the simulation models it, and one as it is.

    python benchmarks/simulation/rates.py http://policy:8000 http://prm:8000

Both must be vLLM, and serve models of the shapes in `hardware.py` (benchmarks/speed/bodies.py makes checkpoints of these shapes;
texts are random tokens, so what the weights say does not matter). Nothing is fitted: the table holds measured times beside
those of the simulation, whose figures were published.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.extend([str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "speed")])

import measuring

import asearch
from simulation.calibrate import GENERATED, Probe
from simulation.hardware import Machine, llama_1b, llama_8b
from simulation.report import table

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

DECODED = ((1, 200), (16, 200), (64, 200), (128, 200), (256, 200), (256, 400))  # sequences, tokens of context
READ = ((64, 100), (64, 400), (256, 400))  # prompts, tokens of each


async def run(servers: dict[str, tuple[str, Machine]]) -> str:
    """The table of both servers, measured one after the other."""
    rows = [row for name, (url, machine) in servers.items() for row in [r async for r in compared(name, url, machine)]]
    head = "server|what|measured|simulated|simulated / measured"
    return table(head, rows)


async def compared(name: str, url: str, machine: Machine) -> AsyncIterator[list[str]]:
    """The lines of one server."""
    client = asearch.OpenAIClient(url, limit=10_000)
    await client.connect()
    probe = Probe(client.endpoint, str(client.model), {}, seed=None)
    await probe.decoding(256, 100)  # what is compiled or captured on first use is there
    try:
        for count, length in DECODED:
            seconds = await probe.decoding(count, length)
            model = machine.iteration(count, count, count * (length + GENERATED / 2))
            yield line(
                name, f"a token for each of {count}, {length} tokens of context", 1e3 * seconds, 1e3 * model, "ms"
            )
        base = await probe.prompts(1, 16)
        for count, length in READ:
            seconds = (await probe.prompts(count, length) - base) / (count * length)
            yield line(
                name, f"reading {count} x {length} tokens", 1e-3 / seconds, 1e-3 / machine.flop, "thousand tokens/s"
            )
    finally:
        await client.aclose()


def line(name: str, what: str, measured: float, simulated: float, unit: str) -> list[str]:
    """A line of the table."""
    return [name, what, f"{measured:.2f} {unit}", f"{simulated:.2f} {unit}", f"{simulated / measured:.2f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("policy", help="URL of a server with Llama-3.2-1B's shape")
    parser.add_argument("prm", help="URL of a server with Llama-3.1-8B's shape")
    options = parser.parse_args()
    print(measuring.heading("The simulated GPU and a real one", "aiohttp"))
    servers = {"policy (1B)": (options.policy, llama_1b()), "PRM (8B)": (options.prm, llama_8b())}
    print(asyncio.run(run(servers)))


if __name__ == "__main__":
    main()
