"""What the speed benchmarks share: the machine, versions, problems, clocks, tables."""

from __future__ import annotations

import os
import platform
import resource
import statistics
import subprocess
import time
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asearch
from asearch.embedded import embedded_problems

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence


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


def heading(title: str, *packages: str, servers: str = "") -> str:
    """The title, and the machine, versions and servers that the numbers below it belong to."""
    told = "; ".join(filter(None, [machine(), versions("asearch", *packages), servers]))
    return f"## {title}\n\n{told}.\n"


def machine() -> str:
    """Processor, cores, load and GPUs in a line."""
    model = next(
        (line.partition(":")[2].strip() for line in lines_of("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor() or platform.machine(),
    )
    load = f", load {os.getloadavg()[0]:.1f} at the start" if hasattr(os, "getloadavg") else ""
    return ", ".join([f"{model}, {len(os.sched_getaffinity(0))} cores{load}, {platform.system()}", *gpus()])


def gpus() -> list[str]:
    """The names of the GPUs; none where nvidia-smi is not there or finds none."""
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [name.strip() for name in found.splitlines() if name.strip()]


def lines_of(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def versions(*packages: str) -> str:
    """Python and the named distributions; of one that is on the path, but not installed, the name alone."""
    told = [f"Python {platform.python_version()}"]
    for name in packages:
        try:
            told.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            told.append(name)
    return ", ".join(told)


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table; numbers to the right."""
    return "\n".join(map(line, (head, ruler(head), *rows)))


async def show(head: Sequence[str], rows: AsyncIterator[Sequence[Any]]) -> None:
    """Print a table line by line, as the rows are measured."""
    print(table(head, []), flush=True)
    async for row in rows:
        print(line(row), flush=True)


def ruler(head: Sequence[str]) -> list[str]:
    return ["---" if i == 0 else "---:" for i in range(len(head))]


def line(row: Sequence[Any]) -> str:
    return "| " + " | ".join(map(str, row)) + " |"


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


async def problems(n: int, seed: int = 0) -> list[asearch.Problem]:
    """Held-out problems for the embedded models, each with a number as its id."""
    return [asearch.Problem(text, id=str(i)) for i, (text, _) in enumerate(await embedded_problems(n, seed))]


def peak_memory() -> float:
    """The most memory that this process ever had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if platform.system() == "Linux" else 2**20)


def memory() -> float:
    """The memory that this process has now, in MB (Linux)."""
    pages = int(lines_of("/proc/self/statm")[0].split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
