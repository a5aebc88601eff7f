"""Every strategy on held-out problems: accuracy and cost, with the embedded models or any servers.

    python benchmarks/strategies.py --problems 100 --seeds 5 --n 4 16 64 --log strategies.jsonl

Each finished search is a line of the log; the same command goes on where it was stopped, and prints the table of what is
there. Budgets below the largest are sub-sampled from it where candidates do not depend on each other (majority,
best-of-N, self-verify, DVTS, self-refine): their policy tokens are counted, the rest of their cost is the share k/n.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
from collections import defaultdict
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import asearch
from asearch.embedded import embedded_problems, embedded_server, embedded_servers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator

# The larger sibling of the embedded policy is in the repository, not in the wheel.
LARGER = Path(__file__).parents[1] / "backends/asearch_backends/embedded/models/policy-large"
COSTS = ("policy_tokens", "prm_tokens", "requests", "seconds")


@dataclass(frozen=True)
class Row:
    """A line of the table as a strategy value: how it is run, and whether smaller budgets are parts of that run."""

    label: str
    strategy: asearch.Strategy
    parts: bool = False
    selects: tuple[str, ...] = ()  # further ways to count the same samples


def rows(n: int, width: int) -> list[Row]:
    """All strategies at one budget."""
    tree = {"n": n, "width": min(width, n)}
    return [
        Row("best-of-N", asearch.BestOfN(n=n, early_stop=False), parts=True, selects=("majority", "best")),
        Row("beam search", asearch.BeamSearch(**tree)),
        Row("beam search, lookahead 1", asearch.BeamSearch(**tree, lookahead=1)),
        Row("DVTS", asearch.DVTS(**tree), parts=True),
        Row("DVTS, lookahead 1", asearch.DVTS(**tree, lookahead=1), parts=True),
        Row("particle filter", asearch.ParticleFilter(n=n)),
        Row("particle Gibbs, 2 iterations", asearch.ParticleFilter(n=n, iterations=2)),
        Row("REBASE", asearch.Rebase(n=n)),
        Row("self-refine, 2 revisions", asearch.SelfRefine(n=n, revisions=2), parts=True),
        Row("self-verify", asearch.SelfVerify(n=n, early_stop=False), parts=True),
    ]


def runs(budgets: list[int], width: int, only: list[str]) -> Iterator[Row]:
    """What has to be run: greedy once, each strategy at its largest budget, and at the smaller ones where it must."""
    yield Row("greedy", asearch.Greedy())
    for n in sorted(budgets, reverse=True):
        for row in rows(n, width):
            if (n == max(budgets) or not row.parts) and (not only or row.label in only):
                yield row


def main() -> None:
    """Run what is not in the log yet, then print the table."""
    arguments = parse()
    log = Path(arguments.log)
    done = {(line["label"], line["n"], line["seed"], line["problem"]) for line in read(log)}
    dataset = None if arguments.dataset is None else read_dataset(Path(arguments.dataset))
    with log.open("a") as file:
        if log.stat().st_size and not log.read_text().endswith("\n"):
            file.write("\n")  # after a crash in the middle of a line
        asyncio.run(run(arguments, dataset, done, file))
    print(table(list(read(log))))


async def run(
    arguments: argparse.Namespace, dataset: list[tuple[str, str]] | None, done: set[tuple[Any, ...]], log: TextIO
) -> None:
    """Search, and write a line to the log for each problem, seed and strategy that is not done."""
    async with AsyncExitStack() as stack:
        policy, prm = arguments.policy, arguments.prm
        if policy is None:
            servers = await stack.enter_async_context(embedded_servers())
            policy, prm = servers.policy, servers.prm
        workers = await stack.enter_async_context(asearch.AnswerWorkers())
        problems = (dataset or await embedded_problems(arguments.problems, arguments.problem_seed))[
            : arguments.problems
        ]
        if arguments.policy is None and LARGER.exists():
            larger = await stack.enter_async_context(embedded_server("policy-large"))
            row = Row("greedy, policy of 4 times the size", asearch.Greedy())
            await run_row(row, larger, None, problems, workers, arguments, done, log)
        for row in runs(arguments.n, arguments.width, arguments.only):
            await run_row(row, policy, prm, problems, workers, arguments, done, log)


async def run_row(
    row: Row,
    policy: str,
    prm: str | None,
    problems: list[tuple[str, str]],
    workers: asearch.AnswerWorkers,
    arguments: argparse.Namespace,
    done: set[tuple[Any, ...]],
    log: TextIO,
) -> None:
    """One strategy at one budget, with every seed; greedy decoding has but one."""
    for seed in range(arguments.seeds if row.strategy.temperature > 0 else 1):
        todo = [i for i in range(len(problems)) if (row.label, row.strategy.n, seed, i) not in done]
        async for line in searched(row, policy, prm, problems, todo, seed, workers, arguments):
            log.write(json.dumps(line) + "\n")
            log.flush()
        print(f"{row.label}, n={row.strategy.n}, seed {seed}: done", file=sys.stderr)


def read_dataset(file: Path) -> list[tuple[str, str]]:
    """Problems and reference answers from a JSONL file."""
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    return [(line["problem"], line["answer"]) for line in lines]


async def searched(
    row: Row,
    policy: str,
    prm: str | None,
    problems: list[tuple[str, str]],
    todo: list[int],
    seed: int,
    workers: asearch.AnswerWorkers,
    arguments: argparse.Namespace,
) -> AsyncIterator[dict[str, Any]]:
    """One line for the log per problem."""
    asked = [asearch.Problem(problems[i][0], id=str(i)) for i in todo]
    results = asearch.solve_all(row.strategy, policy, prm, asked, at_once=arguments.at_once, seed=seed, workers=workers)
    async for result in results:
        i = int(result.problem.id)
        outcomes = [
            {"label": label, "k": k, "right": await workers.grade(part.answer, problems[i][1]), **cost}
            for label, k, part, cost in parts_of(row, result, arguments.n)
        ]
        yield {"label": row.label, "n": row.strategy.n, "seed": seed, "problem": i, "outcomes": outcomes}


def parts_of(
    row: Row, result: asearch.Result, budgets: Iterable[int]
) -> Iterator[tuple[str, int, asearch.Result, dict[str, float]]]:
    """What one run says about the strategy at each budget, and about other ways to count the same samples."""
    n = row.strategy.n
    whole = result.stopped_by is None and not result.errors
    singles = {1} if row.selects else set()
    for k in sorted({n, *budgets, *singles}):
        if k != n and not (row.parts and whole and k < n):
            continue
        part = result.at(k) if k != n else result
        cost = {name: getattr(result.usage, name) * k / n for name in COSTS}
        cost["requests"] += result.usage.prm_requests * k / n
        if k != n:
            cost["policy_tokens"] = sum(node.path.step.tokens for node in part.tree.nodes if node.path.step)
        name = row.label if not row.selects else f"{row.label}, {part.strategy['select']}"
        yield name, k, part, cost
        for select in row.selects if part.paths else ():
            free = {**cost, "prm_tokens": 0, "requests": k} if select == "majority" else cost
            yield select_name(row, select), k, part.voted(select), free


def select_name(row: Row, select: str) -> str:
    """How a way to count is called in the table."""
    return "majority" if select == "majority" else f"{row.label}, {select}"


def read(log: Path) -> Iterator[dict[str, Any]]:
    """The lines of a log; one that was cut off by a crash is left out."""
    if log.exists():
        for line in log.read_text().splitlines():
            try:
                yield json.loads(line)
            except json.JSONDecodeError:
                print("a broken line of the log is left out", file=sys.stderr)


def table(lines: list[dict[str, Any]]) -> str:
    """Accuracy (mean over seeds, and its standard deviation between them) and cost per problem, as Markdown."""
    found: dict[tuple[str, int], dict[int, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for line in lines:
        for outcome in line["outcomes"]:
            found[outcome["label"], outcome["k"]][line["seed"]].append(outcome)
    head = (
        "| strategy | n | accuracy % | ± between seeds | policy tokens | PRM tokens | requests | seconds | searches |"
    )
    ruler = "|---|---:|---:|---:|---:|---:|---:|---:|---:|"
    return "\n".join([head, ruler, *(table_row(*key, found[key]) for key in sorted(found, key=order))])


def order(key: tuple[str, int]) -> tuple[bool, int, str]:
    """Greedy first, then by budget."""
    label, n = key
    return not label.startswith("greedy"), n, label


def table_row(label: str, n: int, seeds: dict[int, list[dict[str, Any]]]) -> str:
    """One line of the table."""
    accuracies = [100 * statistics.fmean(outcome["right"] for outcome in outcomes) for outcomes in seeds.values()]
    everything = [outcome for outcomes in seeds.values() for outcome in outcomes]
    spread = statistics.stdev(accuracies) if len(accuracies) > 1 else 0.0
    policy, prm, requests, seconds = (statistics.fmean(outcome[name] for outcome in everything) for name in COSTS)
    return (
        f"| {label} | {n} | {statistics.fmean(accuracies):.1f} | {spread:.1f} | {policy:,.0f} | {prm:,.0f} "
        f"| {requests:.1f} | {seconds:.2f} | {len(everything)} |"
    )


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--n", type=int, nargs="+", default=[4, 16, 64])
    parser.add_argument("--width", type=int, default=4, help="M of beam search and DVTS")
    parser.add_argument("--only", nargs="*", default=[], help="names of strategies, as in the table")
    parser.add_argument("--at-once", type=int, default=8, help="searches at the same time")
    parser.add_argument("--log", default="strategies.jsonl")
    parser.add_argument("--policy", help="URL of the policy (the embedded servers are started without it)")
    parser.add_argument("--prm", help="URL of the PRM")
    parser.add_argument("--dataset", help="a JSONL file with problem and answer, instead of embedded problems")
    parser.add_argument("--problem-seed", type=int, default=0)
    arguments = parser.parse_args()
    wrong = [n for n in arguments.n if n % 2 or n % min(arguments.width, n)]
    if wrong:
        parser.error(f"budgets must be even and multiples of the width {arguments.width}, not {wrong}")
    if (arguments.policy is None) != (arguments.prm is None):
        parser.error("pass both --policy and --prm, or neither")
    arguments.n = sorted(set(arguments.n))
    return arguments


if __name__ == "__main__":
    main()
