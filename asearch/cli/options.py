"""What several commands share: the options for servers and strategies, and how a coroutine is run."""

from __future__ import annotations

import argparse
import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from asearch.calls import as_strategy
from asearch.client import as_client
from asearch.concurrency import first_failure
from asearch.embedded import embedded_servers
from asearch.errors import UsageError
from asearch.prm import as_prm

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine

    from asearch.client import Client
    from asearch.prm import PRM
    from asearch.strategies import Strategy

STRATEGY_OPTIONS = ("n", "width", "depth", "lookahead", "temperature", "max_tokens", "reduction", "select")


@dataclass(frozen=True, slots=True)
class Servers:
    """The policy and the verifier that the options name, open."""

    client: Client
    prm: PRM | None


def add_debug(command: argparse.ArgumentParser) -> None:
    """Accept --debug after the command, too."""
    command.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)


def add_servers(command: argparse.ArgumentParser) -> None:
    """The options that say where policy and verifier are."""
    servers = command.add_argument_group("servers")
    servers.add_argument("--embedded", action="store_true", help="start the embedded policy and PRM for this command")
    servers.add_argument(
        "--policy",
        metavar="URL",
        help="the policy server, such as http://localhost:8000; replicas: with commas between, file:LIST, dns+http://NAME:PORT",
    )
    servers.add_argument("--policy-model", metavar="NAME", help="served model name (the server's first)")
    servers.add_argument("--prm", metavar="URL", help="the process reward model's server (or replicas)")
    servers.add_argument("--prm-model", metavar="NAME", help="served model name (the server's first)")
    servers.add_argument("--prm-family", metavar="NAME", help="how the PRM reads a solution")


def check_servers(arguments: argparse.Namespace) -> None:
    """Refuse server options that contradict each other, before anything is started."""
    if not arguments.embedded and arguments.policy is None:
        raise UsageError("no policy: pass --policy URL (and --prm URL), or --embedded")
    if arguments.embedded and (arguments.policy or arguments.prm):
        raise UsageError("--embedded brings its own servers: leave out --policy and --prm")


@asynccontextmanager
async def chosen_servers(arguments: argparse.Namespace) -> AsyncIterator[Servers]:
    """The servers that the options name, started where they are embedded, and closed at the end of the block."""
    check_servers(arguments)
    if arguments.embedded:
        async with embedded_servers() as running, _connected(arguments, running.policy, running.prm) as servers:
            yield servers
    else:
        async with _connected(arguments, arguments.policy, arguments.prm) as servers:
            yield servers


@asynccontextmanager
async def _connected(arguments: argparse.Namespace, policy: Any, prm: Any) -> AsyncIterator[Servers]:
    client = as_client(policy, model=arguments.policy_model)
    try:
        options = {"model": arguments.prm_model, "family": arguments.prm_family}
        verifier = as_prm(prm, **{k: v for k, v in options.items() if v is not None}) if prm else None
        try:
            yield Servers(client, verifier)
        finally:
            if verifier is not None:
                await verifier.aclose()
    finally:
        await client.aclose()


def add_strategy(command: argparse.ArgumentParser) -> None:
    """The options that say how to search."""
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


def chosen_strategy(arguments: argparse.Namespace) -> Strategy:
    """The strategy that the options describe; an option that it does not have is refused."""
    given = {name: getattr(arguments, name) for name in STRATEGY_OPTIONS if getattr(arguments, name) is not None}
    strategy = as_strategy(arguments.strategy)
    has = {field.name for field in fields(strategy)}
    for name in given.keys() - has:
        raise UsageError(f"{strategy.name} has no --{name.replace('_', '-')}")
    return as_strategy(strategy, **given)


def run_async(work: Coroutine[Any, Any, Any]) -> Any:
    """asyncio.run, with the first plain failure instead of a group of them."""
    try:
        return asyncio.run(work)
    except BaseExceptionGroup as group:
        raise first_failure(group) from None
