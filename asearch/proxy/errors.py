"""Refusals and failures in OpenAI's shape.

Clients of OpenAI's protocol act on the status: 429 and 5xx are tried again (after `Retry-After`, where it is given),
unless the header `x-should-retry` says otherwise.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from asearch.errors import (
    AsearchError,
    AuthError,
    BadRequest,
    EndpointError,
    Overloaded,
    RequestTimeout,
    SearchFailed,
    UsageError,
)

if TYPE_CHECKING:
    from pydantic import ValidationError

KINDS = {401: "authentication_error", 429: "rate_limit_error"}


class ApiError(Exception):
    """A refusal: a status, a sentence, and what was at fault.

    Args:
        message: what was wrong, and what to do.
        status: of the HTTP reply.
        param: the field of the request that is at fault.
        code: a word for programs.
        retry_after: seconds after which it is worth another try.
        headers: further headers of the reply.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        param: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.param, self.code = status, param, code
        self.headers = dict(headers or {})
        if retry_after is not None:
            self.headers["Retry-After"] = str(max(1, math.ceil(retry_after)))

    @property
    def body(self) -> dict[str, Any]:
        kind = KINDS.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}


def invalid(failure: ValidationError) -> ApiError:
    """The first thing that is wrong with a request, named as the caller wrote it."""
    first = failure.errors(include_url=False, include_context=False, include_input=False)[0]
    where = field_name(first["loc"])
    return ApiError(f"{where or 'the request'}: {first['msg']}", param=where or None, code="invalid_value")


def field_name(place: tuple[int | str, ...]) -> str:
    """('messages', 0, 'role') -> messages[0].role; what pydantic adds for the members of a union is left out."""
    name = ""
    for part in place:
        if isinstance(part, int):
            name += f"[{part}]"
        elif part.isidentifier() and part not in {"str", "int", "float", "bool"}:
            name += f".{part}" if name else part
    return name


def api_error(failure: AsearchError) -> ApiError:
    """What a failed search means to the client of the proxy.

    It learns what went wrong, but not where: addresses of the servers behind the proxy stay in the proxy's log.
    """
    cause = failure.__cause__ if isinstance(failure, SearchFailed) else failure
    if isinstance(cause, EndpointError):
        return _upstream(cause)
    if isinstance(cause, UsageError):
        return ApiError(str(cause))
    return ApiError("the search failed; see the proxy's log", status=500)


def _upstream(cause: EndpointError) -> ApiError:
    said = Exception.__str__(cause)
    known = {
        BadRequest: (400, f"a server behind the proxy refused the request: {said}"),
        Overloaded: (503, "the servers behind the proxy are overloaded"),
        RequestTimeout: (504, "a server behind the proxy did not answer in time"),
        AuthError: (502, "a server behind the proxy wants another API key than the proxy has"),
    }
    kind = next((kind for kind in known if isinstance(cause, kind)), EndpointError)
    status, message = known.get(kind, (502, f"a server behind the proxy failed: {said}"))
    later = (cause.retry_after or 1) if kind is Overloaded else None
    return ApiError(message, status=status, retry_after=later)
