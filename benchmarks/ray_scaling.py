"""Throughput of 1, 2 and 4 workers of the Ray engine, against servers that answer at once.

    python benchmarks/ray_scaling.py --searches 200 --workers 1 2 4 --servers 1

What is measured is the client: searches per second, and the step requests in them, from the first outcome to the last,
beside the same searches in this process. The instant servers are processes of their own and take CPU time, too, so on a
machine with as many cores as there are workers the servers set the pace. So the CPU time of the searching side is
printed, too: it says what a worker needs, whatever the pace.

    python benchmarks/ray_scaling.py --model

is the same on a virtual clock, for 1 to 64 workers: the engine's own way of handing out work, with searches that take a
second or so, without and with one worker that is a hundred times as slow.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import asearch
from asearch.ray import RayEngine

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent


@contextmanager
def instant() -> Iterator[str]:
    """The URL of a process that answers at once, as policy and as PRM."""
    command = [sys.executable, str(HERE / "speed" / "instant_server.py")]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with server:
        try:
            yield json.loads(server.stdout.readline())["url"]
        finally:
            server.stdin.close()


def cpu_seconds(*, here: bool) -> float:
    """CPU time so far of this process, or of all workers of the engine."""
    if here:
        return time.process_time()
    ticks = 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cmdline").read_bytes().startswith(b"ray::SearchActor"):
                fields = (process / "stat").read_text().rsplit(")", 1)[1].split()
                ticks += int(fields[11]) + int(fields[12])
        except OSError:  # it has just ended
            continue
    return ticks / os.sysconf("SC_CLK_TCK")


class Stopwatch:
    """A `watch` for `evaluate`: time and CPU time between the first and the last finished search."""

    def __init__(self, searches: int, *, here: bool) -> None:
        self.searches, self.here = searches, here
        self.calls = 0
        self.marks: list[tuple[float, float]] = []

    def __call__(self, _progress: object) -> None:
        if self.calls in (1, self.searches):  # the first call says that the run has begun
            self.marks.append((time.perf_counter(), cpu_seconds(here=self.here)))
        self.calls += 1

    def rate(self) -> float:
        """Searches per second."""
        return (self.searches - 1) / (self.marks[1][0] - self.marks[0][0])

    def cost(self) -> float:
        """CPU milliseconds per search."""
        return 1000 * (self.marks[1][1] - self.marks[0][1]) / (self.searches - 1)


async def measured(urls: list[str], searches: int, at_once: int, workers: int | None) -> str:
    """A line of the table; `workers` None: in this process."""
    engine = None if workers is None else RayEngine(workers=workers)
    watch = Stopwatch(searches, here=workers is None)
    problems = [(f"Problem {i}", "1") for i in range(searches)]
    policy, prm = [f"{url}/policy" for url in urls], [f"{url}/prm" for url in urls]
    dvts = asearch.DVTS(n=16)
    with tempfile.TemporaryDirectory() as out:
        run = await asearch.evaluate(
            problems, policy, prm, [dvts], out=out, seeds=1, at_once=at_once, engine=engine, watch=watch, tree=False
        )
        requests = sum(record.usage.requests for record in run.records()) / searches
    if run.failures:
        raise SystemExit(f"{run.failures} searches failed: {run.errors[-1]}")
    label = "none: this process" if workers is None else str(workers)
    rate, cost = watch.rate(), watch.cost()
    return f"| {label} | {rate:.1f} | {rate * requests:,.0f} | {cost:.1f} | {cost / requests:.2f} |"


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--searches", type=int, default=200)
    parser.add_argument("--at-once", type=int, default=8)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--servers", type=int, default=1, help="instant servers, as replicas")
    parser.add_argument("--model", action="store_true", help="the model on a virtual clock instead")
    arguments = parser.parse_args()
    if arguments.model:
        model()
        return
    import ray

    with ExitStack() as stack:
        urls = [stack.enter_context(instant()) for _ in range(arguments.servers)]
        print(
            "| workers | searches/s | step requests/s | CPU ms per search | per step request |\n|---|---:|---:|---:|---:|"
        )
        print(asyncio.run(measured(urls, arguments.searches, arguments.at_once, None)), flush=True)
        ray.init(num_cpus=max(arguments.workers), log_to_driver=False, logging_level="ERROR", include_dashboard=False)
        for workers in arguments.workers:
            print(asyncio.run(measured(urls, arguments.searches, arguments.at_once, workers)), flush=True)


def model() -> None:
    """Hand out work to modelled workers, and print how long it takes."""
    sys.path.insert(0, str(HERE.parent / "tests" / "cluster"))
    from test_board import run_time

    print("| workers | searches | seconds | of the ideal | one of them 100 times as slow |\n|---:|---:|---:|---:|---:|")
    for workers in (1, 2, 4, 8, 16, 32, 64):
        count = 4 * workers * 20
        seconds, ideal = run_time(workers, count), count / (4 * workers)
        slow = f"{run_time(workers, count, slow=0):.1f}" if workers > 1 else ""
        print(f"| {workers} | {count} | {seconds:.1f} | {ideal / seconds:.0%} | {slow} |")


if __name__ == "__main__":
    main()
