"""`asearch doctor`: what is wrong with a policy and a verifier, and what to do about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson
from rich.console import Console
from rich.markup import escape

from asearch.cli.options import add_servers, run_async
from asearch.embedded import embedded_servers
from asearch.errors import UsageError

if TYPE_CHECKING:
    import argparse

    from asearch.doctor import Finding, Report
    from asearch.doctor.report import Status

NAME = "doctor"
HELP = "examine a policy and a PRM server before they cost an evening"
STYLES: dict[Status, str] = {"pass": "green", "warn": "yellow", "fail": "red"}
INDENT = 24  # of what was found
TITLES = {"policy": "policy", "prm": "verifier"}


def add_arguments(command: argparse.ArgumentParser) -> None:
    """The servers, and the form of the output."""
    add_servers(command)
    command.add_argument("--patience", type=float, default=120.0, metavar="S", help="seconds for each check (120)")
    command.add_argument("--json", action="store_true", help="the findings as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Examine; status 1 where a check failed."""
    if not arguments.embedded and not arguments.policy and not arguments.prm:
        raise UsageError("nothing to examine: pass --policy URL, --prm URL, or --embedded")
    if arguments.embedded and (arguments.policy or arguments.prm):
        raise UsageError("--embedded brings its own servers: leave out --policy and --prm")
    if not arguments.patience > 0:
        raise UsageError(f"--patience is in seconds and must be above 0, not {arguments.patience:g}")
    report: Report = run_async(_examine(arguments))
    if arguments.json:
        print(orjson.dumps(report.to_json(), option=orjson.OPT_INDENT_2).decode())
    return 0 if report.healthy else 1


async def _examine(arguments: argparse.Namespace) -> Report:
    if not arguments.embedded:
        return await _diagnose(arguments, arguments.policy, arguments.prm)
    async with embedded_servers() as servers:
        return await _diagnose(arguments, servers.policy, servers.prm)


async def _diagnose(arguments: argparse.Namespace, policy: str | None, prm: str | None) -> Report:
    from asearch.doctor import diagnose

    printer = Printer(Console(highlight=False))
    report = await diagnose(
        policy,
        prm,
        policy_model=arguments.policy_model,
        prm_model=arguments.prm_model,
        prm_family=arguments.prm_family,
        patience=arguments.patience,
        tell=None if arguments.json else printer.show,
    )
    if not arguments.json:
        printer.end(report)
    return report


class Printer:
    """Findings as they are made, a heading before each server."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._server = ""

    def show(self, finding: Finding) -> None:
        """One finding, and what to do about it on the next line."""
        if finding.server != self._server:
            self._console.print(f"{self._server and chr(10)}[bold]{TITLES[finding.server]}[/bold]")
            self._server = finding.server
        style = STYLES[finding.status]
        lines = [finding.found, *([f"→ {finding.advice}"] if finding.advice and finding.status != "pass" else [])]
        for i, line in enumerate(lines):
            head = f"[{style}]{finding.status:<4}[/{style}]  {finding.check:<18}" if i == 0 else " " * INDENT
            self._hanging(head, line)

    def _hanging(self, head: str, line: str) -> None:
        """A line that goes on under its own beginning where the terminal is too narrow."""
        width = max(30, self._console.width - INDENT - 2)
        words, row = line.split(), ""
        for word in words:
            if row and len(row) + 1 + len(word) > width:
                self._console.print(f"  {head}{escape(row)}", soft_wrap=True)
                head, row = " " * INDENT, word
            else:
                row = f"{row} {word}" if row else word
        self._console.print(f"  {head}{escape(row)}", soft_wrap=True)

    def end(self, report: Report) -> None:
        """The sum of it."""
        counts = ", ".join(f"{report.count(status)} {status}" for status in STYLES if report.count(status))
        self._console.print(f"\n{counts}")
