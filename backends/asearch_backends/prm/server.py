"""The HTTP side: vLLM's `/pooling` and `/tokenize`, and forms of them that take problem and steps as they are."""

from __future__ import annotations

import asyncio
import hmac
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import orjson
from aiohttp import web

from asearch import serving
from asearch.concurrency import Batcher, together
from asearch.prm.base import OWN_SERVER
from asearch.serving import BodyError, read_body
from asearch_backends.prm.scorer import Encoded, InputError, Rows, Scorer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

T = TypeVar("T")

MAX_INPUTS = 1024
TEXT = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(slots=True)
class Counters:
    """What the server has done since it started."""

    requests: int = 0
    paths: int = 0
    rows: int = 0
    tokens: int = 0
    batches: int = 0
    errors: int = 0
    seconds: float = 0.0


class RequestError(Exception):
    """A request that is refused, with its status."""

    def __init__(self, message: str, status: int = 400, kind: str = "BadRequestError") -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind


class Server:
    """One scorer behind HTTP.

    While the model works, requests gather; then they go through together, sorted by length.

    Args:
        scorer: what scores.
        name: the served model name.
        api_key: asked for as a bearer token, but for /health.
        max_body: bytes of a request.
        max_waiting: paths that may wait; more are refused with 503.
    """

    def __init__(
        self,
        scorer: Scorer,
        *,
        name: str,
        api_key: str | None = None,
        max_body: int = 16 * 2**20,
        max_waiting: int = 16_384,
    ) -> None:
        self.scorer = scorer
        self.name = name
        self.counters = Counters()
        self._api_key = api_key
        self._max_body = max_body
        self._max_waiting = max_waiting
        self._created = int(time.time())
        # One thread each: the event loop stays free, and neither tokenizer nor model is entered twice at a time.
        self._tokenizing = ThreadPoolExecutor(1, thread_name_prefix="tokenizing")
        self._scoring = ThreadPoolExecutor(1, thread_name_prefix="scoring")
        self._batcher: Batcher[Encoded, Rows] = Batcher(
            self._score, concurrency=1, max_items=512, max_cost=8 * scorer.max_batch_tokens, cost=len
        )

    def app(self) -> web.Application:
        """The routes."""
        app = web.Application(middlewares=[self._guard], client_max_size=self._max_body)
        app.router.add_get("/health", self._health)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/pooling", self._pooling)
        app.router.add_post("/tokenize", self._tokenize)
        return app

    async def aclose(self) -> None:
        """Stop: what still waits is answered with an error."""
        await self._batcher.aclose()
        for thread in (self._tokenizing, self._scoring):
            thread.shutdown(cancel_futures=True)

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Keys, and errors in their JSON form."""
        if self._api_key is not None and request.path != "/health":
            given = request.headers.get("Authorization", "")
            if not hmac.compare_digest(given.encode(), f"Bearer {self._api_key}".encode()):
                return _json({"error": "Unauthorized"}, status=401)
        try:
            return await handler(request)
        except (RequestError, InputError, BodyError) as error:
            self.counters.errors += 1
            return _refusal(error)
        except web.HTTPRequestEntityTooLarge:
            self.counters.errors += 1
            return _refusal(RequestError(f"the request is larger than {self._max_body} bytes", 413))
        except web.HTTPException as error:
            return _json({"detail": error.reason}, status=error.status)
        except RuntimeError as error:  # what torch raises, and the batcher once it is closed
            self.counters.errors += 1
            return _refusal(RequestError(str(error).splitlines()[0], 500, "Internal Server Error"))

    async def _pooling(self, http: web.Request) -> web.StreamResponse:
        self.counters.requests += 1
        request = _object(await read_body(http))
        self._check_model(request.get("model"))
        inputs = _inputs(request.get("input"))
        if self._batcher.waiting + len(inputs) > self._max_waiting:
            raise RequestError("The server is busy and cannot accept new requests.", 503, "Service Unavailable")
        special = request.get("add_special_tokens") is not False
        paths = await self._in(self._tokenizing, lambda: [self._encode(item, special=special) for item in inputs])
        rows = await together(self._batcher.submit(path) for path in paths)
        tokens = sum(map(len, paths))
        data = [{"index": i, "object": "pooling", "data": found} for i, found in enumerate(rows)]
        usage = {"prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0}
        envelope = {"id": f"pooling-{uuid.uuid4().hex}", "object": "list", "created": int(time.time())}
        return _json({**envelope, "model": self.name, "data": data, "usage": usage})

    async def _tokenize(self, http: web.Request) -> web.StreamResponse:
        """What a text, a chat or a solution has for tokens: as vLLM answers, and exactly as /pooling would read it."""
        request = _object(await read_body(http))
        self._check_model(request.get("model"))
        ids = await self._in(self._tokenizing, lambda: self._ids(request))
        strings = self.scorer.checkpoint.tokenizer.convert_ids_to_tokens(ids)
        body = {"count": len(ids), "max_model_len": self.scorer.checkpoint.max_length, "tokens": ids}
        return _json(body | {"token_strs": strings if request.get("return_token_strs") else None})

    def _ids(self, request: dict[str, Any]) -> Sequence[int]:
        special = request.get("add_special_tokens")
        if isinstance(prompt := request.get("prompt"), str):
            return self.scorer.tokenize(prompt, special=special is not False)
        if (messages := request.get("messages")) is not None:
            flags = ("add_generation_prompt", True), ("continue_final_message", False)
            options = {name: request.get(name, default) is True for name, default in flags}
            return self.scorer.tokenize_chat(_chat(messages), special=special is True, **options)
        if "problem" in request or "steps" in request:
            return self.scorer.lay_out(*_solution(request)).ids
        raise RequestError("one of prompt (a text), messages, or problem and steps must be given")

    def _encode(self, item: Any, *, special: bool) -> Encoded:
        if isinstance(item, dict):
            return self.scorer.encode_path(*_solution(item))
        return self.scorer.encode_text(item, special=special) if isinstance(item, str) else self.scorer.encode_ids(item)

    async def _score(self, paths: list[Encoded]) -> list[Rows]:
        began = time.perf_counter()
        rows = await self._in(self._scoring, lambda: self.scorer.score(paths))
        count = self.counters
        count.seconds += time.perf_counter() - began
        count.batches += 1
        count.paths += len(paths)
        count.rows += sum(map(len, rows))
        count.tokens += sum(map(len, paths))
        return rows

    async def _in(self, thread: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(thread, work)

    def _check_model(self, model: Any) -> None:
        if model is not None and model != self.name:
            raise RequestError(f"The model `{model}` does not exist. Valid aliases: {self.name}.", 404, "NotFoundError")

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response()

    async def _models(self, _: web.Request) -> web.Response:
        card = {
            "id": self.name,
            "object": "model",
            "created": self._created,
            "owned_by": OWN_SERVER,
            "root": self.scorer.checkpoint.name,
            "family": self.scorer.checkpoint.family.name,
            "max_model_len": self.scorer.checkpoint.max_length,
        }
        return _json({"object": "list", "data": [card]})

    async def _metrics(self, _: web.Request) -> web.Response:
        count = self.counters
        gauges = {"paths_waiting": self._batcher.waiting, "batches_running": self._batcher.in_flight}
        totals = {
            "requests_total": count.requests,
            "paths_total": count.paths,
            "rows_total": count.rows,
            "tokens_total": count.tokens,
            "batches_total": count.batches,
            "forward_passes_total": self.scorer.forward_passes,
            "errors_total": count.errors,
            "seconds_total": count.seconds,
        }
        lines = []
        for kind, values in (("gauge", gauges), ("counter", totals)):
            for name, value in values.items():
                lines += [f"# TYPE asearch_prm_{name} {kind}", f"asearch_prm_{name} {float(value)}"]
        return web.Response(text="\n".join(lines) + "\n", headers={"Content-Type": TEXT})


def _object(raw: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as failure:
        raise RequestError(f"the request is not JSON: {failure}") from None
    if not isinstance(value, dict):
        raise RequestError("the request must be a JSON object")
    return value


def _solution(item: dict[str, Any]) -> tuple[str, list[str]]:
    """The problem and the steps of an input."""
    problem, steps = item.get("problem"), item.get("steps")
    if not isinstance(problem, str) or not isinstance(steps, list) or not all(isinstance(s, str) for s in steps):
        raise InputError('an input must be {"problem": text, "steps": [text, ...]}, a text or token ids')
    return problem, steps


def _chat(messages: Any) -> list[dict[str, str]]:
    """The messages of a chat: texts only."""
    listed = messages if isinstance(messages, list) else []
    whole = all(isinstance(m, dict) and all(isinstance(m.get(k), str) for k in ("role", "content")) for m in listed)
    if not listed or not whole:
        raise InputError("messages must be a list of objects, each with a role and a text as content")
    return listed


def _inputs(given: Any) -> list[Any]:
    """One input or a list of inputs -> a list of inputs: texts, lists of token ids, or objects."""
    if isinstance(given, str | dict) or (isinstance(given, list) and given and isinstance(given[0], int)):
        given = [given]
    if not isinstance(given, list) or not given:
        raise RequestError(
            "input must be a text, token ids, an object with problem and steps, or a list of one of these"
        )
    if len(given) > MAX_INPUTS:
        raise RequestError(f"{len(given)} inputs are more than the {MAX_INPUTS} of one request")
    if not all(isinstance(item, str | dict | list) for item in given):
        raise RequestError("input must be a list of one kind: texts, lists of token ids, or objects")
    return given


def _refusal(error: RequestError | InputError | BodyError) -> web.Response:
    status, kind = getattr(error, "status", 400), getattr(error, "kind", "BadRequestError")
    return _json({"error": {"message": str(error), "type": kind, "param": None, "code": status}}, status=status)


def _json(body: Any, *, status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(body), status=status, content_type="application/json")


@asynccontextmanager
async def listening(server: Server, host: str, port: int) -> AsyncIterator[str]:
    """Accept connections; the value is the base URL."""
    async with serving.listening(server.app(), host, port, shutdown_timeout=2.0) as runner:
        try:
            yield serving.url_of(runner)
        finally:
            await server.aclose()
