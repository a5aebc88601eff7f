"""`asearch solve`: search for the answer to one problem."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson
from rich.console import Console

from asearch.calls import solve
from asearch.cli.options import add_servers, add_strategy, check_servers, chosen_servers, chosen_strategy, run_async
from asearch.display import search_tree, vote_table
from asearch.errors import UsageError
from asearch.usage import Budget

if TYPE_CHECKING:
    import argparse

    from asearch.result import Result

NAME = "solve"
HELP = "search for the answer to one problem"


def add_arguments(command: argparse.ArgumentParser) -> None:
    """The problem, the servers, the strategy, the budget, the form of the output."""
    command.add_argument("problem", help="the question")
    add_servers(command)
    add_strategy(command)
    limits = command.add_argument_group("limits")
    limits.add_argument("--budget-tokens", type=int, metavar="N", help="stop after so many policy and PRM tokens")
    limits.add_argument("--budget-seconds", type=float, metavar="S", help="stop after so long")
    limits.add_argument("--budget-requests", type=int, metavar="N", help="stop after so many requests")
    output = command.add_argument_group("output")
    output.add_argument("--json", action="store_true", help="the whole result as JSON")
    output.add_argument("--tree", action="store_true", help="the explored tree")


def run(arguments: argparse.Namespace) -> int:
    """Search, and show what was found; status 1 where there is no answer."""
    result = run_async(_solve(arguments))
    if arguments.json:
        print(orjson.dumps(result.to_json(), option=orjson.OPT_INDENT_2).decode())
    else:
        show(result, tree=arguments.tree)
    return 0 if result.answer is not None else 1


async def _solve(arguments: argparse.Namespace) -> Result:
    strategy = chosen_strategy(arguments)
    strategy.check()
    check_servers(arguments)
    if not arguments.embedded and strategy.needs_prm and arguments.prm is None:
        raise UsageError(f"{strategy.name} needs a PRM: pass --prm URL, or use --strategy majority")
    budget = Budget(arguments.budget_tokens, arguments.budget_seconds, arguments.budget_requests)
    async with chosen_servers(arguments) as servers:
        return await solve(strategy, servers.client, servers.prm, arguments.problem, seed=arguments.seed, budget=budget)


def show(result: Result, *, tree: bool) -> None:
    """A result for people: the winning solution, the answer, and why."""
    console = Console(highlight=False)
    if tree:
        console.print(search_tree(result, width=console.width - 24))
        console.print()
    console.print(result.text.strip(), markup=False)
    score = "" if result.score is None else f"  (score {result.score:.3f})"
    console.print(f"\n[bold]answer: [/bold]{result.answer}{score}\n")
    console.print(vote_table(result))
    usage = result.usage
    stopped = f", stopped by {result.stopped_by}" if result.stopped_by else ""
    console.print(
        f"\n{usage.policy_tokens:,} policy tokens, {usage.prm_tokens:,} PRM tokens, "
        f"{usage.requests + usage.prm_requests} requests, {usage.seconds:.2f} s{stopped}"
    )
