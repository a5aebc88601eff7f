"""What is particular to huggingface_hub: making its client, and reading its errors.

Its HTTP library has changed over time (aiohttp, httpx, httpx2), so errors of the connection are known by their names.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from asearch.errors import EndpointError, ProtocolError, RequestTimeout, ServerError, TLSFailed, Unreachable, UsageError
from asearch.transport import error_for, is_source

if TYPE_CHECKING:
    from asearch.transport import Replica

NO_CONNECTION = {"ConnectError", "ConnectTimeout", "ClientConnectorError"}
BY_NAME: tuple[tuple[set[str], type[EndpointError], str], ...] = (
    (NO_CONNECTION, Unreachable, "no connection; is the server running there?"),
    (
        {"InferenceTimeoutError", "TimeoutException", "TimeoutError"},
        RequestTimeout,
        "no answer in time to /generate; is the server overloaded?",
    ),
    (
        {"TransportError", "ClientError", "ConnectionError"},
        ServerError,
        "the connection broke off during /generate; see the server's log",
    ),
    (
        {"JSONDecodeError", "UnicodeDecodeError", "LookupError", "TypeError", "AttributeError"},
        ProtocolError,
        "/generate answered with something that is not TGI's JSON",
    ),
)


def hub_client(given: Any, api_key: str | None, options: dict[str, Any]) -> tuple[Any, str | None]:
    """An AsyncInferenceClient (the user's own, or a new one for a URL) and its token."""
    from huggingface_hub import AsyncInferenceClient, get_token  # here: it takes a second, and most use no TGI

    if not is_source(given):
        if not inspect.iscoroutinefunction(getattr(given, "text_generation", None)):
            raise UsageError(f"expected a huggingface_hub.AsyncInferenceClient, not {type(given).__name__}")
        return given, api_key or given.token or get_token()
    token = api_key or get_token()
    read = options["timeouts"].read if options.get("timeouts") else 600.0
    return AsyncInferenceClient(
        token=token, headers=options.get("headers"), timeout=read
    ), token  # each call says where


def root_of(model: Any) -> str:
    """The base URL of the server that a hub client was made for."""
    if not isinstance(model, str) or not model.startswith(("http://", "https://")):
        raise UsageError(f"make the AsyncInferenceClient with the URL of a TGI server, not model={model!r}")
    return model.rstrip("/").removesuffix("/generate")


def generate_error(replica: Replica, failure: Exception) -> EndpointError | None:
    """The typed error for what a hub client raised; None where it is no matter of the server."""
    url = replica.url
    response = getattr(failure, "response", None)
    if response is None:
        response = getattr(failure.__cause__, "response", None)
    if response is not None:
        raw = response.content if isinstance(getattr(response, "content", None), bytes) else b""
        status = int(getattr(response, "status_code", 0) or getattr(response, "status", 500))
        return error_for(url, "/generate", status, response.headers, raw, hide=replica.hide)
    names = {cls.__name__ for link in (failure, failure.__cause__) for cls in type(link).__mro__}
    said = f"{failure} {failure.__cause__}".upper()
    if names & NO_CONNECTION and ("CERTIFICATE" in said or "SSL" in said):
        return TLSFailed("no trusted TLS connection; is the certificate authority known here?", endpoint=url)
    for known, kind, message in BY_NAME:
        if names & known:
            return kind(message, endpoint=url)
    return None
