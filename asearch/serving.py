"""What the HTTP servers of this project have in common: how they listen, and how they read the body of a request."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

BODY_SECONDS = 60.0  # for the body of a request to arrive
BACKLOG = 1024


class BodyError(Exception):
    """A body that cannot be read, and why; `status` is that of the reply."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


async def read_body(http: web.Request) -> bytes:
    """The body of a request, as it was sent.

    A compressed one is refused unseen, since a small one can become a large one. The application must be listening by
    `listening`, or aiohttp decompresses before anybody is asked; by version 3.14 it then waits for ever for the end of
    two bytes that are said to be deflated and are not.

    Raises:
        BodyError: it is compressed (415), does not arrive in time (408), or is shorter than was said (400).
        web.HTTPRequestEntityTooLarge: it is larger than the application takes.
    """
    codings = http.headers.getall("Content-Encoding", [])
    if any(coding.strip().lower() not in ("", "identity") for coding in codings):
        raise BodyError("the body must not be compressed: send it without Content-Encoding", 415)
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await http.read()
    except TimeoutError:
        raise BodyError(f"the body did not arrive within {BODY_SECONDS:g} s", 408) from None
    except web.RequestPayloadError:
        raise BodyError("the body ended before its length, as the headers give it", 400) from None


@asynccontextmanager
async def listening(
    app: web.Application, host: str = "127.0.0.1", port: int = 0, *, backlog: int = BACKLOG, **options: Any
) -> AsyncIterator[web.AppRunner]:
    """Accept connections inside the block; who leaves has his request cancelled, and bodies stay as they were sent.

    Args:
        app: with its routes.
        host: to listen on.
        port: to listen on; 0 takes a free one.
        backlog: connections that may wait to be accepted.
        **options: further arguments for `web.AppRunner`.

    Raises:
        OSError: somebody else listens there, or it is no address of this machine.
    """
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None, auto_decompress=False, **options)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port, backlog=backlog).start()
        yield runner
    finally:
        await runner.cleanup()


def url_of(runner: web.AppRunner) -> str:
    """The base URL of an application that is listening."""
    name, number = runner.addresses[0][:2]
    return f"http://[{name}]:{number}" if ":" in name else f"http://{name}:{number}"
