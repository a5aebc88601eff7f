"""The command line."""

from __future__ import annotations

import argparse
import json
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

from simulation.report import NAMES, as_run, tables
from simulation.study import SCHEDULES, Setting, as_line, simulate

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

LOCKED = ("best_of_n", "beam_search", "dvts")  # what the reference has


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is not in the log yet, then print the tables of all that is."""
    options = parse(arguments)
    log = Path(options.log)
    done = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    known = [as_run(line)[0] for line in done]
    asked = [setting for setting in settings(options) if setting not in known]
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        under_way = {pool.submit(simulate, setting): setting for setting in asked}
        for finished in as_completed(under_way):
            setting, outcome = under_way[finished], finished.result()
            done.append(as_line(setting, outcome))
            with log.open("a") as file:
                file.write(json.dumps(done[-1]) + "\n")
            print(f"{setting}: {outcome.makespan:.1f} s, {outcome.ratio:.3f} of the bound", file=sys.stderr)
    order = list(settings(options))
    runs = [as_run(line) for line in done]
    print(tables(sorted(runs, key=lambda run: order.index(run[0]) if run[0] in order else len(order))))


def settings(options: argparse.Namespace) -> Iterator[Setting]:
    """What is asked for: every strategy at every number of replicas, and the other schedules on one of each."""
    for strategy in options.only:
        for schedule in options.schedules:
            if schedule != "asearch" and strategy not in LOCKED:
                continue
            own = schedule == "asearch"
            for replicas, workers in product(options.replicas if own else (1,), options.workers if own else (1,)):
                yield Setting(
                    strategy,
                    options.n,
                    options.problems,
                    policies=replicas,
                    prms=replicas * options.prms_per_policy,
                    schedule=schedule,
                    at_once=options.at_once,
                    max_num_seqs=options.max_num_seqs,
                    workers=workers,
                )


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(prog="python benchmarks/simulation", description=main.__doc__)
    parser.add_argument("--problems", type=int, default=64)
    parser.add_argument("--n", type=int, default=64, help="a multiple of 4")
    parser.add_argument("--replicas", type=int, nargs="+", default=[1, 4, 16], help="of policy and PRM each")
    parser.add_argument("--prms-per-policy", type=int, default=1)
    parser.add_argument("--workers", type=int, nargs="+", default=[1], help="processes that share problems and servers")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=list(NAMES), help="strategies")
    parser.add_argument("--schedules", nargs="+", choices=SCHEDULES, default=list(SCHEDULES))
    parser.add_argument("--at-once", type=int, help="problems under way together; by default the library decides")
    parser.add_argument("--max-num-seqs", type=int, default=256, help="places in a policy server's batch")
    parser.add_argument("--jobs", type=int, default=1, help="runs at the same time, in processes of their own")
    parser.add_argument("--log", default="simulation.jsonl", help="finished runs; the same command goes on from there")
    options = parser.parse_args(arguments)
    if (
        min(options.problems, options.n, options.prms_per_policy, options.max_num_seqs, options.jobs, *options.replicas)
        < 1
    ):
        parser.error("numbers of problems, samples, replicas, workers, jobs and places must be at least 1")
    if options.n % 4:
        parser.error(f"--n must be a multiple of 4 (the width of beam search and DVTS), not {options.n}")
    return options
