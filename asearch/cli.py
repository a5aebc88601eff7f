"""The command line: `asearch demo` and `asearch solve`.

Exit status: 0 done, 1 something failed, 2 the call was wrong, 130 stopped by Ctrl-C. Errors are one line; `--debug`
shows the traceback.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from contextlib import AsyncExitStack
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
from rich.console import Console

from asearch.calls import as_strategy, solve
from asearch.client import as_client
from asearch.concurrency import first_failure
from asearch.demo import Demo
from asearch.display import search_tree, vote_table
from asearch.embedded import check_installed, embedded_servers
from asearch.errors import AsearchError, UsageError
from asearch.prm import as_prm
from asearch.usage import Budget

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from asearch.result import Result
    from asearch.strategies import Strategy


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status."""
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
    _add_demo(commands.add_parser("demo", help="all strategies on the embedded models: no GPU, no download"))
    _add_solve(commands.add_parser("solve", help="search for the answer to one problem"))
    return top


def _add_demo(demo: argparse.ArgumentParser) -> None:
    demo.add_argument("--n", "-n", type=int, default=16, help="budget: solutions or beams per problem (16)")
    demo.add_argument("--problems", type=int, default=50, help="held-out problems (50)")
    demo.add_argument("--seed", type=int, default=0, help="of the problems and the searches (0)")
    demo.add_argument("--plot", type=Path, default=Path("asearch-demo.png"), help="where the picture goes")
    _add_debug(demo)
    demo.set_defaults(run=run_demo)


def _add_solve(command: argparse.ArgumentParser) -> None:
    command.add_argument("problem", help="the question")
    servers = command.add_argument_group("servers")
    servers.add_argument("--embedded", action="store_true", help="start the embedded policy and PRM for this search")
    servers.add_argument("--policy", metavar="URL", help="the policy server, such as http://localhost:8000")
    servers.add_argument("--policy-model", metavar="NAME", help="served model name (the server's first)")
    servers.add_argument("--prm", metavar="URL", help="the process reward model's server")
    servers.add_argument("--prm-model", metavar="NAME", help="served model name (the server's first)")
    servers.add_argument("--prm-family", metavar="NAME", help="how the PRM reads a solution")
    search = command.add_argument_group("search")
    search.add_argument("--strategy", default="dvts", help="greedy, majority, best-of-n, beam-search, dvts (dvts)")
    search.add_argument("-n", type=int, help="budget (16)")
    search.add_argument("--width", type=int, help="continuations of a kept path (4)")
    search.add_argument("--depth", type=int, help="steps at most (40)")
    search.add_argument("--lookahead", type=int, help="greedy steps to look ahead (0)")
    search.add_argument("--temperature", type=float, help="of the policy (0.8)")
    search.add_argument("--max-tokens", type=int, help="for one solution (2048)")
    search.add_argument("--reduction", help="step scores to one value: last, min, prod, mean (last)")
    search.add_argument("--select", help="candidates to one answer: weighted, majority, best")
    search.add_argument("--seed", type=int, default=0, help="same seed, same tree (0)")
    search.add_argument("--budget-tokens", type=int, metavar="N", help="stop after so many policy and PRM tokens")
    search.add_argument("--budget-seconds", type=float, metavar="S", help="stop after so long")
    search.add_argument("--budget-requests", type=int, metavar="N", help="stop after so many requests")
    output = command.add_argument_group("output")
    output.add_argument("--json", action="store_true", help="the whole result as JSON")
    output.add_argument("--tree", action="store_true", help="the explored tree")
    _add_debug(command)
    command.set_defaults(run=run_solve)


def _add_debug(command: argparse.ArgumentParser) -> None:
    """Accept --debug after the command, too."""
    command.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)


def run_demo(arguments: argparse.Namespace) -> int:
    """`asearch demo`."""
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


def run_solve(arguments: argparse.Namespace) -> int:
    """`asearch solve`."""
    result = run_async(_solve(arguments))
    if arguments.json:
        print(orjson.dumps(result.to_json(), option=orjson.OPT_INDENT_2).decode())
    else:
        show(result, tree=arguments.tree)
    return 0 if result.answer is not None else 1


def run_async(work: Coroutine[Any, Any, Any]) -> Any:
    """asyncio.run, with the first plain failure instead of a group of them."""
    try:
        return asyncio.run(work)
    except BaseExceptionGroup as group:
        raise first_failure(group) from None


async def _solve(arguments: argparse.Namespace) -> Result:
    strategy = chosen_strategy(arguments)
    strategy.check()
    policy, prm = arguments.policy, arguments.prm
    if not arguments.embedded and policy is None:
        raise UsageError("no policy: pass --policy URL (and --prm URL), or --embedded")
    if arguments.embedded and (policy or prm):
        raise UsageError("--embedded brings its own servers: leave out --policy and --prm")
    if not arguments.embedded and strategy.needs_prm and prm is None:
        raise UsageError(f"{strategy.name} needs a PRM: pass --prm URL, or use --strategy majority")
    budget = Budget(arguments.budget_tokens, arguments.budget_seconds, arguments.budget_requests)
    async with AsyncExitStack() as stack:
        if arguments.embedded:
            servers = await stack.enter_async_context(embedded_servers())
            policy, prm = servers.policy, servers.prm
        client = as_client(policy, model=arguments.policy_model)
        stack.push_async_callback(client.aclose)
        options = {"model": arguments.prm_model, "family": arguments.prm_family}
        verifier = as_prm(prm, **{k: v for k, v in options.items() if v is not None}) if prm else None
        if verifier is not None:
            stack.push_async_callback(verifier.aclose)
        return await solve(strategy, client, verifier, arguments.problem, seed=arguments.seed, budget=budget)


def chosen_strategy(arguments: argparse.Namespace) -> Strategy:
    """The strategy that the options describe; an option that it does not have is refused."""
    names = ("n", "width", "depth", "lookahead", "temperature", "max_tokens", "reduction", "select")
    given = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    strategy = as_strategy(arguments.strategy)
    has = {field.name for field in fields(strategy)}
    for name in given.keys() - has:
        raise UsageError(f"{strategy.name} has no --{name.replace('_', '-')}")
    return as_strategy(strategy, **given)


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


if __name__ == "__main__":
    sys.exit(main())
