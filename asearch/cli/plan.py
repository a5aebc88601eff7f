"""`asearch plan`: which strategy to use by difficulty and budget, fitted on a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from asearch.display import plain_table
from asearch.errors import UsageError

if TYPE_CHECKING:
    import argparse

    from asearch.plan import Plan

NAME = "plan"
HELP = "fit a compute-optimal plan to a run: the best strategy by difficulty and budget"


def add_arguments(command: argparse.ArgumentParser) -> None:
    """The run and the file."""
    command.add_argument(
        "source", metavar="RUN", type=Path, help="the folder of a run with best-of-n and other strategies"
    )
    command.add_argument("--out", type=Path, metavar="FILE", default=Path("plan.json"), help="the plan (plan.json)")
    command.add_argument("--levels", type=int, default=5, metavar="K", help="levels of difficulty (5)")
    command.add_argument("--samples", type=int, default=4, metavar="K", help="first samples to read the level off (4)")
    command.add_argument("--seed", type=int, default=0, help="of the cross-validation's splits (0)")


def run(arguments: argparse.Namespace) -> int:
    """Fit the plan, write it, and show what it chooses and how well that did."""
    from asearch.evaluation.folder import replace_file
    from asearch.reports import gather, make_plan

    if arguments.levels < 1 or arguments.samples < 1:
        raise UsageError("--levels and --samples must be at least 1")
    plan = make_plan(gather(arguments.source, first=arguments.samples), count=arguments.levels, seed=arguments.seed)
    replace_file(arguments.out, (json.dumps(plan.to_json(), indent=1) + "\n").encode())
    show(plan, arguments.out)
    return 0


def show(plan: Plan, file: Path) -> None:
    """The plan, and how well it did on the run."""
    console = Console(highlight=False)
    table = plain_table("N", "no level read", *(f"level {i}" for i in range(1, len(plan.thresholds) + 2)))
    for n, row in sorted(plan.rows.items()):
        table.add_row(str(n), *(escape(choice.label) for choice in (row.unread, *row.levels)))
    console.print(table)
    result = plain_table("levels", "N", "cross-validated", "same data", "best single method", "")
    for at in plan.about["accuracy"]:
        figures = (f"{100 * at[name]:.1f} %" for name in ("cross_validated", "same_data", "best_single_accuracy"))
        result.add_row(at["levels"], str(at["n"]), *figures, escape(at["best_single"]))
    console.print()
    console.print(result)
    console.print(
        "\ncross-validated: chosen on one half of the problems and evaluated on the other (DeepMind); same data: chosen and "
        "evaluated on the same problems (the article), which flatters",
        markup=False,
    )
    console.print(
        f"{file} is written: asearch.compute_optimal(client, prm, problem, n=64, plan={str(file)!r})",
        markup=False,
        soft_wrap=True,
    )
