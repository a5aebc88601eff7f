"""The command line: one file per command.

Exit status: 0 done, 1 something failed, 2 the call was wrong, 130 stopped by Ctrl-C. Errors are one line; `--debug`
shows the traceback.
"""

from __future__ import annotations

import argparse
import gc
import sys
from typing import TYPE_CHECKING

from asearch.cli import demo, doctor, export, plan, prm_bench, report, serve, solve
from asearch.cli import eval as evaluate
from asearch.cli.options import add_debug
from asearch.errors import AsearchError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

# Container objects made between two looks of the garbage collector: a hundred times Python's own number. A search makes
# many and leaves no cycles, and looking takes a tenth of the client's CPU (docs/speed.md). A library must not choose that.
GARBAGE_THRESHOLD = 70_000

# Each has NAME, HELP, add_arguments(parser) and run(arguments) -> exit status. What a command needs beyond the library
# itself it imports when it runs, so that `asearch --help` stays quick.
COMMANDS = (demo, solve, evaluate, report, plan, export, prm_bench, serve, doctor)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    if argv is None:  # this process is the command's own
        gc.set_threshold(GARBAGE_THRESHOLD, 10, 10)
    arguments = parser().parse_args(argv)
    try:
        status: int = arguments.run(arguments)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    except (AsearchError, OSError) as failure:
        if arguments.debug:
            raise
        print(f"asearch: {failure}", file=sys.stderr)
        return 2 if isinstance(failure, UsageError) else 1
    return status


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    top = argparse.ArgumentParser(
        prog="asearch", description="Search for better answers with a small model and a verifier."
    )
    top.add_argument("--debug", action="store_true", help="show tracebacks")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in COMMANDS:
        own = commands.add_parser(command.NAME, help=command.HELP)
        command.add_arguments(own)
        add_debug(own)
        own.set_defaults(run=command.run)
    return top
