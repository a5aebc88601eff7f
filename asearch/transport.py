"""The wire: one endpoint is one server, with its limits, its retries and its errors.

An endpoint keeps one aiohttp session, opened on first use. aiohttp with orjson costs a tenth of the client CPU of the
openai SDK per request (measured against vLLM 0.32), and the search sends thousands.
"""

from __future__ import annotations

import asyncio
import random
import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

import aiohttp
import orjson
from asyncio_throttle import Throttler

from asearch.concurrency import Limiter
from asearch.errors import (
    AuthError,
    BadRequest,
    EndpointError,
    ModelNotFound,
    NotFound,
    Overloaded,
    ProtocolError,
    RequestTimeout,
    ServerError,
    Unreachable,
    UsageError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Retry:
    """When and how often a failed request is sent again.

    Waits are `first * 2**k`, at most `longest`, with full jitter, or what the server's Retry-After asks for.

    Args:
        attempts: how often a request is sent at most.
        total: seconds after which no further attempt is started.
        first: the first wait, seconds.
        longest: the longest wait, seconds.
    """

    attempts: int = 6
    total: float = 120.0
    first: float = 0.25
    longest: float = 15.0

    def wait(self, failures: int, asked: float | None) -> float:
        """Seconds to wait after the given number of failures."""
        if asked is not None:
            return asked
        return random.uniform(0.5, 1.0) * min(self.longest, self.first * 2.0 ** (failures - 1))


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds to connect, between two reads, and for a whole request (None: no bound)."""

    connect: float = 10.0
    read: float | None = 600.0
    total: float | None = None


@dataclass(slots=True)
class EndpointStats:
    """What went over one endpoint since it was opened."""

    requests: int = 0
    retries: int = 0
    failures: int = 0
    on_retry: list[Callable[[EndpointError, int], None]] = field(default_factory=list)


class Endpoint:
    """One server by its URL, with everything that all searches of a process share about it.

    Args:
        url: the base URL, with or without a trailing `/v1`.
        api_key: sent as a bearer token; never shown in errors.
        headers: further headers.
        limit: sequences under way at once (a request for n completions counts as n).
        rate: requests per second, or None.
        retry: when and how often a failed request is sent again.
        timeouts: to connect, to read, and in all.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        headers: Mapping[str, str] | None = None,
        limit: int = 512,
        rate: float | None = None,
        retry: Retry | None = None,
        timeouts: Timeouts | None = None,
    ) -> None:
        self.url, self._query = normalise_url(url)
        self.limiter = Limiter(limit)
        self.retry = retry or Retry()
        self.timeouts = timeouts or Timeouts()
        self.stats = EndpointStats()
        self._headers = {"Content-Type": "application/json", **(headers or {})}
        if api_key:
            self._headers.setdefault("Authorization", f"Bearer {api_key}")
        self._throttle = Throttler(rate_limit=1, period=1 / rate) if rate else None
        self._session: aiohttp.ClientSession | None = None

    def __repr__(self) -> str:
        return f"Endpoint({self.url!r})"

    async def get(self, route: str) -> Json:
        """GET a route and return its JSON object."""
        return await self._with_retries("GET", route, None, 0)

    async def post(self, route: str, body: Mapping[str, Any], *, units: int = 1) -> Json:
        """POST a JSON body and return the JSON object that comes back; `units` sequences count against the limit."""
        return await self._with_retries("POST", route, orjson.dumps(body), units)

    async def aclose(self) -> None:
        """Close the connections."""
        if self._session is not None:
            session, self._session = self._session, None
            await session.close()

    async def _with_retries(self, method: str, route: str, body: bytes | None, units: int) -> Json:
        loop = asyncio.get_running_loop()
        give_up = loop.time() + self.retry.total
        failures = 0
        while True:
            try:
                return await self._admitted(method, route, body, units)
            except EndpointError as failure:
                failures += 1
                wait = self.retry.wait(failures, failure.retry_after)
                if not failure.retryable or failures >= self.retry.attempts or loop.time() + wait > give_up:
                    self.stats.failures += 1
                    raise
                self.stats.retries += 1
                for hook in self.stats.on_retry:
                    hook(failure, failures)
            await asyncio.sleep(wait)

    async def _admitted(self, method: str, route: str, body: bytes | None, units: int) -> Json:
        if units == 0:
            return await self._once(method, route, body)
        if self._throttle is not None:
            async with self._throttle:
                pass
        async with self.limiter.hold(units):
            return await self._once(method, route, body)

    async def _once(self, method: str, route: str, body: bytes | None) -> Json:
        self.stats.requests += 1
        url = f"{self.url}{route}{self._query}"
        try:
            async with self._open_session().request(method, url, data=body, allow_redirects=False) as reply:
                raw = await reply.read()
                return self._understand(route, reply.status, reply.headers, raw)
        except TimeoutError as failure:
            raise RequestTimeout(
                f"no answer in time to {route}; is the server overloaded?", endpoint=self.url
            ) from failure
        except aiohttp.InvalidURL as failure:
            raise UsageError(f"{self.url!r} is not a URL that can be requested") from failure
        except (aiohttp.ClientSSLError, ssl.SSLError) as failure:
            raise _Hopeless(f"the TLS connection failed: {failure}", endpoint=self.url) from failure
        except aiohttp.ClientConnectorError as failure:
            why = failure.os_error.strerror or str(failure.os_error)
            raise Unreachable(f"no connection ({why}); is the server running there?", endpoint=self.url) from failure
        except (aiohttp.ClientError, ConnectionError) as failure:
            raise ServerError(
                f"the connection broke off during {route}: {type(failure).__name__}", endpoint=self.url
            ) from failure

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None or self._session.closed:
            t = self.timeouts
            self._session = aiohttp.ClientSession(
                # vLLM closes idle connections at 5 s, and reusing one at that moment fails: close ours before.
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=3),
                timeout=aiohttp.ClientTimeout(total=t.total, sock_connect=t.connect, sock_read=t.read),
                headers=self._headers,
            )
        return self._session

    def _understand(self, route: str, status: int, headers: Mapping[str, str], raw: bytes) -> Json:
        if 300 <= status < 400:
            raise ProtocolError(
                f"{route} redirects to {headers.get('Location', 'nowhere')}; pass that URL",
                endpoint=self.url,
                status=status,
            )
        if status >= 400:
            raise error_for(self.url, route, status, headers, raw)
        try:
            value = orjson.loads(raw)
        except orjson.JSONDecodeError:
            if raw[:1] in b"{[":  # cut off on the way: worth another try
                raise ServerError(f"{route} answered with truncated JSON", endpoint=self.url, status=status) from None
            raise not_a_model_server(self.url, route, status, raw) from None
        if not isinstance(value, dict):
            raise ProtocolError(
                f"{route} answered with {type(value).__name__}, not an object", endpoint=self.url, status=status
            )
        return value


