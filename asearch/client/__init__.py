"""Policy clients: whatever can write the next step of a solution.

`Client` is what a search needs; `OpenAIClient` (vLLM and every server that speaks OpenAI's protocol) and `TGIClient`
are the two that are built in; `as_client` makes one of them from what a user has at hand.
"""

from __future__ import annotations

from typing import Any

from asearch.client.endpoints import is_hub_client, make_endpoint, served_model
from asearch.client.openai import OpenAIClient
from asearch.client.protocol import Client
from asearch.client.replies import finish_of
from asearch.client.tgi import TGI_SCHEME, TGIClient

__all__ = ["Client", "OpenAIClient", "TGIClient", "as_client", "finish_of", "make_endpoint", "served_model"]


def as_client(client: Any, **options: Any) -> Client:
    """A client stays what it is; what a user has at hand becomes one.

    A URL (or several, see `Endpoint`) or an `openai.AsyncOpenAI` becomes an OpenAIClient; a URL such as
    `tgi+http://localhost:8080` or a `huggingface_hub.AsyncInferenceClient` becomes a TGIClient.
    """
    if isinstance(client, Client):
        return client
    first = next(iter(client), None) if isinstance(client, list | tuple) else client
    if is_hub_client(client) or (isinstance(first, str) and first.startswith(TGI_SCHEME)):
        return TGIClient(client, **options)
    return OpenAIClient(client, **options)
