"""The client for Hugging Face's Text Generation Inference (TGI).

TGI is spoken to by its own route, `/generate`: its OpenAI-like `/v1/completions` turns the prefix cache off and adds a
second BOS. It has no n: m siblings are m requests.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from asearch.client.endpoints import is_hub_client
from asearch.client.hub import generate_error, hub_client, root_of
from asearch.client.trails import remember, trail_of
from asearch.concurrency import Memo, together
from asearch.errors import BadRequest, ModelNotFound, NotFound, ProtocolError, UsageError
from asearch.path import Finish, Step
from asearch.transport import Endpoint, Replica, is_source
from asearch.usage import ledger

if TYPE_CHECKING:
    from asearch.path import Path, Sampling
    from asearch.problem import Problem

TGI_SCHEME = "tgi+"
FINISHES: dict[str, Finish] = {"stop_sequence": "step", "eos_token": "eos", "length": "length"}
TOO_LONG = re.compile(r"must have less than|tokens.? \+ .max_new_tokens. must be", re.IGNORECASE)
POOL = 100  # connections that the hub client's HTTP library keeps at most; more requests would wait there unseen
SEEDS = 2**63 - 1
MARGIN = 32  # tokens by which the sum of a path's steps may differ from what the server counts for their text


class TGIClient:
    """A client for TGI on `huggingface_hub.AsyncInferenceClient`.

    Args:
        url: the base URL (`http://…` or `tgi+http://…`; or several replicas', see `Endpoint`), or an AsyncInferenceClient, which is used as it is: its token,
            headers, cookies, timeout. It stays open when this client is closed.
        model: the model that the server must have, if it is to be checked; TGI serves one.
        api_key: a token; by default the one that huggingface_hub finds (HF_TOKEN, or `hf auth login`).
        **endpoint: further arguments for `Endpoint` (limit, rate, retry, timeouts, headers).
    """

    can_continue = True

    def __init__(self, url: Any, *, model: str | None = None, api_key: str | None = None, **endpoint: Any) -> None:
        if not is_source(url) and not is_hub_client(url):
            raise UsageError(f"expected a URL or a huggingface_hub.AsyncInferenceClient, not {type(url).__name__}")
        self._own = is_source(url)
        self._hub, token = hub_client(url, api_key, endpoint)
        headers = {**self._hub.headers, **endpoint.pop("headers", {})}
        where = url if self._own else root_of(url.model)
        self.endpoint = Endpoint(where, api_key=token, headers=headers, **{"limit": POOL, **endpoint})
        self.model = model
        self.max_model_len: int | None = None
        self._max_input: int | None = None
        self._bos: int | None = None
        self._connected: Memo[None, None] = Memo(self._connect)
        self._prompts: Memo[Problem, tuple[str, int]] = Memo(self._render)

    def __repr__(self) -> str:
        return f"TGIClient({self.endpoint.url!r}, model={self.model!r})"

    async def connect(self) -> None:
        await self._connected.get(None)

    async def aclose(self) -> None:
        await self.endpoint.aclose()
        if self._own:
            await self._hub.close()

    async def extend(
        self, path: Path, n: int, *, sampling: Sampling, seed: int, whole: bool = False, max_new: int | None = None
    ) -> list[Step]:
        await self.connect()
        check(path, n, sampling)
        prefix, length = await self._prompts.get(path.problem)
        prompt = prefix + path.text
        want = sampling.max_tokens - path.tokens
        want = want if max_new is None else min(want, max_new)
        room = await self._room(prompt, length + path.tokens, want)
        if min(want, room) < 1:
            return [Step("", "length", ())] * n
        distinct = n if sampling.temperature > 0 else 1
        async with ledger.get().reserved(min(want, room) * distinct, at_least=distinct) as granted:
            shared = parameters(sampling, whole=whole, max_new_tokens=granted // distinct)
            steps = await together(
                self._one(path, prompt, shared | seeded(sampling, seed + i)) for i in range(distinct)
            )
        return steps * (n // distinct)

    async def _one(self, path: Path, prompt: str, options: dict[str, Any]) -> Step:
        book = ledger.get()
        book.open_call()
        trail = trail_of(path, self.endpoint)
        try:
            with book.outstanding("policy"):
                output = await self.endpoint.call(
                    lambda replica: self._generate(replica, prompt, options), trail=trail, own=True
                )
        except BadRequest as refusal:
            if TOO_LONG.search(str(refusal)):
                return Step("", "length", ())
            raise
        details = getattr(output, "details", None)
        finish = FINISHES.get(str(getattr(details, "finish_reason", None)))
        text = getattr(output, "generated_text", None)
        if details is None or finish is None or not isinstance(text, str):
            raise ProtocolError("/generate answered without text, details or finish_reason", endpoint=self.endpoint.url)
        ids = tuple(token.id for token in details.tokens)
        book.book(requests=1, policy_tokens=details.generated_tokens)
        step = Step(text, finish, ids, details.generated_tokens)
        remember(path, [step], trail, self.endpoint)
        return step

    async def _generate(self, replica: Replica, prompt: str, options: dict[str, Any]) -> Any:
        for stats in replica.books:
            stats.requests += 1
        try:
            output = await self._hub.text_generation(prompt, model=f"{replica.url}/generate", **options)
        except Exception as failure:
            error = generate_error(replica, failure)
            if error is None:
                raise
            raise error from failure
        written = getattr(getattr(output, "details", None), "generated_tokens", 0)
        for stats in replica.books:
            stats.completion_tokens += written if isinstance(written, int) else 0
        return output

    async def _room(self, prompt: str, estimate: int, want: int) -> int:
        """Tokens that the context still has, counted by the server where it matters."""
        if self.max_model_len is None or self._max_input is None:
            return want
        fits = estimate + want + MARGIN <= self.max_model_len and estimate + MARGIN <= self._max_input
        if fits:
            return want
        count = len(await self._tokenize(prompt))
        return self.max_model_len - count if count <= self._max_input else 0

    async def _connect(self, _: None) -> None:
        try:
            info = await self.endpoint.get("/info", patient=False)
        except NotFound as failure:
            raise ProtocolError(
                "no /info, so this is no TGI; try OpenAIClient", endpoint=self.endpoint.url
            ) from failure
        if not all(isinstance(info.get(name), int) for name in ("max_total_tokens", "max_input_tokens")):
            raise ProtocolError("/info is not that of TGI; try OpenAIClient", endpoint=self.endpoint.url)
        if self.model not in (None, info.get("model_id")):
            raise ModelNotFound(
                f"no model {self.model!r} here; it serves {info.get('model_id')}", endpoint=self.endpoint.url
            )
        self.model = str(info.get("model_id"))
        self.max_model_len, self._max_input = info["max_total_tokens"], info["max_input_tokens"]
        at_once = info.get("max_concurrent_requests")
        if isinstance(at_once, int) and at_once > 0:  # beyond it TGI answers 429
            self.endpoint.cap(at_once)
        await self.endpoint.agree("/info", lambda other: _difference(other, info))
        first = (await self._tokenize("1"))[0]
        self._bos = first["id"] if first.get("start") == first.get("stop") else None

    async def _render(self, problem: Problem) -> tuple[str, int]:
        """The chat prefix as text without the BOS that `/generate` will add, and its length in tokens."""
        reply = await self.endpoint.post("/chat_tokenize", {"messages": problem.messages})
        text, tokens = reply.get("templated_text"), reply.get("tokenize_response")
        if not isinstance(text, str) or not isinstance(tokens, list) or not tokens:
            raise ProtocolError("/chat_tokenize answered without templated_text", endpoint=self.endpoint.url)
        if self._bos is None:
            return text, len(tokens)
        spans = [(token["start"], token["stop"]) for token in tokens if token["id"] == self._bos]
        written = next(((start, stop) for start, stop in spans if start == 0 and stop > start), None)
        return (text[written[1] :], len(tokens)) if written else (text, len(tokens) + (not spans))

    async def _tokenize(self, text: str) -> list[dict[str, Any]]:
        """Tokens with their spans, special ones included. TGI answers with a list, not an object."""
        tokens = await self.endpoint.post_list("/tokenize", {"inputs": text})
        if not tokens or not all(isinstance(token, dict) and isinstance(token.get("id"), int) for token in tokens):
            raise ProtocolError("/tokenize answered without tokens", endpoint=self.endpoint.url)
        return tokens


def _difference(other: dict[str, Any], info: dict[str, Any]) -> str | None:
    """What tells a replica from the first one that was asked."""
    for name in ("model_id", "max_total_tokens", "max_input_tokens"):
        if other.get(name) != info.get(name):
            return f"has {name} {other.get(name)!r}, and not {info.get(name)!r} as the others do"
    return None


def check(path: Path, n: int, sampling: Sampling) -> None:
    """Refuse what TGI cannot do, before anything is sent."""
    if n < 1:
        raise UsageError(f"n counts continuations and must be at least 1, not {n}")
    if path.finished:
        raise UsageError(f"path {path.name} is finished ({path.finish}) and cannot be continued")
    if sampling.min_p:
        raise UsageError(f"TGI knows no min_p; leave it at 0 instead of {sampling.min_p}")


def parameters(sampling: Sampling, *, whole: bool, max_new_tokens: int) -> dict[str, Any]:
    """TGI's parameters, each within what its validation accepts: top_p below 1 or absent, temperature above 0 or absent."""
    options: dict[str, Any] = {
        "details": True,
        "max_new_tokens": max_new_tokens,
        "repetition_penalty": sampling.repetition_penalty,
        "return_full_text": False,
        "do_sample": sampling.temperature > 0,
    }
    if not whole:
        options["stop"] = [sampling.separator]
    if sampling.temperature > 0:
        options["temperature"] = sampling.temperature
        if sampling.top_p < 1.0:
            options["top_p"] = sampling.top_p
        if sampling.top_k > 0:
            options["top_k"] = sampling.top_k
    return options


def seeded(sampling: Sampling, seed: int) -> dict[str, Any]:
    """A seed is above 0 for TGI."""
    return {"seed": seed % SEEDS + 1} if sampling.temperature > 0 else {}
