"""The client for vLLM and for every server that speaks OpenAI's protocol."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from asearch.client.detection import Detection
from asearch.client.dialects import Draw
from asearch.client.endpoints import make_endpoint, served_model
from asearch.client.trails import remember, trail_of
from asearch.concurrency import Memo, together
from asearch.errors import BadRequest, EndpointError, ProtocolError, UsageError
from asearch.path import Step
from asearch.transport import cached_tokens
from asearch.usage import ledger

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from asearch.client.detection import Mode
    from asearch.client.dialects import Dialect
    from asearch.path import Path, Sampling
    from asearch.problem import Problem
    from asearch.transport import Json, Replica, Trail

MODES = ("tokens", "text", "prefill", "chat")
TOO_LONG = re.compile(r"context (length|size|window)|max_tokens must be at least 1|prompt is too long", re.IGNORECASE)


class OpenAIClient:
    """A client for vLLM and for every server that speaks OpenAI's protocol.

    What the server can do is found out once, by `connect`: token ids in and out (vLLM), text prompts, an assistant turn
    to be continued, or whole solutions only (hosted APIs, llama.cpp, Ollama).

    Args:
        url: the base URL, with or without `/v1` (or several replicas', see `Endpoint`), or an `openai.AsyncOpenAI` whose
            base URL, key and headers are taken over.
        model: the served model name; None takes the only one that the server lists (of vLLM the first).
        api_key: a bearer token; by default the environment's OPENAI_API_KEY, as the openai SDK does.
        render: how a problem becomes the text of a prompt, for servers or models without a chat template.
        mode: "tokens", "text", "prefill" or "chat" to insist on one way to continue; None takes the best there is.
        **endpoint: further arguments for `Endpoint` (limit, rate, retry, timeouts, headers).
    """

    def __init__(
        self,
        url: Any,
        *,
        model: str | None = None,
        api_key: str | None = None,
        render: Callable[[Problem], str | Awaitable[str]] | None = None,
        mode: Mode | None = None,
        **endpoint: Any,
    ) -> None:
        if mode not in (None, *MODES):
            raise UsageError(f"unknown mode {mode!r}; it is one of {', '.join(MODES)}, or None")
        self.endpoint = make_endpoint(url, api_key=api_key, **endpoint)
        self.model = model
        self.max_model_len: int | None = None
        self._render = render
        self._wanted_mode: Mode | None = mode
        self._dialect: Dialect | None = None
        self._why_whole: list[str] = []
        self._connected: Memo[None, Dialect] = Memo(self._connect)

    def __repr__(self) -> str:
        return f"OpenAIClient({self.endpoint.url!r}, model={self.model!r}, mode={self.mode!r})"

    @property
    def mode(self) -> str | None:
        """How solutions are continued here: "tokens", "text", "prefill" or "chat"; None before `connect`."""
        return self._dialect.name if self._dialect else None

    @property
    def can_continue(self) -> bool:
        """Whether steps can be continued; if not, only whole solutions can be asked for. Known after `connect`."""
        return self._dialect.can_continue if self._dialect else True

    async def connect(self) -> None:
        await self._connected.get(None)

    async def aclose(self) -> None:
        await self.endpoint.aclose()

    async def extend(
        self, path: Path, n: int, *, sampling: Sampling, seed: int, whole: bool = False, max_new: int | None = None
    ) -> list[Step]:
        dialect = await self._connected.get(None)
        self._check(dialect, path, n, whole=whole)
        prompt, length = await dialect.prompt(path)
        want = self._room(path, length, sampling)
        want = want if max_new is None else min(want, max_new)
        if want < 1:
            return [Step("", "length", ())] * n
        distinct = n if sampling.temperature > 0 else 1  # greedy samples are all the same, and vLLM refuses n > 1
        book = ledger.get()
        async with book.reserved(want * distinct, at_least=distinct) as granted:
            stop = None if whole else sampling.separator
            draw = Draw(distinct, sampling, seed, stop, granted // distinct)
            steps = await self._draw(dialect, path, prompt, draw)
        return steps * (n // distinct)

    def _check(self, dialect: Dialect, path: Path, n: int, *, whole: bool) -> None:
        if n < 1:
            raise UsageError(f"n counts continuations and must be at least 1, not {n}")
        if path.finished:
            raise UsageError(f"path {path.name} is finished ({path.finish}) and cannot be continued")
        if not dialect.can_continue and (not whole or path.step is not None):
            raise UsageError(
                f"{self.endpoint.url} writes whole solutions only, so steps cannot be searched: use best_of_n or"
                f" majority, or a server that continues token ids, such as vLLM ({'; '.join(self._why_whole)})"
            )

    def _room(self, path: Path, prompt_tokens: int | None, sampling: Sampling) -> int:
        """Tokens that the solution may still have; vLLM would clamp an overflow without a word.

        Where only the server knows the length of the prompt, that of the solution so far is a lower bound: a max_tokens
        beyond the context is refused (vLLM 0.32).
        """
        left = sampling.max_tokens - path.tokens
        if self.max_model_len is None:
            return left
        return min(left, self.max_model_len - (path.tokens if prompt_tokens is None else prompt_tokens))

    async def _draw(self, dialect: Dialect, path: Path, prompt: Any, draw: Draw) -> list[Step]:
        """The continuations in one request, or in one each where the server cannot do several."""
        if dialect.several or draw.n == 1:
            return await self._request(dialect, path, prompt, draw)
        singles = [Draw(1, draw.sampling, draw.seed + i, draw.stop, draw.max_tokens) for i in range(draw.n)]
        return [
            step
            for steps in await together(self._request(dialect, path, prompt, one) for one in singles)
            for step in steps
        ]

    async def _request(self, dialect: Dialect, path: Path, prompt: Any, draw: Draw) -> list[Step]:
        book = ledger.get()
        book.open_call()
        trail = trail_of(path, self.endpoint)
        try:
            with book.outstanding("policy"):
                reply = await self._post(dialect, prompt, draw, trail)
        except BadRequest as refusal:
            if TOO_LONG.search(str(refusal)):  # a text prompt, whose length only the server knows
                return [Step("", "length", None)] * draw.n
            raise
        steps = dialect.steps(reply, draw)
        remember(path, steps, trail, self.endpoint)
        usage = reply.get("usage") or {}
        book.book(
            requests=1,
            policy_tokens=sum(step.tokens for step in steps),
            policy_prompt_tokens=usage.get("prompt_tokens") or 0,
            policy_cached_tokens=cached_tokens(usage) or 0,
        )
        return steps

    async def _post(self, dialect: Dialect, prompt: Any, draw: Draw, trail: Trail[Replica] | None) -> Json:
        while True:
            route, body = dialect.request(str(self.model), prompt, draw)
            try:
                return await self.endpoint.post(route, body, units=draw.n, trail=trail, own=True)
            except BadRequest as refusal:
                if not dialect.adapt(refusal):
                    raise

    async def _connect(self, _: None) -> Dialect:
        self.model, self.max_model_len = await served_model(self.endpoint, self.model)
        engine = self.max_model_len is not None
        if not engine:
            await self._refuse_tgi()
        detection = Detection(self.endpoint, self.model, engine=engine, render=self._render)
        self._dialect = await detection.best(self._wanted_mode)
        self._why_whole = detection.reasons
        return self._dialect

    async def _refuse_tgi(self) -> None:
        """TGI speaks a protocol like OpenAI's, too, but adds a second BOS and cannot continue there."""
        try:
            info = await self.endpoint.get("/info", patient=False)
        except EndpointError:
            return
        if "max_total_tokens" in info:
            raise ProtocolError(
                f"this is TGI; pass 'tgi+{self.endpoint.url}' or a TGIClient", endpoint=self.endpoint.url
            )
