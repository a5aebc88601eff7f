"""One endpoint is one server, with its limits, its retries and its errors.

It keeps one aiohttp session, opened on first use. aiohttp with orjson costs a tenth of the client CPU of the openai SDK
per request (measured against vLLM 0.32), and the search sends thousands.
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlencode

import orjson

from asearch.concurrency import Limiter
from asearch.errors import EndpointError, ProtocolError, RequestTimeout, Unreachable, UsageError
from asearch.transport.failures import StaleConnection, error_for, not_json, wire_error
from asearch.transport.policies import EndpointStats, Retry, Timeouts, check_limit, throttler
from asearch.transport.urls import is_loopback, merge_headers, parse_url, secrets_of
from asearch.usage import ledger

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    import aiohttp  # takes longer to import than the rest of the library: only when a connection is opened

Json = dict[str, Any]
T = TypeVar("T")

# vLLM closes idle connections at 5 s, and reusing one at that moment fails: close ours before (measured: 0 of 80 fail).
KEEP_ALIVE_SECONDS = 3.0


class Endpoint:
    """One server by its URL, with everything that all searches of a process share about it.

    Args:
        url: the base URL, with or without a trailing `/v1`.
        api_key: sent as a bearer token; never shown in errors.
        headers: further headers.
        query: query parameters for every request, besides those of the URL.
        limit: sequences under way at once (a request for n completions counts as n).
        rate: requests per second, or None.
        retry: when and how often a failed request is sent again.
        timeouts: to connect, to read, and in all.
        tls: an SSL context, for a certificate authority of your own.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
        limit: int = 512,
        rate: float | None = None,
        retry: Retry | None = None,
        timeouts: Timeouts | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.url, given_query, basic = parse_url(url)
        self.api = "/v1"  # what routes of the protocol begin with; "" on servers whose base URL is complete
        self.limiter = Limiter(check_limit(limit))
        self.retry = retry or Retry()
        self.timeouts = timeouts or Timeouts()
        self.stats = EndpointStats()
        self._query = urlencode({**given_query, **(query or {})})
        self._headers = merge_headers({"Content-Type": "application/json"}, headers or {})
        authorization = f"Bearer {api_key}" if api_key else basic
        if authorization and not any(name.lower() == "authorization" for name in self._headers):
            self._headers["Authorization"] = authorization
        self._secrets = secrets_of(self._headers, {**given_query, **(query or {})})
        self._throttle = throttler(rate)
        self._tls = tls
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def __repr__(self) -> str:
        return f"Endpoint({self.url!r})"

    async def get(self, route: str, *, patient: bool = True) -> Json:
        """GET a route and return its JSON object.

        Args:
            route: begins with a slash; `/v1/` stands for the server's own prefix.
            patient: False gives up at once on a server that cannot be reached, or does not answer its first question.
        """
        reply = await self.call(lambda: self._fresh("GET", route, None, patient=patient), units=0, patient=patient)
        return self._expect(dict, route, reply)

    async def post(self, route: str, body: Mapping[str, Any], *, units: int = 1) -> Json:
        """POST a JSON body and return the JSON object that comes back.

        Args:
            route: begins with a slash; `/v1/` stands for the server's own prefix.
            body: what is sent.
            units: sequences that count against the limit.
        """
        reply = self._expect(dict, route, await self._post(route, body, units))
        for look in self.stats.on_exchange:
            look(route, body, reply)
        return reply

    async def post_list(self, route: str, body: Mapping[str, Any], *, units: int = 1) -> list[Any]:
        """The same for a route that answers with a JSON list."""
        return self._expect(list, route, await self._post(route, body, units))

    async def call(self, send: Callable[[], Awaitable[T]], *, units: int = 1, patient: bool = True) -> T:
        """Make one request by `send`, within the limits, and again when it fails in a way that may pass.

        `send` raises an EndpointError for whatever goes wrong; requests of 0 units are not limited.
        """
        loop = asyncio.get_running_loop()
        give_up = loop.time() + self.retry.total
        failures = 0
        while True:
            try:
                return await self._admitted(send, units)
            except EndpointError as failure:
                failures += 1
                wait = self.retry.wait(failures, failure.retry_after)
                hopeless = not failure.retryable or (not patient and isinstance(failure, Unreachable | RequestTimeout))
                if hopeless or failures >= self.retry.attempts or loop.time() + wait > give_up:
                    self.stats.failures += 1
                    raise
                self._tell_retry(failure, failures)
            await asyncio.sleep(wait)

    async def aclose(self) -> None:
        """Close the connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def hide(self, text: str) -> str:
        """The text without this endpoint's keys, should a server have repeated them."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    async def _post(self, route: str, body: Mapping[str, Any], units: int) -> Any:
        raw = orjson.dumps(body)
        return await self.call(lambda: self._fresh("POST", route, raw), units=units)

    def _expect(self, kind: type[T], route: str, reply: Any) -> T:
        if isinstance(reply, kind):
            return reply
        raise ProtocolError(
            f"{route} answered with a JSON {type(reply).__name__}, not a {kind.__name__}; is this the right server?",
            endpoint=self.url,
            status=200,
        )

    def _tell_retry(self, failure: EndpointError, failures: int) -> None:
        self.stats.retries += 1
        ledger.get().book(retries=1)
        for hook in self.stats.on_retry:
            hook(failure, failures)

    async def _admitted(self, send: Callable[[], Awaitable[T]], units: int) -> T:
        if units == 0:
            return await send()
        if self._throttle is not None:
            async with self._throttle:
                pass
        async with self.limiter.hold(units):
            return await send()

    async def _fresh(self, method: str, route: str, body: bytes | None, *, patient: bool = True) -> Any:
        """Send a request, and once more if a kept connection was closed under it before any byte came back."""
        try:
            return await self._once(method, route, body, patient=patient)
        except StaleConnection:
            self.stats.reconnects += 1
            return await self._once(method, route, body, patient=patient)

    async def _once(self, method: str, route: str, body: bytes | None, *, patient: bool) -> Any:
        import aiohttp

        self.stats.requests += 1
        connection, began = _Connection(), False
        session = await self._open_session()
        options: dict[str, Any] = {"allow_redirects": False, "trace_request_ctx": connection}
        if not patient:
            options["timeout"] = aiohttp.ClientTimeout(total=self.timeouts.first, sock_connect=self.timeouts.connect)
        request = session.request(method, self._address(route), data=body, **options)
        try:
            async with request as reply:
                began = True
                return self._understand(route, reply.status, reply.headers, await reply.read())
        except (TimeoutError, OSError, aiohttp.ClientError, ssl.SSLError) as failure:
            error = wire_error(self.url, route, failure, began=began, reused=connection.reused)
            # the text of these two repeats the URL, with whatever stands in its query
            raise error from None if isinstance(failure, aiohttp.InvalidURL | aiohttp.ClientResponseError) else failure

    def _address(self, route: str) -> str:
        path = self.api + route.removeprefix("/v1") if route.startswith("/v1/") else route
        return f"{self.url}{path}?{self._query}" if self._query else f"{self.url}{path}"

    async def _open_session(self) -> aiohttp.ClientSession:
        import aiohttp

        loop = asyncio.get_running_loop()
        if self._session is not None and self._loop is not loop:
            await self._leave_loop()
        if self._session is None or self._session.closed:
            t, self._loop = self.timeouts, loop
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_SECONDS, ssl=self._tls or True),
                timeout=aiohttp.ClientTimeout(total=t.total, sock_connect=t.connect, sock_read=t.read),
                headers=self._headers,
                trace_configs=[_watch_reuse()],
                # proxies of the environment are for the world outside, as people mean them
                trust_env=not is_loopback(self.url),
            )
        return self._session

    async def _leave_loop(self) -> None:
        """Let go of a session whose event loop has ended: `asyncio.run` may be called more than once."""
        if self._loop is not None and not self._loop.is_closed():
            raise UsageError(f"{self!r} is in use on another event loop; make a client for each")
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _understand(self, route: str, status: int, headers: Mapping[str, str], raw: bytes) -> Any:
        if status >= 300:
            raise error_for(self.url, route, status, headers, raw, hide=self.hide)
        try:
            return orjson.loads(raw)
        except orjson.JSONDecodeError:
            raise not_json(self.url, route, status, raw) from None


@dataclass(slots=True)
class _Connection:
    """What aiohttp tells about the connection of one request."""

    reused: bool = False


def _watch_reuse() -> aiohttp.TraceConfig:
    import aiohttp

    async def note(_session: aiohttp.ClientSession, context: Any, _: aiohttp.TraceConnectionReuseconnParams) -> None:
        context.trace_request_ctx.reused = True

    trace = aiohttp.TraceConfig()
    trace.on_connection_reuseconn.append(note)
    return trace
