"""One server by its address: its connections, its limit, its numbers, and whether it is up.

It keeps one aiohttp session, opened on first use. aiohttp with orjson costs a tenth of the client CPU of the openai SDK
per request (measured against vLLM 0.32), and the search sends thousands.
"""

from __future__ import annotations

import socket
import ssl
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

import orjson

from asearch.concurrency import AdaptiveLimiter
from asearch.transport.failures import StaleConnection, error_for, not_json, wire_error
from asearch.transport.stats import Counters
from asearch.transport.urls import basic_credentials, is_loopback, login_for, merge_headers, proxy_for, secrets_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    import aiohttp  # takes longer to import than the rest of the library: only when a connection is opened

    from asearch.transport.policies import Timeouts
    from asearch.transport.sources import Address

# vLLM closes idle connections at 5 s, and reusing one at that moment fails: close ours before (measured: 0 of 80 fail).
KEEP_ALIVE_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Wire:
    """What the replicas of an endpoint have in common.

    Args:
        timeouts: to connect, to read, and in all.
        headers: besides Content-Type and Authorization.
        query: query parameters for every request, besides those of the URL.
        api_key: sent as a bearer token.
        tls: an SSL context for a certificate authority of the user's own.
    """

    timeouts: Timeouts
    headers: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    api_key: str | None = None
    tls: ssl.SSLContext | None = None


class Replica:
    """One server of an endpoint.

    Args:
        address: where it is.
        wire: how it is spoken to.
        limit: sequences under way at once.
        whole: the numbers of the endpoint that it belongs to; its own are in `stats`.
    """

    def __init__(self, address: Address, wire: Wire, limit: int, whole: Counters) -> None:
        self.address = address
        self.url = address.url
        self.limiter = AdaptiveLimiter(limit)
        self.stats = Counters()
        self.books = (whole, self.stats)
        self.up = True
        self.strikes = 0  # failures in a row
        self.served = 0
        self.missed = 0  # looks in a row at the source that did not name it
        self.headers = merge_headers({"Content-Type": "application/json"}, wire.headers)
        # proxies and logins of the environment are for the world outside, as people mean them
        outside = address.ip is None and not is_loopback(address.url)
        self._proxy = proxy_for(address.url) if outside else None
        if not any(name.lower() == "authorization" for name in self.headers):
            authorization = f"Bearer {wire.api_key}" if wire.api_key else address.basic
            login = login_for(urlsplit(address.url).hostname) if outside and not authorization else None
            if authorization := basic_credentials(*login) if login else authorization:
                self.headers["Authorization"] = authorization
        query = {**dict(address.query), **wire.query}
        self._query = urlencode(query)
        self._secrets = secrets_of(self.headers, query)
        self._wire = wire
        self._session: aiohttp.ClientSession | None = None

    def __repr__(self) -> str:
        return f"Replica({self.address.name!r}, {'up' if self.up else 'down'}, {self.limiter!r})"

    @property
    def name(self) -> str:
        """What people call it."""
        return self.address.name

    async def request(self, method: str, route: str, body: bytes | None = None, *, patient: bool = True) -> Any:
        """Ask once, and return the JSON that comes back; again at once if a kept connection turned out to be closed.

        Args:
            method: of HTTP.
            route: the path below the base URL.
            body: JSON.
            patient: False gives up soon on a server that does not answer.

        Raises:
            EndpointError: whatever went wrong.
        """
        session = self._session
        try:
            return self._understand(route, *await self._once(method, route, body, patient=patient))
        except StaleConnection:
            if self._session is not session:  # closed by us meanwhile
                raise
            for stats in self.books:
                stats.reconnects += 1
            return self._understand(route, *await self._once(method, route, body, patient=patient))

    async def text(self, route: str) -> str:
        """GET a page that is not JSON."""
        status, headers, raw = await self._once("GET", route, None, patient=False)
        if status >= 300:
            raise error_for(self.url, route, status, headers, raw, hide=self.hide)
        return raw.decode("utf-8", "replace")

    async def aclose(self) -> None:
        """Close the connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def hide(self, text: str) -> str:
        """The text without keys, should a server have repeated them."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    async def _once(
        self, method: str, route: str, body: bytes | None, *, patient: bool
    ) -> tuple[int, Mapping[str, str], bytes]:
        import aiohttp

        for stats in self.books:
            stats.requests += 1
        began = False
        opened.set(False)
        session = self._session or self._open_session()
        options: dict[str, Any] = {"allow_redirects": False}
        if self._proxy is not None:
            options["proxy"] = self._proxy
        if not patient:
            t = self._wire.timeouts
            options["timeout"] = aiohttp.ClientTimeout(total=t.first, sock_connect=t.connect)
        try:
            reply = await session.request(method, self._address(route), data=body, **options)
            began = True
            return reply.status, reply.headers, await reply.read()  # to its end, which gives the connection back
        except (TimeoutError, OSError, aiohttp.ClientError, ssl.SSLError) as failure:
            error = wire_error(self.url, route, failure, began=began, reused=not opened.get())
            # the text of these two repeats the URL, with whatever stands in its query
            raise error from None if isinstance(failure, aiohttp.InvalidURL | aiohttp.ClientResponseError) else failure

    def _address(self, route: str) -> str:
        return f"{self.url}{route}?{self._query}" if self._query else f"{self.url}{route}"

    def _open_session(self) -> aiohttp.ClientSession:
        import aiohttp

        t, ip = self._wire.timeouts, self.address.ip
        self._session = aiohttp.ClientSession(
            connector=_connector(self._wire.tls, ip),
            timeout=aiohttp.ClientTimeout(total=t.total, sock_connect=t.connect, sock_read=t.read),
            headers=self.headers,
        )
        return self._session

    def _understand(self, route: str, status: int, headers: Mapping[str, str], raw: bytes) -> Any:
        if status >= 300:
            raise error_for(self.url, route, status, headers, raw, hide=self.hide)
        try:
            return orjson.loads(raw)
        except orjson.JSONDecodeError:
            raise not_json(self.url, route, status, raw) from None


# Whether the request that is under way in this context has opened a connection; if not, it was sent on a kept one.
opened: ContextVar[bool] = ContextVar("opened", default=False)


def _connector(tls: ssl.SSLContext | None, ip: str | None) -> aiohttp.TCPConnector:
    """Connections that are kept, as many as there are requests; says in `opened` when it makes a new one."""
    import aiohttp

    class Connector(aiohttp.TCPConnector):
        async def _create_connection(self, *details: Any) -> Any:  # aiohttp's hook for connectors of one's own
            opened.set(True)
            return await super()._create_connection(*details)

    return Connector(
        limit=0, keepalive_timeout=KEEP_ALIVE_SECONDS, ssl=tls or True, resolver=_pinned(ip) if ip else None
    )


def _pinned(ip: str) -> aiohttp.abc.AbstractResolver:
    """A resolver that knows one address: the Host header and the certificate stay those of the name."""
    from aiohttp.abc import AbstractResolver, ResolveResult

    class Pinned(AbstractResolver):
        async def resolve(
            self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
        ) -> list[ResolveResult]:
            del family
            version = socket.AF_INET6 if ":" in ip else socket.AF_INET
            flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
            return [ResolveResult(hostname=host, host=ip, port=port, family=version, proto=0, flags=flags)]

        async def close(self) -> None:
            """There is nothing to close."""

    return Pinned()
