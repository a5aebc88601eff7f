"""The HTTP side: routes, checks, streams. asyncio only moves requests; the engine works in its own thread."""

from __future__ import annotations

import random
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import orjson
from aiohttp import web

from asearch import serving
from asearch.serving import BodyError, read_body
from asearch_backends.embedded import protocol
from asearch_backends.embedded.answers import ChatAnswer, CompletionAnswer, usage_of, version
from asearch_backends.embedded.jobs import Job, Prompt, Writer
from asearch_backends.embedded.metrics import prometheus_text
from asearch_backends.embedded.protocol import ApiError
from asearch_backends.embedded.sequence import EngineError
from asearch_backends.embedded.tokenizer import ChatTemplateError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from asearch_backends.embedded.answers import Answer
    from asearch_backends.embedded.engine import Engine
    from asearch_backends.embedded.sampling import SamplingParams
    from asearch_backends.embedded.tokenizer import Tokenizer

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

KEEP_ALIVE = 5.0  # seconds, as vLLM's default
MAX_BODY = 256 * 2**20


class Server:
    """The handlers, over one engine and one model."""

    def __init__(
        self,
        engine: Engine,
        tokenizer: Tokenizer,
        limits: protocol.Limits,
        *,
        name: str,
        root: str,
        max_queued: int | None = None,
        api_key: str | None = None,
    ) -> None:
        self._engine, self._tokenizer, self._limits = engine, tokenizer, limits
        self.name, self._root = name, root
        self._max_queued, self._api_key = max_queued, api_key
        self._created = int(time.time())

    def app(self) -> web.Application:
        """The application with all its routes."""
        app = web.Application(middlewares=[self._guard], client_max_size=MAX_BODY)
        app.router.add_get("/health", self._health)
        app.router.add_route("*", "/ping", self._health)
        app.router.add_get("/version", self._version)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/completions", self._completions)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_post("/tokenize", self._tokenize)
        app.router.add_post("/detokenize", self._detokenize)
        return app

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Keys, and errors in their JSON form."""
        if self._api_key is not None and request.path.startswith("/v1"):
            given = request.headers.get("Authorization", "")
            if given != f"Bearer {self._api_key}":
                return _json({"error": "Unauthorized"}, status=401)
        try:
            return await handler(request)
        except (ApiError, BodyError, ChatTemplateError, EngineError) as error:
            refusal = _refusal(error)
            return _json(refusal.body, status=refusal.status)
        except web.HTTPException as error:
            return _json({"detail": error.reason}, status=error.status)

    # -- generation --

    async def _completions(self, http: web.Request) -> web.StreamResponse:
        request = protocol.parse(protocol.CompletionRequest, await read_body(http), http.content_type)
        self._check_model(request.model)
        request.refuse_unsupported()
        tokens = protocol.completion_prompts(request, self._tokenizer, self._limits)
        asked = 16 if request.max_tokens is None else request.max_tokens
        prompts = [Prompt(t, self._params(request, asked, len(t), request.logprobs)) for t in tokens]
        answer = CompletionAnswer(self.name, self._tokenizer, request, _request_id("cmpl", http))
        return await self._answer(http, request, prompts, answer)

    async def _chat(self, http: web.Request) -> web.StreamResponse:
        request = protocol.parse(protocol.ChatRequest, await read_body(http), http.content_type)
        self._check_model(request.model)
        request.refuse_unsupported()
        ids = self._render(request, add_special_tokens=request.add_special_tokens)
        tokens = protocol.checked_prompt(ids, self._limits.vocab_size)
        asked = request.max_tokens if request.max_completion_tokens is None else request.max_completion_tokens
        logprobs = (request.top_logprobs or 0) if request.logprobs else None
        prompts = [Prompt(tokens, self._params(request, asked, len(tokens), logprobs))]
        return await self._answer(
            http, request, prompts, ChatAnswer(self.name, self._tokenizer, request, _request_id("chatcmpl", http))
        )

    async def _answer(
        self, http: web.Request, request: protocol.SamplingRequest, prompts: list[Prompt], answer: Answer
    ) -> web.StreamResponse:
        """Run the sequences of a request; if the caller leaves, they are aborted."""
        self._check_queue(len(prompts) * request.choices)
        job = Job(prompts, request.choices, request.seed, streaming=bool(request.stream))
        self._engine.submit(job.sequences)
        try:
            if request.stream:
                return await self._stream(http, request, job, answer)
            completions = await job.wait()
            return _json(answer.whole(job, completions))
        finally:
            if job.unfinished:
                self._engine.abort(job.unfinished)

    async def _stream(
        self, http: web.Request, request: protocol.SamplingRequest, job: Job, answer: Answer
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        await response.prepare(http)
        try:
            for opening in answer.opening(job):
                await response.write(_event(opening))
            writers = [Writer(self._tokenizer, s) for s in job.sequences]
            async for delta in job.deltas():
                writer = writers[delta.sequence.index]
                await response.write(_event(answer.chunk(delta, writer.text(delta), first=writer.first)))
                writer.first = False
            if request.stream_options is not None and request.stream_options.include_usage:
                usage = usage_of(job, [c for c in job.completions if c is not None])
                await response.write(_event(answer.envelope([]) | {"usage": usage}))
        except EngineError as error:
            await response.write(_event(_refusal(error).body))
        await response.write(b"data: [DONE]\n\n")
        await response.write_eof()
        return response

    def _params(
        self, request: protocol.SamplingRequest, asked: int | None, prompt: int, logprobs: int | None
    ) -> SamplingParams:
        return protocol.sampling_params(
            request, asked_tokens=asked, prompt=prompt, logprobs=logprobs, limits=self._limits
        )

    def _check_model(self, model: str | None) -> None:
        if model is not None and model != self.name:
            message = f"The model `{model}` does not exist. Valid aliases: {self.name}."
            raise ApiError(message, status=404, kind="NotFoundError", param="model")

    def _check_queue(self, sequences: int) -> None:
        if self._max_queued is not None and self._engine.waiting + sequences > self._max_queued:
            message = "The engine is currently busy and cannot accept new requests. Please try again later."
            raise ApiError(message, status=503, kind="Service Unavailable")

    # -- tokens --

    async def _tokenize(self, http: web.Request) -> web.Response:
        request = protocol.parse(protocol.TokenizeRequest, await read_body(http), http.content_type)
        self._check_model(request.model)
        special = request.add_special_tokens
        if request.messages is not None:
            tokens = self._render(request, add_special_tokens=bool(special))
        elif request.prompt is not None:
            tokens = self._tokenizer.encode(request.prompt, add_special_tokens=special is not False)
        else:
            raise ApiError("either prompt or messages must be given.", kind="Bad Request", param="prompt")
        strings = [self._tokenizer.token_string(t) for t in tokens] if request.return_token_strs else None
        body = {"count": len(tokens), "max_model_len": self._limits.max_model_len, "tokens": tokens}
        return _json(body | {"token_strs": strings})

    async def _detokenize(self, http: web.Request) -> web.Response:
        request = protocol.parse(protocol.DetokenizeRequest, await read_body(http), http.content_type)
        self._check_model(request.model)
        if request.tokens:
            protocol.checked_prompt(request.tokens, self._limits.vocab_size)
        return _json({"prompt": self._tokenizer.decode(request.tokens, skip_special_tokens=False)})

    def _render(
        self, request: protocol.ChatRequest | protocol.TokenizeRequest, *, add_special_tokens: bool
    ) -> list[int]:
        if request.chat_template is not None:
            raise ApiError("Chat templates in requests are not accepted by this server.", param="chat_template")
        if request.continue_final_message and request.add_generation_prompt:
            raise ApiError(
                "Cannot set both `continue_final_message` and `add_generation_prompt` to True.",
                kind="Bad Request",
                param="continue_final_message",
            )
        text = self._tokenizer.render(
            protocol.chat_messages(request.messages or []),
            add_generation_prompt=request.add_generation_prompt,
            continue_final_message=request.continue_final_message,
            **(request.chat_template_kwargs or {}),
        )
        return self._tokenizer.encode(text, add_special_tokens=add_special_tokens)

    # -- state --

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response(status=200 if self._engine.failure is None else 503)

    async def _version(self, _: web.Request) -> web.Response:
        return _json({"version": version()})

    async def _metrics(self, _: web.Request) -> web.Response:
        text = prometheus_text(self._engine, self.name)
        return web.Response(text=text, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    async def _models(self, _: web.Request) -> web.Response:
        card = {
            "id": self.name,
            "object": "model",
            "created": self._created,
            "owned_by": "asearch",
            "root": self._root,
            "parent": None,
            "max_model_len": self._limits.max_model_len,
            "permission": [],
        }
        return _json({"object": "list", "data": [card]})


def _request_id(prefix: str, http: web.Request) -> str:
    return f"{prefix}-{http.headers.get('X-Request-Id') or _identifier()}"


def _identifier() -> str:
    # Not uuid4: reading the system's randomness lets go of the interpreter lock, and getting it back can take a millisecond.
    return f"{random.getrandbits(128):032x}"


def _json(body: Any, *, status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(body), status=status, content_type="application/json")


def _event(body: Any) -> bytes:
    return b"data: " + orjson.dumps(body) + b"\n\n"


def _refusal(error: ApiError | BodyError | ChatTemplateError | EngineError) -> ApiError:
    if isinstance(error, BodyError):
        return ApiError(str(error), status=error.status, kind="Bad Request")
    if isinstance(error, ChatTemplateError):
        return ApiError(str(error), param="messages")
    if isinstance(error, EngineError):
        return ApiError(str(error), status=500, kind="Internal Server Error")
    return error


@asynccontextmanager
async def listening(server: Server, host: str, port: int) -> AsyncIterator[str]:
    """Accept connections; the value is the base URL."""
    served = serving.listening(
        server.app(), host, port, backlog=4096, keepalive_timeout=KEEP_ALIVE, shutdown_timeout=0.5
    )
    async with served as runner:
        yield serving.url_of(runner)
