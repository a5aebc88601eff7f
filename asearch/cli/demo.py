"""`asearch demo`: all strategies on the embedded models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from asearch.cli.options import run_async
from asearch.demo import Demo
from asearch.embedded import check_installed
from asearch.errors import UsageError

if TYPE_CHECKING:
    import argparse

NAME = "demo"
HELP = "all strategies on the embedded models: no GPU, no download"


def add_arguments(demo: argparse.ArgumentParser) -> None:
    """The options of the demo."""
    demo.add_argument("--n", "-n", type=int, default=16, help="budget: solutions or beams per problem (16)")
    demo.add_argument("--problems", type=int, default=50, help="held-out problems (50)")
    demo.add_argument("--seed", type=int, default=0, help="of the problems and the searches (0)")
    demo.add_argument("--plot", type=Path, default=Path("asearch-demo.png"), help="where the picture goes")


def run(arguments: argparse.Namespace) -> int:
    """Run the demo; show what there is, also after Ctrl-C."""
    if arguments.problems < 1:
        raise UsageError(f"--problems must be at least 1, not {arguments.problems}")
    check_installed()
    console = Console()
    demo = Demo(
        n=arguments.n, problems=arguments.problems, seed=arguments.seed, picture=arguments.plot, console=console
    )
    try:
        run_async(demo.run())
    finally:  # also after Ctrl-C: what was found so far
        demo.report()
    return 0
