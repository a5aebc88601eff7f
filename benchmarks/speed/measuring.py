"""What the speed benchmarks share: the machine, versions, problems, clocks, tables."""

from __future__ import annotations

import os
import platform
import resource
import statistics
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp

import asearch
from asearch.embedded import embedded_problems

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Cost:
    """One run: seconds on the clock, and CPU seconds of this process (of the servers: not)."""

    wall: float
    cpu: float


class Stopwatch:
    """Wall time and this process's CPU time since it was made."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def read(self) -> Cost:
        return Cost(time.perf_counter() - self._wall, time.process_time() - self._cpu)


def heading(title: str, *packages: str) -> str:
    """The title, and the machine and versions that the numbers below it belong to."""
    return f"## {title}\n\n{machine()}; {versions('asearch', *packages)}.\n"


def machine() -> str:
    """Processor, cores, load and memory in a line."""
    model = next(
        (line.partition(":")[2].strip() for line in lines_of("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor() or platform.machine(),
    )
    load = f", load {os.getloadavg()[0]:.1f} at the start" if hasattr(os, "getloadavg") else ""
    return f"{model}, {len(os.sched_getaffinity(0))} cores{load}, {platform.system()}"


def lines_of(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def versions(*packages: str) -> str:
    """Python and the named distributions."""
    return ", ".join([f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in packages)])


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table; numbers to the right."""
    ruler = ["---" if i == 0 else "---:" for i in range(len(head))]
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in (head, ruler, *rows))


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


async def problems(n: int, seed: int = 0) -> list[asearch.Problem]:
    """Held-out problems for the embedded models, each with a number as its id."""
    return [asearch.Problem(text, id=str(i)) for i, (text, _) in enumerate(await embedded_problems(n, seed))]


async def counted(url: str, name: str) -> int:
    """A counter of a server's /metrics, by its name in vLLM."""
    async with aiohttp.ClientSession() as session, session.get(url + "/metrics") as reply:
        lines = (await reply.text()).splitlines()
    return round(sum(float(line.split()[-1]) for line in lines if line.startswith(f"vllm:{name}{{")))


def peak_memory() -> float:
    """The most memory that this process ever had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if platform.system() == "Linux" else 2**20)


def memory() -> float:
    """The memory that this process has now, in MB (Linux)."""
    pages = int(lines_of("/proc/self/statm")[0].split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
