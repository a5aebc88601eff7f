"""The HTTP side of the proxy: keys, routes, errors, and its state. What a chat request gets is made in `chat`."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from aiohttp import web

from asearch.proxy.admission import Admission
from asearch.proxy.catalogue import Catalogue
from asearch.proxy.chat import answered, json_reply, streamed, understood
from asearch.proxy.errors import ApiError
from asearch.proxy.metrics import CONTENT_TYPE, Metrics
from asearch.proxy.searches import Searches, stopping

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from asearch.client import Client
    from asearch.prm import PRM
    from asearch.proxy.options import ProxyOptions
    from asearch.workers import AnswerWorkers

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

log = logging.getLogger("asearch.proxy")
request_id: ContextVar[str] = ContextVar("request_id")


class Proxy:
    """The handlers, over one policy and one verifier.

    Args:
        client: the policy, connected.
        prm: the verifier, connected; None: only strategies without one are offered.
        workers: processes that compare answers.
        options: limits and keys.
    """

    def __init__(self, client: Client, prm: PRM | None, workers: AnswerWorkers, options: ProxyOptions) -> None:
        self.options = options
        self.catalogue = Catalogue(client, prm, budgets=options.budgets, max_n=options.max_n, plan=options.plan)
        self.admission = Admission(options.max_concurrent, options.max_waiting)
        self.metrics = Metrics(self.admission)
        self.searches = Searches(client, prm, workers, self.metrics)
        self.draining = False
        self._created = int(time.time())
        self._answering = 0
        self._quiet = asyncio.Event()
        self._quiet.set()

    def app(self) -> web.Application:
        """The application with all its routes."""
        app = web.Application(middlewares=[self._guard], client_max_size=self.options.max_body)
        app.router.add_get("/health", self._health)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/v1/models/{model}", self._model)
        app.router.add_post("/v1/chat/completions", self._chat)
        return app

    async def idle(self) -> None:
        """Wait until no chat request is being answered."""
        await self._quiet.wait()

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Keys first, whatever the path; and whatever goes wrong has OpenAI's shape."""
        request_id.set(secrets.token_hex(16))
        began = time.monotonic()
        try:
            self._check_key(request)
            response = await handler(request)
        except ApiError as refusal:
            response = _refusal(refusal)
        except web.HTTPException as failure:
            response = _refusal(_of_aiohttp(failure, request, self.options.max_body))
        except Exception:
            log.exception("a request failed")
            response = _refusal(ApiError("the proxy failed; see its log", status=500))
        if not response.prepared:
            response.headers["X-Request-Id"] = f"req-{request_id.get()}"
        self.metrics.answered(_route(request), response.status)
        log.info(
            "%s %s %d, %.3f s, %s",
            request.method,
            _route(request),
            response.status,
            time.monotonic() - began,
            request_id.get(),
        )
        return response

    def _check_key(self, http: web.Request) -> None:
        """Without a key there is only /health, for those who watch over the process; a wrong one is refused there, too."""
        given = http.headers.get("Authorization")
        if not self.options.keys or (given is None and http.path == "/health"):
            return
        if not self.options.keys.admit(given):
            raise ApiError(
                "wrong or missing API key: send one of the proxy's as `Authorization: Bearer KEY`",
                status=401,
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )

    async def _chat(self, http: web.Request) -> web.StreamResponse:
        """A search, or several; counted, so that the end of the process can wait for it."""
        if self.draining:
            raise stopping()
        self._answering += 1
        self._quiet.clear()
        try:
            asked = await understood(http, request_id.get(), self.catalogue, self.options)
            async with self.admission.place(len(asked.order.seeds), asked.deadline):
                return await (streamed if asked.request.stream else answered)(http, asked, self.searches)
        finally:
            self._answering -= 1
            if not self._answering:
                self._quiet.set()

    # -- state --------------------------------------------------------------------------------------------------------

    async def _models(self, _: web.Request) -> web.Response:
        return json_reply({"object": "list", "data": [self._card(name) for name in self.catalogue.models]})

    async def _model(self, http: web.Request) -> web.Response:
        name = self.catalogue.canonical(http.match_info["model"])
        return json_reply(self._card(name))

    def _card(self, name: str) -> dict[str, Any]:
        strategy = self.catalogue.strategy(name, {})
        return {
            "id": name,
            "object": "model",
            "created": self._created,
            "owned_by": "asearch",
            "asearch": strategy.describe(),
        }

    async def _health(self, _: web.Request) -> web.Response:
        """Whether new searches are taken."""
        if self.draining:
            raise stopping()
        return json_reply({"status": "ok"})

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=self.metrics.text(), headers={"Content-Type": CONTENT_TYPE})


def _route(http: web.Request) -> str:
    """The pattern that the path matched: what callers invent must not become a label."""
    resource = http.match_info.route.resource
    return resource.canonical if resource is not None else "unknown"


def _of_aiohttp(failure: web.HTTPException, http: web.Request, max_body: int) -> ApiError:
    if failure.status == 413:
        return ApiError(f"the body is larger than {max_body} bytes", status=413, code="body_too_large")
    if failure.status == 404:
        return ApiError(f"no such route: {http.method[:20]} {http.path[:100]}", status=404, code="unknown_url")
    allow = {"Allow": failure.headers["Allow"]} if "Allow" in failure.headers else {}
    return ApiError(failure.reason or "the request was refused", status=failure.status, headers=allow)


def _refusal(error: ApiError) -> web.Response:
    return json_reply(error.body, status=error.status, headers=error.headers)
