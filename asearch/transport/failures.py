"""What went wrong on the wire, as typed errors: from failures of the connection, and from HTTP replies.

Every error names the endpoint, the status where there was one, and what to do.
"""

from __future__ import annotations

import math
import re
import ssl
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

import orjson

from asearch.errors import (
    AuthError,
    BadRequest,
    EndpointError,
    ModelNotFound,
    NotFound,
    Overloaded,
    ProtocolError,
    Redirected,
    RequestTimeout,
    ServerError,
    TLSFailed,
    Truncated,
    Unreachable,
    UsageError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

# What an HTTP status means, and what to say where the server said nothing.
NO_ROUTE = "no route {route}; is this an OpenAI-compatible server, and recent enough?"
BUSY = "the server is overloaded; lower the limit, or come back later"
GAVE_UP = "the server or a gateway gave up waiting; see the server's log"
DENIED = "access denied: check the API key"
SEE_LOG = "the server failed; see its log"
REFUSED = "the server refused {route}"
BY_STATUS: dict[int, tuple[type[EndpointError], str]] = {
    401: (AuthError, DENIED),
    403: (AuthError, DENIED),
    407: (AuthError, "access denied by a proxy: check its credentials"),
    404: (NotFound, NO_ROUTE),
    405: (NotFound, NO_ROUTE),
    501: (NotFound, NO_ROUTE),
    408: (RequestTimeout, GAVE_UP),
    504: (RequestTimeout, GAVE_UP),
    424: (ServerError, SEE_LOG),  # TGI: the generation failed
    429: (Overloaded, BUSY),
    503: (Overloaded, BUSY),
    529: (Overloaded, BUSY),
}


class StaleConnection(ServerError):
    """A kept connection that the server had closed: sent again at once, on another one."""


def wire_error(url: str, route: str, failure: Exception, *, began: bool, reused: bool) -> EndpointError | UsageError:
    """What a failure of the connection means.

    Args:
        url: of the endpoint.
        route: that was asked for.
        failure: what aiohttp or the system raised.
        began: the head of the reply had arrived.
        reused: the connection had carried an earlier request.
    """
    import aiohttp

    if isinstance(failure, aiohttp.InvalidURL):
        return UsageError(f"{url!r} is not a URL that can be requested")
    kind, message = _broken(failure, began=began, reused=reused)
    return kind(message.replace("{route}", route), endpoint=url)


def _broken(failure: Exception, *, began: bool, reused: bool) -> tuple[type[EndpointError], str]:
    """Which error a failure of the connection is, and what to say; the order goes from special to general."""
    import aiohttp

    why = getattr(failure, "os_error", None)
    known: list[tuple[Any, type[EndpointError], str]] = [
        (aiohttp.ConnectionTimeoutError, Unreachable, "no connection in time; is the server running, the port open?"),
        (TimeoutError, RequestTimeout, "no answer in time to {route}; is the server overloaded?"),
        ((aiohttp.ClientSSLError, ssl.SSLError), TLSFailed, f"no trusted TLS connection ({_tls_reason(failure)})"),
        (aiohttp.ClientConnectorError, Unreachable, f"no connection ({_words(why)}); is the server running there?"),
        (aiohttp.ClientResponseError, ProtocolError, "{route} was not answered in HTTP; does the server want https?"),
    ]
    for cause, kind, message in known:
        if isinstance(failure, cause):
            return kind, message
    if began:
        return Truncated, "the answer to {route} broke off; did the server or a proxy stop?"
    return StaleConnection if reused else ServerError, (
        f"the connection broke off before an answer to {{route}} ({type(failure).__name__}); see the server's log"
    )


def _words(cause: OSError | None) -> str:
    return (cause.strerror or str(cause)) if cause is not None else "unknown reason"


def _tls_reason(failure: Exception) -> str:
    """What went wrong, and what to do, in a few words."""
    cause = getattr(failure, "certificate_error", None) or getattr(failure, "os_error", None) or failure
    reason = str(getattr(cause, "verify_message", "") or getattr(cause, "reason", "") or type(cause).__name__)
    if "WRONG_VERSION" in reason or "RECORD_LAYER" in reason:
        return "the server does not speak TLS; try http://"
    return f"{reason}; pass tls= with the certificate authority that signed it"


def not_json(url: str, route: str, status: int, raw: bytes) -> EndpointError:
    """The typed error for a successful answer that is not JSON."""
    start = raw.lstrip()[:1]
    if start in (b"{", b"["):
        return Truncated(f"{route} answered with truncated JSON; see the server's log", endpoint=url, status=status)
    kind = "an HTML page" if start == b"<" else "something that is not JSON" if start else "nothing"
    return ProtocolError(
        f"{route} answered with {kind}; this is no model server, or the URL lacks a path", endpoint=url, status=status
    )


def error_for(
    url: str,
    route: str,
    status: int,
    headers: Mapping[str, str],
    raw: bytes,
    *,
    hide: Callable[[str], str] = lambda text: text,
) -> EndpointError:
    """The typed error for a reply with status >= 300."""
    said, kind = _said(raw)
    kind_of, message = _classify(route, status, hide(said), kind, headers)
    return kind_of(message, endpoint=url, status=status, retry_after=_retry_after(headers))


def _classify(
    route: str, status: int, said: str, kind: str, headers: Mapping[str, str]
) -> tuple[type[EndpointError], str]:
    """Which error it is, and what to say: the server's own words where it had any, and what to do."""
    if status < 400:
        return Redirected, f"{route} redirects to {_bare(headers.get('Location', 'nowhere'))}; pass that URL instead"
    if status in (400, 404) and _names_a_model(said, kind):
        return ModelNotFound, f"{said.rstrip('.')}; pass model= with a served name"
    if status == 429 and "quota" in kind:
        return AuthError, said or "the quota of the API key is spent"
    error, advice = BY_STATUS.get(status) or ((ServerError, SEE_LOG) if status >= 500 else (BadRequest, REFUSED))
    if not said or status in (401, 407) or said.lower() == "not found":  # a 401 may repeat a part of the key
        return error, advice.format(route=route)
    return error, f"{advice.format(route=route)} ({said})" if error in (AuthError, NotFound) else said


def _names_a_model(said: str, kind: str) -> bool:
    """Whether a refusal is about the model's name (and not about a route that contains the word)."""
    missing = re.search(
        r"\bmodel\b.*(not found|does ?n[o']t exist|not exist|unknown|no such)|unknown model", said, re.IGNORECASE
    )
    return bool(missing) or "NotFoundError" in kind or "model_not_found" in kind


def _said(raw: bytes) -> tuple[str, str]:
    """The message and type of an error body: OpenAI's {"error": {...}}, TGI's {"error": "...", "error_type"}, or text."""
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return ("" if raw.lstrip()[:1] == b"<" else _line(raw[:1200].decode("utf-8", "replace"))), ""
    if not isinstance(body, dict):
        return "", ""
    error = body.get("error") or body
    if isinstance(error, dict):
        message = error.get("message") or error.get("detail") or ""
        return _line(str(message)), str(error.get("code") or "") + str(error.get("type") or "")
    return _line(str(error)), str(body.get("error_type") or "")


def _line(text: str) -> str:
    """At most a line of a server's words."""
    return " ".join(text.split())[:500]


def _bare(location: str) -> str:
    """A redirect's target without credentials and query."""
    parts = urlsplit(location)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", "")) or "nowhere"


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds from a Retry-After header: a number, or a date."""
    asked = headers.get("Retry-After", "")
    try:
        seconds = float(asked)
    except ValueError:
        try:
            moment = parsedate_to_datetime(asked)
        except ValueError:
            return None
        seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() - datetime.now(UTC).timestamp()
    return max(0.0, seconds) if math.isfinite(seconds) else None
