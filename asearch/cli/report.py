"""`asearch report`: tables, figures and a page of a run; or the accuracies of a published file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import orjson
from rich.console import Console
from rich.markup import escape

from asearch.cli.options import run_async
from asearch.display import plain_table
from asearch.errors import UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from rich.table import Table

    from asearch.reports import Published, Report

NAME = "report"
WIDEST = 1000  # columns, more than any table of a report has
HELP = "Markdown, HTML, CSV tables and figures of a run; or the accuracies of a file in the reference's format"


def add_arguments(command: argparse.ArgumentParser) -> None:
    """The run, where to write, the sizes of the models."""
    command.add_argument(
        "source",
        metavar="RUN",
        type=Path,
        help="the folder of a run, or a JSONL or Parquet file with completions and scores",
    )
    command.add_argument("--out", type=Path, metavar="DIR", help="where to write (RUN/report)")
    command.add_argument(
        "--methods",
        nargs="+",
        default=(),
        metavar="NAME",
        help="of a run: show these only, such as 'beam search' dvts best-of-n 'particle*' (all); greedy stays",
    )
    command.add_argument("--levels", type=int, default=5, metavar="K", help="levels of difficulty (5)")
    command.add_argument("--seed", type=int, default=0, help="of the cross-validation's splits (0)")
    command.add_argument(
        "--policy-params", type=float, metavar="P", help="parameters of the policy (read off its name)"
    )
    command.add_argument("--prm-params", type=float, metavar="P", help="parameters of the verifier (read off its name)")
    command.add_argument("--baseline-params", type=float, metavar="P", help="parameters of the larger policy")
    command.add_argument(
        "--reduction",
        default="last",
        choices=("last", "min", "prod", "mean"),
        help="of a file: step scores to one value (last)",
    )
    command.add_argument("--json", action="store_true", help="the table as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Write the report and print its table."""
    from asearch.reports import Parameters, read_published, write_report

    if arguments.levels < 1:
        raise UsageError(f"--levels must be at least 1, not {arguments.levels}")
    if arguments.source.is_file():
        if arguments.methods:
            raise UsageError(f"--methods chooses among the methods of a run, and {arguments.source} is a file")
        show_published(
            run_async(read_published(arguments.source, reduction=arguments.reduction)), as_json=arguments.json
        )
        return 0
    sizes = Parameters(arguments.policy_params, arguments.prm_params, arguments.baseline_params)
    report = write_report(
        arguments.source,
        arguments.out,
        parameters=sizes,
        count=arguments.levels,
        seed=arguments.seed,
        methods=arguments.methods,
    )
    show(report, as_json=arguments.json)
    return 0


def show(report: Report, *, as_json: bool) -> None:
    """The table of accuracies, and where the rest is."""
    from dataclasses import asdict

    from asearch.reports.call import accuracy_grid

    if as_json:
        print(orjson.dumps({"folder": str(report.folder), "points": [asdict(p) for p in report.points]}).decode())
        return
    grid = accuracy_grid(report.points)
    console = Console(highlight=False)
    table = lines_of(grid.header, grid.rows)
    if (
        console.measure(table, options=console.options.update(max_width=WIDEST)).maximum > console.width
    ):  # deviations, which the report has, would break every line
        table = lines_of(grid.header, [[cell.partition(" ±")[0] for cell in row] for row in grid.rows])
    console.print(table)
    console.print(
        f"\n{report.folder / 'report.md'}, report.html and their figures and tables are written",
        markup=False,
        soft_wrap=True,
    )


def lines_of(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """The accuracies for a terminal, a line per method."""
    table = plain_table("accuracy in %", *header[1:])
    for column in table.columns:
        column.no_wrap = True
    for row in rows:
        table.add_row(*map(escape, row))
    return table


def show_published(found: Published, *, as_json: bool) -> None:
    """Accuracies per k."""
    if as_json:
        plain = {way: {str(k): a for k, a in row.items()} for way, row in found.accuracy.items()}
        print(orjson.dumps({"problems": found.problems, "accuracy": plain}).decode())
        return
    table = plain_table("k", *found.accuracy)
    for k in next(iter(found.accuracy.values())):
        table.add_row(str(k), *(f"{100 * row[k]:.1f} %" for row in found.accuracy.values()))
    console = Console(highlight=False)
    console.print(table)
    console.print(f"\n{found.problems} problems")
