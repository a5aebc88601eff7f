"""Everything that can go wrong, as one tree.

    AsearchError
    ├── UsageError              the call is wrong; nothing was sent (also a ValueError)
    ├── EndpointError           a server let us down; names the endpoint, the status and what to do
    │   ├── Unreachable         no connection: name, port
    │   │   └── TLSFailed       a connection, but no trust: certificate, or http spoken as https
    │   ├── RequestTimeout      connected, but no answer in time
    │   ├── Overloaded          429, 503 or 529: the server asks us to come back later
    │   ├── ServerError         any other 5xx, or a connection that broke off before the answer
    │   │   └── Truncated       the answer began and broke off
    │   ├── AuthError           401 or 403
    │   ├── NotFound            404, 405 or 501: no such route
    │   ├── ModelNotFound       the server does not serve that model
    │   ├── BadRequest          400, 413 or 422: the server refused what we asked
    │   └── ProtocolError       an answer that is not what the protocol says (HTML, bad JSON, missing fields)
    │       └── Redirected      3xx: the server is somewhere else
    ├── Closed                  a client or a PRM was closed while it was in use
    ├── WorkerError             an answer worker could not be run
    └── SearchFailed            every path of a search failed; what there is hangs on `.paths`

The first four kinds of EndpointError are worth another try (TLSFailed is not); the others would fail again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asearch.path import Path


class AsearchError(Exception):
    """The root of the tree: `except asearch.AsearchError` catches all that this library raises by itself."""


class UsageError(AsearchError, ValueError):
    """The call is wrong, and says what would be right; no request was sent."""


class EndpointError(AsearchError):
    """A server let us down.

    Args:
        message: what happened, in one sentence.
        endpoint: the server's base URL, without credentials.
        status: the HTTP status, or None where there was no answer.
        retry_after: seconds that the server asked us to wait.
    """

    retryable: ClassVar[bool] = False
    divisible: ClassVar[bool] = False  # a batch that failed so may pass in parts, without its one bad item

    def __init__(
        self, message: str, *, endpoint: str = "", status: int | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.endpoint = endpoint
        self.status = status
        self.retry_after = retry_after

    def __str__(self) -> str:
        where = f"{self.endpoint}: " if self.endpoint else ""
        status = f" (HTTP {self.status})" if self.status is not None else ""
        return f"{where}{super().__str__()}{status}"


class Unreachable(EndpointError):
    """No connection could be made."""

    retryable = True


class TLSFailed(Unreachable):
    """The server was reached, but no trusted TLS connection came about; it fails the same way every time."""

    retryable = False


class RequestTimeout(EndpointError):
    """The server took the request and did not answer in time."""

    retryable = True


class Overloaded(EndpointError):
    """The server asks us to come back later (429, 503, 529)."""

    retryable = True


class ServerError(EndpointError):
    """The server failed (5xx), or broke off the connection."""

    retryable = True


class Truncated(ServerError):
    """The answer began and broke off, or ended in the middle of its JSON."""


class AuthError(EndpointError):
    """The server wants another API key (401, 403)."""


class NotFound(EndpointError):
    """The server has no such route (404, 405, 501)."""


class ModelNotFound(EndpointError):
    """The server does not serve that model."""


class BadRequest(EndpointError):
    """The server refused the request as it stands (400, 413, 422)."""

    divisible = True


class ProtocolError(EndpointError):
    """The answer is not what the protocol says it should be."""

    divisible = True


class Redirected(ProtocolError):
    """The server is somewhere else (3xx); requests with a body and a key are not sent on by themselves."""

    divisible = False


class Closed(AsearchError, RuntimeError):
    """What was asked had been closed, or was closed before it answered."""


class WorkerError(AsearchError):
    """An answer worker could not be started or kept alive."""


class SearchFailed(AsearchError):
    """Every path of a search failed.

    Args:
        message: what happened to the paths.
        paths: what was explored before the end, possibly nothing.
    """

    def __init__(self, message: str, paths: Sequence[Path] = ()) -> None:
        super().__init__(message)
        self.paths = tuple(paths)