class _Hopeless(Unreachable):
    """A connection that fails the same way every time (TLS)."""

    retryable = False


def normalise_url(url: str) -> tuple[str, str]:
    """The root of a server without `/v1`, and a query string to keep, from what a user may pass as base URL."""
    parts = urlsplit(url if "://" in url else f"http://{url}")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"{url!r} is not an http(s) URL such as http://localhost:8000")
    path = parts.path.rstrip("/").removesuffix("/v1")
    return urlunsplit((parts.scheme, parts.netloc, path, "", "")), f"?{parts.query}" if parts.query else ""


def not_a_model_server(url: str, route: str, status: int, raw: bytes) -> ProtocolError:
    kind = "an HTML page" if raw.lstrip()[:1] == b"<" else "something that is not JSON"
    return ProtocolError(
        f"{route} answered with {kind}; this is no model server, or the URL lacks a path", endpoint=url, status=status
    )


def error_for(url: str, route: str, status: int, headers: Mapping[str, str], raw: bytes) -> EndpointError:
    """The typed error for a reply with status >= 400."""
    said, kind = _said(raw)
    if status == 404 and ("model" in said.lower() or kind == "NotFoundError"):
        return ModelNotFound(said, endpoint=url, status=status)
    if status in (404, 405):
        return NotFound(f"no route {route}; is this an OpenAI-compatible server?", endpoint=url, status=status)
    if status in (401, 403):
        return AuthError("access denied: check the API key", endpoint=url, status=status)
    if status in (429, 503):
        return Overloaded(said or "overloaded", endpoint=url, status=status, retry_after=_retry_after(headers))
    if status >= 500:
        return ServerError(said or "the server failed", endpoint=url, status=status)
    return BadRequest(said or f"the server refused {route}", endpoint=url, status=status)


def _said(raw: bytes) -> tuple[str, str]:
    """The message and type of an error body: OpenAI's {"error": {...}}, TGI's {"error": "...", "error_type"}, or text."""
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return ("" if raw.lstrip()[:1] == b"<" else raw[:300].decode("utf-8", "replace").strip()), ""
    if not isinstance(body, dict):
        return "", ""
    error = body.get("error") or body
    if isinstance(error, dict):
        return str(error.get("message") or error.get("detail") or "")[:500], str(error.get("type") or "")
    return str(error)[:500], str(body.get("error_type") or "")


def _retry_after(headers: Mapping[str, str]) -> float | None:
    try:
        return max(0.0, float(headers["Retry-After"]))
    except (KeyError, ValueError):
        return None
