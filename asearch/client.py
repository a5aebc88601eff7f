"""Policy clients: whatever can write the next step of a solution.

The native way is vLLM's (measured on 0.32): the server itself renders the chat prefix once per problem (`/tokenize` with
messages), and every continuation sends prompt ids + generated ids through `/v1/completions`. That removes by construction
a second BOS and a chat template that trims the trailing blank line, the two traps that the article warns of.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from asearch.concurrency import Memo
from asearch.errors import ModelNotFound, NotFound, ProtocolError, UsageError
from asearch.path import Finish, Path, Sampling, Step
from asearch.transport import Endpoint, Json
from asearch.usage import ledger

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asearch.problem import Problem

MAX_SEED = 2**63 - 1


@runtime_checkable
class Client(Protocol):
    """A policy: it writes n continuations of a path."""

    async def extend(
        self, path: Path, n: int, *, sampling: Sampling, seed: int, whole: bool = False, max_new: int | None = None
    ) -> list[Step]:
        """Write n continuations of `path`.

        Args:
            path: an unfinished path.
            n: how many; choice i is drawn with seed + i.
            sampling: how to sample.
            seed: the first of n consecutive seeds.
            whole: go on to the end of the solution instead of the next step separator.
            max_new: a bound on the new tokens, besides the solution's own.
        """
        ...

    async def connect(self) -> None:
        """Find out what the server is; raises an EndpointError that says what is wrong."""
        ...

    async def aclose(self) -> None:
        """Close the connections."""
        ...


class OpenAIClient:
    """A client for vLLM and for every server that speaks its completions protocol.

    Args:
        url: the base URL, with or without `/v1`, or an `openai.AsyncOpenAI` whose base URL, key and headers are taken over.
        model: the served model name; None takes the only (or first) one that the server lists.
        api_key: a bearer token; by default the environment's OPENAI_API_KEY, as the openai SDK does.
        **endpoint: further arguments for `Endpoint` (limit, rate, retry, timeouts, headers).
    """

    def __init__(self, url: Any, *, model: str | None = None, api_key: str | None = None, **endpoint: Any) -> None:
        self.endpoint = make_endpoint(url, api_key=api_key, **endpoint)
        self.model = model
        self.max_model_len: int | None = None
        self._connected: Memo[None, None] = Memo(self._connect)
        self._prompts: Memo[Problem, tuple[int, ...]] = Memo(self._render)

    def __repr__(self) -> str:
        return f"OpenAIClient({self.endpoint.url!r}, model={self.model!r})"

    async def connect(self) -> None:
        await self._connected.get(None)

    async def aclose(self) -> None:
        await self.endpoint.aclose()

    async def extend(
        self, path: Path, n: int, *, sampling: Sampling, seed: int, whole: bool = False, max_new: int | None = None
    ) -> list[Step]:
        await self.connect()
        prompt = [*await self._prompts.get(path.problem), *(path.token_ids or ())]
        if path.step is not None and path.token_ids is None:
            raise ProtocolError("the server returned no token ids for an earlier step", endpoint=self.endpoint.url)
        room = self._room(path, len(prompt), sampling)
        if room < 1:
            return [Step("", "length", ())] * n
        want = min(room, max_new) if max_new is not None else room
        book = ledger.get()
        async with book.reserved(want * n, at_least=n) as granted:
            body = self._body(prompt, n, sampling, seed, whole=whole, max_tokens=granted // n)
            book.open_call()
            reply = await self.endpoint.post("/v1/completions", body, units=n)
            steps = [self._step(choice) for choice in self._choices(reply, n)]
            self._book(reply, steps)
        return steps

    def _room(self, path: Path, prompt_tokens: int, sampling: Sampling) -> int:
        """Tokens that the solution may still have; vLLM would clamp an overflow without a word."""
        left = sampling.max_tokens - path.tokens
        return left if self.max_model_len is None else min(left, self.max_model_len - prompt_tokens)

    def _body(
        self, prompt: list[int], n: int, sampling: Sampling, seed: int, *, whole: bool, max_tokens: int
    ) -> Mapping[str, Any]:
        """Every sampling parameter is explicit: a checkpoint's generation_config changes what is left out."""
        return {
            "model": self.model,
            "prompt": prompt,
            "n": n,
            "max_tokens": max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "min_p": sampling.min_p,
            "repetition_penalty": sampling.repetition_penalty,
            "seed": seed,
            "stop": None if whole else [sampling.separator],
            "include_stop_str_in_output": True,
            "add_special_tokens": False,
            "return_token_ids": True,
        }

    def _choices(self, reply: Json, n: int) -> list[Json]:
        choices = reply.get("choices")
        if not isinstance(choices, list) or len(choices) != n:
            got = len(choices) if isinstance(choices, list) else "no"
            raise ProtocolError(f"asked for {n} completions and got {got} choices", endpoint=self.endpoint.url)
        return sorted(choices, key=lambda choice: int(choice.get("index", 0)))

    def _step(self, choice: Json) -> Step:
        ids = choice.get("token_ids")
        if not isinstance(choice.get("text"), str) or not isinstance(ids, list):
            raise ProtocolError("a completion lacks its text or token ids", endpoint=self.endpoint.url)
        return Step(choice["text"], finish_of(choice), tuple(ids), len(ids))

    def _book(self, reply: Json, steps: list[Step]) -> None:
        usage = reply.get("usage") or {}
        details = usage.get("prompt_tokens_details") or {}
        ledger.get().book(
            requests=1,
            policy_tokens=sum(step.tokens for step in steps),
            policy_prompt_tokens=usage.get("prompt_tokens") or 0,
            policy_cached_tokens=details.get("cached_tokens") or 0,
        )

    async def _connect(self, _: None) -> None:
        self.model, self.max_model_len = await served_model(self.endpoint, self.model)

    async def _render(self, problem: Problem) -> tuple[int, ...]:
        body = {"model": self.model, "messages": problem.messages, "add_generation_prompt": True}
        try:
            reply = await self.endpoint.post("/tokenize", body)
        except NotFound as failure:
            raise ProtocolError(
                "the server has no /tokenize, so steps cannot be continued token by token", endpoint=self.endpoint.url
            ) from failure
        tokens = reply.get("tokens")
        if not isinstance(tokens, list) or not tokens:
            raise ProtocolError("/tokenize answered without tokens", endpoint=self.endpoint.url)
        return tuple(tokens)


