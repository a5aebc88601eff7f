"""What a server is, and what its own numbers say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asearch.errors import EndpointError
from asearch.prm.base import OWN_SERVER
from asearch.transport import cached_tokens

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asearch.transport import Endpoint, Replica

MAKERS = {
    "vllm": "vLLM",
    "sglang": "SGLang",
    "asearch": "asearch's embedded server",
    OWN_SERVER: "asearch's PRM server",
}
# tokens read from the prefix cache, by the names of vLLM (and the embedded server) and SGLang
HITS = ("vllm:prefix_cache_hits_total", "sglang:cached_tokens_total")


async def maybe(endpoint: Endpoint, route: str) -> dict[str, Any]:
    """What a route says; nothing where there is no such route."""
    try:
        return await endpoint.get(route, patient=False)
    except EndpointError:
        return {}


async def describe(endpoint: Endpoint) -> str:
    """Which server it is, its version, and how many replicas of it."""
    version = (await maybe(endpoint, "/version")).get("version")
    card = await card_of(endpoint, None)
    maker = MAKERS.get(str(card.get("owned_by")))
    if maker is None:
        info = await maybe(endpoint, "/info")
        if "max_total_tokens" in info:
            maker, version = "TGI", info.get("version")
    name = maker or "a server that speaks OpenAI's protocol"
    replicas = f", {len(endpoint.replicas)} replicas" if len(endpoint.replicas) > 1 else ""
    return f"{name}{f' {version}' if version else ''} at {endpoint.url}{replicas}"


async def card_of(endpoint: Endpoint, model: str | None) -> dict[str, Any]:
    """What a server says of a model (or of its first)."""
    models = (await maybe(endpoint, "/v1/models")).get("data")
    cards = [card for card in models if isinstance(card, dict)] if isinstance(models, list) else []
    return next((card for card in cards if model in (None, card.get("id"))), {})


async def read_twice(endpoint: Endpoint, model: str, prompt: Any) -> tuple[int, float | None]:
    """Let a server read a prompt two times: its length, and how many of its tokens came from the cache the second time.

    The reply says so, or the server's /metrics do; None: neither.
    """
    body = {"model": model, "prompt": prompt, "max_tokens": 1, "temperature": 0.0, "add_special_tokens": False}
    replica = endpoint.choose()
    await endpoint.post("/v1/completions", body, replica=replica)
    before = await _hits(replica)
    usage = (await endpoint.post("/v1/completions", body, replica=replica)).get("usage") or {}
    length = int(usage.get("prompt_tokens") or 0)
    cached = cached_tokens(usage)
    if cached is not None:
        return length, float(cached)
    after = await _hits(replica)
    return length, None if before is None or after is None else after - before


async def _hits(replica: Replica) -> float | None:
    from asearch.transport.pressure import gauge

    try:
        page = await replica.text("/metrics")
    except EndpointError:
        return None
    found = [value for name in HITS if (value := gauge(page, name)) is not None]
    return found[0] if found else None


def leading(ids: Sequence[int], part: Sequence[int]) -> list[int]:
    """What stands before a part at the end of ids; nothing where they do not end in it."""
    return list(ids[: len(ids) - len(part)]) if list(ids[len(ids) - len(part) :]) == list(part) else []
