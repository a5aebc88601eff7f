"""The embedded servers from the library's side: start them on free loopback ports, and always stop them.

They are processes of their own, spoken to over HTTP like any other server; nothing of them is imported here.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import IO, TYPE_CHECKING, Any

import orjson

from asearch.errors import AsearchError, UsageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

NEEDED = ("numpy", "safetensors", "tokenizers", "jinja2")
START_SECONDS = 60.0
STOP_SECONDS = 5.0


class ServerFailed(AsearchError):
    """An embedded server did not come up, and says why."""


@dataclass(frozen=True, slots=True)
class EmbeddedServers:
    """The URLs of a running policy and PRM."""

    policy: str
    prm: str


@asynccontextmanager
async def embedded_servers(*, policy: str = "policy") -> AsyncIterator[EmbeddedServers]:
    """Both embedded servers, for the time of the block.

    Args:
        policy: the policy model, "policy" or a checkpoint folder.

    Raises:
        UsageError: the extra `embedded` is not installed.
        ServerFailed: a server did not come up.
    """
    async with AsyncExitStack() as stack:
        urls = [await stack.enter_async_context(embedded_server(model)) for model in (policy, "prm")]
        yield EmbeddedServers(*urls)


@asynccontextmanager
async def embedded_server(model: str, *options: str) -> AsyncIterator[str]:
    """One embedded server, for the time of the block; yields its URL."""
    check_installed()
    command = [sys.executable, "-m", "asearch_backends.embedded", "--model", model, "--exit-with-parent", *options]
    pipe = asyncio.subprocess.PIPE
    # A session of its own: Ctrl-C in the terminal reaches us alone, and we stop the server in good order.
    with tempfile.TemporaryFile() as log:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=pipe, stdout=pipe, stderr=log, start_new_session=True
        )
        try:
            yield await _ready(process, model, log)
        finally:
            await _stop(process)


async def embedded_problems(n: int, seed: int, split: str = "test") -> list[tuple[str, str]]:
    """Fresh problems of the kind that the embedded models know, as (problem, answer) pairs.

    The split "test" is disjoint from all training text, whatever the seed.
    """
    check_installed()
    options = ["problems", "--n", str(n), "--seed", str(seed), "--split", split]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "asearch_backends.embedded", *options, stdout=pipe, stderr=pipe
    )
    out, err = await process.communicate()
    if process.returncode:
        raise ServerFailed(f"no embedded problems: {_last_line(err)}")
    rows: list[dict[str, Any]] = [orjson.loads(line) for line in out.splitlines()]
    return [(row["problem"], row["answer"]) for row in rows]


def check_installed() -> None:
    """Say what to install where the extra is missing."""
    if find_spec("asearch_backends") is None or any(find_spec(name) is None for name in NEEDED):
        raise UsageError("the embedded models need the extra: pip install 'asearch[embedded]'")


async def _ready(process: asyncio.subprocess.Process, model: str, log: IO[bytes]) -> str:
    """The URL that a server prints when it is ready."""
    assert process.stdout is not None  # noqa: S101 - a pipe was asked for
    try:
        async with asyncio.timeout(START_SECONDS):
            line = await process.stdout.readline()
            if not line:
                log.seek(0)
                raise ServerFailed(f"the embedded {model} server did not start: {_last_line(log.read())}")
    except TimeoutError:
        raise ServerFailed(f"the embedded {model} server was not ready within {START_SECONDS:.0f} s") from None
    url: str = orjson.loads(line)["url"]
    return url


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await process.wait()
        except TimeoutError:
            process.kill()
    # communicate() reads the pipes to their end and closes them, so that nothing is left to the garbage collector
    await process.communicate()


def _last_line(output: bytes) -> str:
    lines = output.decode("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"
