"""Server-sent events, to a reader who may be slow, or gone."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from aiohttp import web

from asearch.proxy.replies import DONE, server_sent

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asearch.proxy.errors import ApiError

QUIET_SECONDS = 10.0  # after which a comment shows that the connection lives: gateways close silent ones
WRITE_SECONDS = 60.0  # a reader who takes nothing for so long is gone

HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",  # nginx would gather the events
}


class EventStream:
    """The reply of a streaming request; its head is sent with the first event, so that a failure before has a status.

    Args:
        http: the request.
        headers: of the reply, besides those of every stream.
    """

    def __init__(self, http: web.Request, headers: Mapping[str, str]) -> None:
        self._http = http
        self.response = web.StreamResponse(headers={**HEADERS, **headers})

    @property
    def begun(self) -> bool:
        return self.response.prepared

    async def say(self, *events: dict[str, Any]) -> None:
        """Send events, together."""
        await self._write(b"".join(map(server_sent, events)))

    async def still_here(self) -> None:
        """Send a comment, which clients skip."""
        await self._write(b": searching\n\n")

    async def end(self) -> None:
        """Close the stream in good order."""
        await self._write(DONE)
        await self.response.write_eof()

    async def fail(self, refusal: ApiError) -> None:
        """Tell of a failure in the middle of the stream."""
        await self.say(refusal.body)
        await self.end()

    def abort(self) -> None:
        """Close the connection at once."""
        if self._http.transport is not None:
            self._http.transport.abort()

    async def _write(self, data: bytes) -> None:
        async with asyncio.timeout(WRITE_SECONDS):
            if not self.begun:
                await self.response.prepare(self._http)
            await self.response.write(data)


class Thoughts:
    """Lines of progress on their way from the searches to the stream, gathered while the stream is busy."""

    def __init__(self) -> None:
        self._lines: dict[int, list[str]] = {}
        self._news = asyncio.Event()

    def tell(self, index: int, line: str) -> None:
        """Add a line to a choice."""
        self._lines.setdefault(index, []).append(line)
        self._news.set()

    def take(self) -> dict[int, str]:
        """All new lines by choice, in the order of the choices."""
        lines, self._lines = self._lines, {}
        self._news.clear()
        return {index: "".join(lines[index]) for index in sorted(lines)}

    async def wait(self, task: asyncio.Task[Any]) -> bool:
        """Wait for news or for the end of the task; False where it has been quiet for too long."""
        news = asyncio.ensure_future(self._news.wait())
        try:
            done, _ = await asyncio.wait({news, task}, timeout=QUIET_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        finally:
            news.cancel()
        return bool(done)
