"""An aiohttp session without sockets: requests go to simulated servers by their host.

So everything above the wire is the library as it is: clients, limits, retries, replicas, batches, JSON.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

import aiohttp
import orjson

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping
    from typing import Protocol

    class Server(Protocol):
        async def answer(self, route: str, body: dict[str, Any]) -> dict[str, Any] | str: ...


@contextmanager
def network(servers: Mapping[str, Server]) -> Iterator[None]:
    """Lead every aiohttp session that is opened inside the block to these servers, by host name."""

    class Session:
        def __init__(self, *_: object, connector: aiohttp.BaseConnector | None = None, **__: object) -> None:
            self.closed = False
            self._connector = connector

        async def close(self) -> None:
            self.closed = True
            if self._connector is not None:
                await self._connector.close()

        def request(self, _method: str, url: str, *, data: bytes | None = None, **__: object) -> _Exchange:
            return _Exchange(servers, str(url), data)

        def get(self, url: str, **options: Any) -> _Exchange:
            return self.request("GET", url, **options)

        def post(self, url: str, **options: Any) -> _Exchange:
            return self.request("POST", url, **options)

    real, aiohttp.ClientSession = aiohttp.ClientSession, Session  # type: ignore[misc,assignment]
    try:
        yield
    finally:
        aiohttp.ClientSession = real  # type: ignore[misc]


class _Exchange:
    """A request and its reply."""

    def __init__(self, servers: Mapping[str, Server], url: str, data: bytes | None) -> None:
        where = urlsplit(url)
        self._server = servers[where.hostname or ""]
        self._route = where.path
        self._data = data
        self._reply = b""
        self.status = 200
        self.headers: dict[str, str] = {}

    def __await__(self) -> Generator[Any, None, Self]:
        return self.__aenter__().__await__()

    async def __aenter__(self) -> Self:
        body = orjson.loads(self._data) if self._data else {}
        try:
            reply = await self._server.answer(self._route, body)
            self._reply = reply.encode() if isinstance(reply, str) else orjson.dumps(reply)
        except LookupError:
            self.status, self._reply = 404, b'{"detail": "Not Found"}'
        return self

    async def __aexit__(self, *_: object) -> None:
        """Nothing is held."""

    async def read(self) -> bytes:
        await asyncio.sleep(0)
        return self._reply

    async def json(self, **_: object) -> Any:
        return orjson.loads(self._reply)

    def release(self) -> None:
        """Nothing is held."""
