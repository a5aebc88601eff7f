"""What the servers of this package have in common as programs: numbers on the command line, one line when they are
ready, one line when they cannot run, and an orderly stop.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import threading


def positive(text: str) -> int:
    """A whole number from 1, for argparse."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {number}")
    return number


def port(text: str) -> int:
    """A port, or 0 for a free one, for argparse."""
    number = int(text)
    if not 0 <= number < 2**16:
        raise argparse.ArgumentTypeError(f"must be between 0 and 65535, got {number}")
    return number


def add_address(parser: argparse.ArgumentParser) -> None:
    """The options that say where to listen, and for how long."""
    parser.add_argument("--host", default="127.0.0.1", help="to listen on (127.0.0.1: this machine only)")
    parser.add_argument("--port", type=port, default=0, help="0 (the default) takes a free one")
    parser.add_argument("--exit-with-parent", action="store_true", help="stop when standard input ends, too")


def announce(**facts: str) -> None:
    """Say that the server is ready: one line of JSON."""
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


def fail(program: str, message: str) -> int:
    """Say why it cannot run: one line; returns the exit status."""
    sys.stderr.write(f"{program}: {message}\n")
    return 1


def cannot_listen(host: str, number: int, failure: OSError) -> str:
    """Why an address could not be had."""
    return f"cannot listen on {host}:{number}: {failure.strerror or failure}"


def stop_event(*, with_parent: bool) -> asyncio.Event:
    """Set by SIGTERM or SIGINT, and, if asked for, at the end of standard input.

    A parent that dies closes its end of the pipe, however it dies.
    """
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if with_parent:
        threading.Thread(target=_wait_for_end_of_input, args=(loop, stop), name="parent", daemon=True).start()
    return stop


def _wait_for_end_of_input(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    while os.read(0, 4096):
        pass
    loop.call_soon_threadsafe(stop.set)
