"""Makes the embedded models: ``python -m asearch_backends.training all``."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path


def main(arguments: list[str] | None = None) -> int:
    """Runs the stages that were asked for, in their order."""
    try:
        import torch

        from asearch_backends.training.stages import MODELS, STAGES, THREADS, Plan, Workshop
    except ModuleNotFoundError as error:
        print(f"training needs {error.name}: pip install 'asearch[train]'", file=sys.stderr)
        return 1
    options = parser(list(STAGES), MODELS).parse_args(arguments)
    options.work.mkdir(parents=True, exist_ok=True)
    options.out.mkdir(parents=True, exist_ok=True)
    workshop = Workshop(options.work, options.out, options.seed, Plan().scaled(options.scale))
    for name in list(STAGES) if options.stage == "all" else [options.stage]:
        started = time.monotonic()
        print(f"--- {name}", flush=True)
        torch.set_num_threads(options.threads or THREADS.get(name, 1))
        STAGES[name](workshop)
        print(f"--- {name} took {time.monotonic() - started:.0f} s", flush=True)
    return 0


def parser(stages: list[str], models: Path) -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser("python -m asearch_backends.training", description="Makes the embedded models.")
    made.add_argument("stage", nargs="?", default="all", choices=[*stages, "all"], help="what to make (default: all)")
    made.add_argument("--seed", type=int, default=0, help="0 made the shipped models")
    made.add_argument("--out", type=Path, default=models, help="where the models go (default: the package data)")
    made.add_argument("--work", type=Path, default=Path("runs/training"), help="where intermediate files go")
    made.add_argument("--scale", type=float, default=1.0, help="all sizes times this: 0.01 rehearses in a minute")
    made.add_argument("--threads", type=int, help="CPU threads (by default as many as made the shipped models)")
    return made


if __name__ == "__main__":
    sys.exit(main())
