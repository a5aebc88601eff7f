"""The proxy as a process: listen, say so, and stop in good order."""

from __future__ import annotations

import asyncio
import logging
import signal
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp import web

from asearch import serving
from asearch.concurrency import together
from asearch.errors import AsearchError
from asearch.proxy.server import Proxy
from asearch.workers import AnswerWorkers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    from asearch.client import Client
    from asearch.prm import PRM
    from asearch.proxy.options import ProxyOptions

KEEP_ALIVE = 75.0  # longer than clients keep idle connections, so that it is they who close them
LAST_WORDS = 5.0  # for telling those whose searches were cut short
MALFORMED = (aiohttp.http_exceptions.HttpProcessingError, web.RequestPayloadError)


class CannotListen(AsearchError):
    """The address is taken, or not ours."""


@asynccontextmanager
async def listening(proxy: Proxy, host: str, port: int) -> AsyncIterator[tuple[str, web.AppRunner]]:
    """Accept connections inside the block; yields the base URL.

    Raises:
        CannotListen: somebody else listens there, or it is no address of this machine.
    """
    served = serving.listening(
        proxy.app(), host, port, logger=_wire_log(), keepalive_timeout=KEEP_ALIVE, shutdown_timeout=LAST_WORDS
    )
    async with AsyncExitStack() as stack:
        try:
            runner = await stack.enter_async_context(served)
        except OSError as failure:
            reason = (failure.strerror or str(failure)).rpartition(": ")[2]
            raise CannotListen(f"cannot listen on {host}:{port}: {reason}; choose another --port or --host") from None
        yield serving.url_of(runner), runner


async def run_until_stopped(
    client: Client,
    prm: PRM | None,
    options: ProxyOptions,
    *,
    host: str,
    port: int,
    grace: float,
    announce: Callable[[str, Proxy], None],
) -> None:
    """Serve until SIGTERM or SIGINT; then finish what is under way within `grace` seconds, and cancel the rest.

    A second signal ends the patience at once.

    Args:
        client: the policy.
        prm: the verifier, if there is one.
        options: limits and keys.
        host: to listen on.
        port: to listen on; 0 takes a free one.
        grace: seconds.
        announce: told the base URL when connections are accepted.
    """
    stop = _signals()
    await together(server.connect() for server in (client, prm) if server is not None)
    async with AnswerWorkers() as workers:
        proxy = Proxy(client, prm, workers, options)
        async with listening(proxy, host, port) as (url, runner):
            announce(url, proxy)
            await stop.get()
            await drain(proxy, runner, grace, stop.get())


async def drain(
    proxy: Proxy, runner: web.AppRunner, grace: float, hurry: Coroutine[Any, Any, Any] | None = None
) -> None:
    """Take no new searches, let those under way finish within `grace` seconds, and cancel what is left.

    Args:
        proxy: that is to end.
        runner: of its application.
        grace: seconds.
        hurry: ends the patience when it is done.
    """
    proxy.draining = True
    for site in tuple(runner.sites):
        await site.stop()
    waits: list[asyncio.Future[Any]] = [asyncio.ensure_future(proxy.idle())]
    if hurry is not None:
        waits.append(asyncio.ensure_future(hurry))
    await asyncio.wait(waits, timeout=grace, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()
    proxy.searches.abort()


def _signals() -> asyncio.Queue[int]:
    """SIGTERM and SIGINT, in the order in which they come."""
    loop, came = asyncio.get_running_loop(), asyncio.Queue[int]()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, came.put_nowait, number)
    return came


class _WithoutContents(logging.Filter):
    """aiohttp repeats the header that it cannot read, and that may be the one with the key."""

    def filter(self, record: logging.LogRecord) -> bool:
        failure = record.exc_info[1] if record.exc_info else None
        if failure is None or isinstance(failure, MALFORMED):
            record.msg, record.args = "a request was not HTTP (%s)", (type(failure).__name__,)
            record.exc_info, record.exc_text = None, None
        return True


def _wire_log() -> logging.Logger:
    log = logging.getLogger("asearch.proxy.http")
    if not log.filters:
        log.addFilter(_WithoutContents())
    return log
