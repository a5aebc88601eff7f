"""From what a user has at hand to an endpoint, and from an endpoint to the model that it serves."""

from __future__ import annotations

import difflib
import os
from typing import TYPE_CHECKING, Any

from asearch.errors import ModelNotFound, NotFound, ProtocolError, UsageError
from asearch.transport import Endpoint, Timeouts, is_source

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from asearch.transport import Json

# Headers that the openai SDK adds by itself: they describe the SDK and its body, not the user.
SDK_HEADERS = ("content-type", "accept", "user-agent", "x-stainless-")
NAMES_SHOWN = 8


def make_endpoint(url: Any, *, api_key: str | None = None, **options: Any) -> Endpoint:
    """An endpoint from a URL (or several, see `Endpoint`), or from an `openai.AsyncOpenAI` that the user already has.

    Of an AsyncOpenAI its base_url, api_key, default headers and query, organisation, project and timeout are taken over.
    With a URL the key is that of the environment's OPENAI_API_KEY, as the SDK does.
    """
    if is_source(url):
        return Endpoint(url, api_key=api_key or os.environ.get("OPENAI_API_KEY"), **options)
    base, key = getattr(url, "base_url", None), getattr(url, "api_key", None)
    if base is None or not isinstance(key, str | None):
        raise UsageError(
            f"expected a URL such as 'http://localhost:8000', an openai.AsyncOpenAI or a client, not {type(url).__name__}"
        )
    options["headers"] = {**_own_headers(getattr(url, "default_headers", None) or {}), **options.get("headers", {})}
    query = getattr(url, "default_query", None) or {}
    options["query"] = {**{name: str(value) for name, value in query.items()}, **options.get("query", {})}
    options.setdefault("timeouts", _timeouts(getattr(url, "timeout", None)))
    return Endpoint(str(base), api_key=api_key or key, **options)


def _own_headers(headers: Mapping[str, Any]) -> dict[str, str]:
    return {
        name: value
        for name, value in headers.items()
        if isinstance(value, str) and not name.lower().startswith(SDK_HEADERS)
    }


def _timeouts(given: Any) -> Timeouts:
    """The SDK's timeout: a number of seconds, or an object with `connect` and `read`."""
    if isinstance(given, int | float):
        return Timeouts(connect=min(Timeouts().connect or given, given), read=float(given))
    connect, read = getattr(given, "connect", None), getattr(given, "read", None)
    return Timeouts(connect=connect, read=read) if given is not None else Timeouts()


def is_hub_client(client: Any) -> bool:
    """Whether something is one of huggingface_hub's inference clients, without importing huggingface_hub."""
    return any(cls.__module__.split(".")[0] == "huggingface_hub" for cls in type(client).__mro__)


async def served_model(endpoint: Endpoint, wanted: str | None) -> tuple[str, int | None]:
    """The model to ask for and its context length (where the server states one), from `/v1/models`.

    Also finds out whether the URL is complete as it stands, or lacks the `/v1` that most servers put before it.

    Raises:
        ModelNotFound: naming what the server does have.
        Unreachable: at once; a server that is not there is not waited for.
    """
    try:
        models = _listed(await _list_models(endpoint), endpoint)
    except NotFound:
        if wanted is None:
            raise
        return wanted, None  # a gateway that lists nothing: the first request will tell
    chosen = _choose(models, wanted, endpoint)
    length = chosen.get("max_model_len")
    await endpoint.agree("/v1/models", lambda reply: _difference(reply, chosen))
    return chosen["id"], length if isinstance(length, int) else None


def _difference(reply: Json, chosen: Json) -> str | None:
    """What tells the models that a replica lists from those of the first one that was asked."""
    models = reply.get("data")
    same = [m for m in models if isinstance(m, dict)] if isinstance(models, list) else []
    name = chosen["id"]
    if len({name, *(m.get("id") for m in same)}) > len(same):
        names = enumerate_names([str(m.get("id")) for m in same]) or "no models"
        return f"serves {names}, and not {name} as the others do"
    length = next(m.get("max_model_len") for m in same if m.get("id") == name)
    if length != chosen.get("max_model_len"):
        return (
            f"serves {name} with a context of {length} tokens, and not {chosen.get('max_model_len')} as the others do"
        )
    return None


async def _list_models(endpoint: Endpoint) -> Json:
    try:
        return await endpoint.get("/v1/models", patient=False)
    except NotFound as failure:
        endpoint.api = ""
        try:
            return await endpoint.get("/v1/models", patient=False)
        except (NotFound, ProtocolError):
            endpoint.api = "/v1"
            raise failure from None


def _listed(reply: Json, endpoint: Endpoint) -> list[Json]:
    models = reply.get("data")
    if not isinstance(models, list) or not all(isinstance(m, dict) and isinstance(m.get("id"), str) for m in models):
        raise ProtocolError(
            "/v1/models lists no models, so this is no model server; check host, port and path of the URL",
            endpoint=endpoint.url,
        )
    if not models:
        raise ModelNotFound("the server lists no models; load one first", endpoint=endpoint.url)
    return models


def _choose(models: Sequence[Json], wanted: str | None, endpoint: Endpoint) -> Json:
    names = [model["id"] for model in models]
    if wanted is not None:
        if wanted not in names:
            engine = models[0].get("max_model_len") is not None
            if not engine and any(name.startswith(f"{wanted}:") or name.endswith(f"/{wanted}") for name in names):
                return {"id": wanted}  # Ollama's tags and others' prefixes may be left out in requests
            close = difflib.get_close_matches(wanted, names, n=NAMES_SHOWN) or names
            raise ModelNotFound(f"no model {wanted!r} here; it serves {enumerate_names(close)}", endpoint=endpoint.url)
        return models[names.index(wanted)]
    # vLLM lists the base model first and its adapters after it; a catalogue has no first that anybody meant
    if len(models) > 1 and models[0].get("max_model_len") is None:
        raise UsageError(f"{endpoint.url} serves several models; pass model= one of {enumerate_names(names)}")
    return models[0]


def enumerate_names(names: Sequence[str]) -> str:
    """Names for a message, the first few of many."""
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return ", ".join(names[:NAMES_SHOWN]) + more
