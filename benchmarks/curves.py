"""The picture and the CSV of a log that `benchmarks/strategies.py` wrote: accuracy against N, a curve per strategy.

python benchmarks/curves.py strategies.jsonl --plot docs/images/accuracy.png --csv docs/images/accuracy.csv
"""

from __future__ import annotations

import argparse
import csv
import statistics
from collections import defaultdict
from pathlib import Path

from strategies import read

from asearch.plots import plot_accuracy

NAMES = {
    "majority": "majority",
    "best-of-N, weighted": "best-of-N, weighted",
    "beam search": "beam search",
    "DVTS": "DVTS",
    "particle filter": "particle filter",
}
BASELINES = {"greedy": "greedy", "greedy, policy of 4 times the size": "greedy, 4 times larger policy"}


def main() -> None:
    """Read the log, write the picture and the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("log", type=Path)
    parser.add_argument("--plot", type=Path, default=Path("accuracy.png"))
    parser.add_argument("--csv", type=Path, default=Path("accuracy.csv"))
    arguments = parser.parse_args()
    found = accuracies(arguments.log)
    curves: dict[str, dict[int, float]] = defaultdict(dict)
    bands: dict[str, dict[int, float]] = defaultdict(dict)
    for (label, n), seeds in found.items():
        if label in NAMES:
            curves[label][n] = statistics.fmean(seeds)
            bands[label][n] = statistics.stdev(seeds) if len(seeds) > 1 else 0.0
    plot_accuracy(
        arguments.plot,
        {name: curves[label] for label, name in NAMES.items() if label in curves},
        baselines={name: statistics.fmean(found[label, 1]) for label, name in BASELINES.items() if (label, 1) in found},
        bands={name: bands[label] for label, name in NAMES.items() if label in bands},
        title="Embedded models (0.2M policy, 1.2M verifier), 100 held-out problems, five seeds",
    )
    write_csv(arguments.csv, found)


def accuracies(log: Path) -> dict[tuple[str, int], list[float]]:
    """(strategy, N) -> accuracy per seed."""
    right: dict[tuple[str, int], dict[int, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for line in read(log):
        for outcome in line["outcomes"]:
            right[outcome["label"], outcome["k"]][line["seed"]].append(outcome["right"])
    return {key: [statistics.fmean(verdicts) for verdicts in seeds.values()] for key, seeds in right.items()}


def write_csv(file: Path, found: dict[tuple[str, int], list[float]]) -> None:
    """One line per strategy, budget and seed."""
    with file.open("w", newline="") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["strategy", "n", "seed", "accuracy"])
        for (label, n), seeds in sorted(found.items()):
            writer.writerows([label, n, seed, f"{accuracy:.4f}"] for seed, accuracy in enumerate(seeds))


if __name__ == "__main__":
    main()
