"""`asearch export`: training data for TRL from a run."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from asearch.errors import AsearchError

if TYPE_CHECKING:
    import argparse

NAME = "export"
HELP = "training data from a run: right solutions, preferences, steps with labels, as TRL reads them"


def add_arguments(command: argparse.ArgumentParser) -> None:
    """The run, the format, and what to leave out."""
    command.add_argument("source", metavar="RUN", type=Path, help="the folder of a run")
    command.add_argument("--format", choices=("sft", "preference", "stepwise"), required=True)
    command.add_argument("--out", type=Path, metavar="FILE", help="a JSONL file (RUN/FORMAT.jsonl)")
    command.add_argument("--max-per-problem", type=int, metavar="K", help="rows per problem at most (all)")
    command.add_argument("--min-score", type=float, metavar="S", help="least value of a right solution (any)")
    command.add_argument("--siblings", action="store_true", help="preference: kept steps against pruned siblings")
    command.add_argument("--min-margin", type=float, default=0.0, metavar="S", help="of siblings' scores (0)")


def run(arguments: argparse.Namespace) -> int:
    """Write the rows to a file, which is there whole or not at all."""
    from asearch.export import export

    out = arguments.out or arguments.source / f"{arguments.format}.jsonl"
    rows = export(
        arguments.source,
        arguments.format,
        most=arguments.max_per_problem,
        least=arguments.min_score,
        margin=arguments.min_margin,
        siblings=arguments.siblings,
    )
    beside = out.with_name(f".{out.name}.{os.getpid()}")
    written = 0
    try:
        with beside.open("wb") as file:
            for row in rows:
                file.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
                written += 1
        if written:
            beside.replace(out)
    finally:
        beside.unlink(missing_ok=True)
    if not written:
        raise AsearchError(f"no row came of it: {arguments.source} holds nothing that fits these options")
    print(f"{written} rows in {out}", file=sys.stderr)
    return 0
