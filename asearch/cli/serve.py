"""`asearch serve`: an OpenAI-compatible server in front of a policy and a verifier."""

from __future__ import annotations

import ipaddress
import logging
import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from asearch.cli.options import add_servers, check_servers, chosen_servers, run_async
from asearch.errors import UsageError
from asearch.plan import read_plan

if TYPE_CHECKING:
    import argparse

    from asearch.proxy import Proxy, ProxyOptions

NAME = "serve"
HELP = "an OpenAI-compatible server whose models are searches"


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Servers behind, the address in front, limits."""
    add_servers(command)
    front = command.add_argument_group("address and access")
    front.add_argument("--host", default="127.0.0.1", help="to listen on (127.0.0.1: this machine only)")
    front.add_argument("--port", type=int, default=8080, help="to listen on; 0 takes a free one (8080)")
    front.add_argument(
        "--api-key-file", type=Path, metavar="FILE", help="one key per line; or ASEARCH_API_KEYS=key,key"
    )
    command.add_argument("--plan", type=Path, metavar="FILE", help="of compute-optimal, made by `asearch plan`")
    limits = command.add_argument_group("limits")
    limits.add_argument("--budgets", default="4,16,64", metavar="N,N", help="values of n that are listed (4,16,64)")
    limits.add_argument("--max-n", type=int, default=256, help="largest n that may be asked for (256)")
    limits.add_argument("--max-choices", type=int, default=8, help="choices in one request, a search each (8)")
    limits.add_argument("--max-concurrent", type=int, default=32, metavar="N", help="searches at once (32)")
    limits.add_argument(
        "--max-waiting", type=int, default=256, metavar="N", help="searches that may wait; then 429 (256)"
    )
    limits.add_argument("--max-body", type=int, default=2**20, metavar="BYTES", help="of a request (1048576)")
    limits.add_argument("--max-seconds", type=float, default=600, metavar="S", help="of a request (600)")
    limits.add_argument("--grace", type=float, default=30, metavar="S", help="for searches under way at SIGTERM (30)")
    output = command.add_argument_group("output")
    output.add_argument("--json", action="store_true", help="say where it listens as one line of JSON")
    output.add_argument("--log-level", choices=("debug", "info", "warning", "error"), default="warning")


def run(arguments: argparse.Namespace) -> int:
    """Serve until SIGTERM or Ctrl-C."""
    check_servers(arguments)
    if find_spec("prometheus_client") is None:
        raise UsageError("the proxy needs the extra: pip install 'asearch[serve]'")
    options = chosen_options(arguments)
    logging.basicConfig(
        stream=sys.stderr, level=arguments.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    if not options.keys and not is_loopback(arguments.host):
        print(
            f"warning: no API keys: whoever reaches {arguments.host} can search here (--api-key-file)", file=sys.stderr
        )
    run_async(_serve(arguments, options))
    return 0


async def _serve(arguments: argparse.Namespace, options: ProxyOptions) -> None:
    from asearch.proxy import run_until_stopped

    def announce(url: str, proxy: Proxy) -> None:
        models, keys = proxy.catalogue.models, len(options.keys)
        if arguments.json:
            print(orjson.dumps({"url": url, "models": models, "keys": keys}).decode(), flush=True)
        else:
            access = f"{keys} API key{'s'[: keys != 1]}" if keys else "no API key"
            print(f"asearch serves {len(models)} models at {url}/v1 ({access}); Ctrl-C stops it", flush=True)

    async with chosen_servers(arguments) as servers:
        await run_until_stopped(
            servers.client,
            servers.prm,
            options,
            host=arguments.host,
            port=arguments.port,
            grace=arguments.grace,
            announce=announce,
        )


def chosen_options(arguments: argparse.Namespace) -> ProxyOptions:
    """The limits and keys that the options name, checked.

    Raises:
        UsageError: one of them makes no sense.
    """
    from asearch.proxy import ProxyOptions, load_keys

    if not 0 <= arguments.port < 2**16:
        raise UsageError(f"--port must be between 0 and 65535, not {arguments.port}")
    for name in ("max_n", "max_choices", "max_concurrent", "max_body"):
        if getattr(arguments, name) < 1:
            raise UsageError(f"--{name.replace('_', '-')} must be at least 1, not {getattr(arguments, name)}")
    for name in ("max_waiting", "grace"):
        if not getattr(arguments, name) >= 0:
            raise UsageError(f"--{name.replace('_', '-')} must be at least 0, not {getattr(arguments, name)}")
    if not arguments.max_seconds > 0:
        raise UsageError(f"--max-seconds must be above 0, not {arguments.max_seconds}")
    return ProxyOptions(
        keys=load_keys(arguments.api_key_file, os.environ),
        budgets=parsed_budgets(arguments.budgets, arguments.max_n),
        max_n=arguments.max_n,
        max_choices=arguments.max_choices,
        max_concurrent=arguments.max_concurrent,
        max_waiting=arguments.max_waiting,
        max_body=arguments.max_body,
        max_seconds=arguments.max_seconds,
        plan=None if arguments.plan is None else read_plan(arguments.plan),
    )


def parsed_budgets(text: str, most: int) -> tuple[int, ...]:
    """The budgets of a list such as 4,16,64.

    Raises:
        UsageError: it is no such list, or goes beyond what may be asked for.
    """
    try:
        budgets = tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError:
        raise UsageError(f"--budgets must be whole numbers with commas between them, not {text!r}") from None
    if budgets[0] < 1 or budgets[-1] > most:
        raise UsageError(f"--budgets must lie between 1 and --max-n={most}, not {text!r}")
    return budgets


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