def finish_of(choice: Json) -> Finish:
    """Why a completion ended, by vLLM's measured rules.

    A stop string sets `stop_reason` to that string; EOS (the main one: null, a secondary one: its id) does not; and
    `length` is no end of the text, however the reference reads it.
    """
    if choice.get("finish_reason") != "stop":
        return "length"
    return "step" if isinstance(choice.get("stop_reason"), str) else "eos"


async def served_model(endpoint: Endpoint, wanted: str | None) -> tuple[str, int | None]:
    """The model to ask for and its context length, from `/v1/models`.

    Raises:
        ModelNotFound: naming what the server does have.
    """
    reply = await endpoint.get("/v1/models")
    models = reply.get("data")
    if not isinstance(models, list) or not all(isinstance(m, dict) and isinstance(m.get("id"), str) for m in models):
        raise ProtocolError("/v1/models lists no models; this is no model server", endpoint=endpoint.url)
    names = [m["id"] for m in models]
    if not names:
        raise ModelNotFound("the server lists no models", endpoint=endpoint.url)
    if wanted is not None and wanted not in names:
        raise ModelNotFound(f"no model {wanted!r} here; it serves {', '.join(names)}", endpoint=endpoint.url)
    chosen = models[names.index(wanted)] if wanted is not None else models[0]
    length = chosen.get("max_model_len")
    return chosen["id"], length if isinstance(length, int) else None


def make_endpoint(url: Any, *, api_key: str | None = None, **options: Any) -> Endpoint:
    """An endpoint from a URL, or from an `openai.AsyncOpenAI` that the user already has."""
    if isinstance(url, str):
        return Endpoint(url, api_key=api_key or os.environ.get("OPENAI_API_KEY"), **options)
    base, key = getattr(url, "base_url", None), getattr(url, "api_key", None)
    if base is None or not isinstance(key, str):
        raise UsageError(f"expected a URL, an openai.AsyncOpenAI or a client, not {type(url).__name__}")
    custom = {k: v for k, v in (getattr(url, "default_headers", None) or {}).items() if isinstance(v, str)}
    kept = {k: v for k, v in custom.items() if k.lower() not in {"content-type", "accept", "user-agent"}}
    return Endpoint(str(base), api_key=api_key or key, headers={**kept, **options.pop("headers", {})}, **options)


def as_client(client: Any, **options: Any) -> Client:
    """A client stays what it is; a URL or an `openai.AsyncOpenAI` becomes an OpenAIClient."""
    return client if isinstance(client, Client) else OpenAIClient(client, **options)
