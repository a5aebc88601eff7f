"""`asearch prm-bench`: how well a verifier finds the first wrong step of solutions in ProcessBench's format."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
from rich.console import Console
from rich.markup import escape

from asearch.cli.options import run_async
from asearch.display import plain_table
from asearch.embedded import embedded_server
from asearch.errors import UsageError
from asearch.prm import as_prm

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from asearch.prm_bench import Case, Found

NAME = "prm-bench"
HELP = "does a verifier find the first wrong step? F1 per subset of files in ProcessBench's format"


def add_arguments(command: argparse.ArgumentParser) -> None:
    """The files, the verifier, the threshold."""
    command.add_argument("files", nargs="+", type=Path, metavar="FILE", help="JSONL, JSON or Parquet, each a subset")
    command.add_argument("--embedded", action="store_true", help="start the embedded PRM for this command")
    command.add_argument("--prm", metavar="URL", help="the process reward model's server")
    command.add_argument("--prm-model", metavar="NAME", help="served model name (the server's first)")
    command.add_argument("--prm-family", metavar="NAME", help="how the PRM reads a solution")
    command.add_argument("--threshold", type=float, help="a step scored below it counts as wrong (0.5)")
    command.add_argument("--fit-on", metavar="SUBSET", help="choose the threshold by F1 on this subset")
    command.add_argument("--at-once", type=int, default=64, help="solutions under way at the same time (64)")
    command.add_argument("--json", action="store_true", help="the table as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Score every step and print the table."""
    from asearch.prm_bench import THRESHOLD, best_threshold, judged, read_cases

    check(arguments)
    cases = [case for file in arguments.files for case in read_cases(file)]
    if arguments.fit_on is not None and arguments.fit_on not in {case.subset for case in cases}:
        best_threshold(cases, [[] for _ in cases], arguments.fit_on)  # says which there are, before anything is asked
    scores = run_async(_scores(arguments, cases))
    threshold = THRESHOLD if arguments.threshold is None else arguments.threshold
    if arguments.fit_on is not None:
        threshold = best_threshold(cases, scores, arguments.fit_on)
    show(judged(cases, scores, threshold), as_json=arguments.json)
    return 0


def check(arguments: argparse.Namespace) -> None:
    """Refuse options that contradict each other, before anything is started."""
    if arguments.embedded == (arguments.prm is not None):
        raise UsageError("which verifier? pass --prm URL, or --embedded")
    if arguments.fit_on is not None and arguments.threshold is not None:
        raise UsageError("--fit-on chooses the threshold: leave out --threshold")
    if arguments.at_once < 1:
        raise UsageError(f"--at-once must be at least 1, not {arguments.at_once}")


async def _scores(arguments: argparse.Namespace, cases: Sequence[Case]) -> list[list[float]]:
    if arguments.embedded:
        async with embedded_server("prm") as url:
            return await _scored(url, arguments, cases)
    return await _scored(arguments.prm, arguments, cases)


async def _scored(url: str, arguments: argparse.Namespace, cases: Sequence[Case]) -> list[list[float]]:
    from asearch.prm_bench import score_cases

    options: dict[str, Any] = {"model": arguments.prm_model, "family": arguments.prm_family}
    prm = as_prm(url, **{name: value for name, value in options.items() if value is not None})
    try:
        return await score_cases(prm, cases, at_once=arguments.at_once)
    finally:
        await prm.aclose()


def show(found: Sequence[Found], *, as_json: bool) -> None:
    """Accuracies and F1 per subset, and their mean."""
    mean = statistics.fmean(one.f1 for one in found)
    if as_json:
        rows = [
            {"subset": f.subset, "wrong": f.wrong, "right": f.right, "wrong_accuracy": f.wrong_accuracy,
             "right_accuracy": f.right_accuracy, "f1": f.f1, "threshold": f.threshold} for f in found
        ]  # fmt: skip
        print(orjson.dumps({"subsets": rows, "mean_f1": mean}).decode())
        return
    table = plain_table("subset", "wrong", "found", "right", "passed", "F1")
    for f in found:
        table.add_row(escape(f.subset), str(f.wrong), f"{100 * f.wrong_accuracy:.1f} %", str(f.right),
                      f"{100 * f.right_accuracy:.1f} %", f"{100 * f.f1:.1f}")  # fmt: skip
    console = Console(highlight=False)
    console.print(table)
    console.print(f"\nmean F1 {100 * mean:.1f}, threshold {found[0].threshold:.3g}")
