"""A policy and a verifier behind real HTTP that answer at once: what they say is a hash of what they are asked."""

import math
from contextlib import asynccontextmanager

import orjson
from aiohttp import web

from asearch.serving import listening, url_of
from worlds import World, number

PLUS, MINUS = 15, 17


class InstantServer:
    """Both models on one server, in vLLM's protocol.

    Args:
        depth: steps of a solution.
    """

    def __init__(self, depth=3):
        self.world = World(branching=10**6, depth=depth)
        self.url = ""
        self.under_way = 0  # requests that came and were neither answered nor given up
        self.requests = 0
        self._texts = {}  # token id -> step: one token says all of it

    @property
    def connections(self):
        """Connections that are open."""
        return len(self._runner.server.connections)

    @asynccontextmanager
    async def listening(self):
        app = web.Application(middlewares=[self._watch])
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/tokenize", self._tokenize)
        app.router.add_post("/v1/completions", self._completions)
        async with listening(app, shutdown_timeout=1.0) as self._runner:
            self.url = url_of(self._runner)
            yield self

    @web.middleware
    async def _watch(self, request, handler):
        self.under_way += 1
        self.requests += 1
        try:
            return await handler(request)
        finally:
            self.under_way -= 1

    async def _models(self, _):
        return told({"data": [{"id": "asearch-prm", "max_model_len": 10**6}]})

    async def _tokenize(self, request):
        body = orjson.loads(await request.read())
        verdict = {"+": PLUS, "-": MINUS}.get(body.get("prompt"))
        return told({"tokens": [verdict or self._token(f"prompt {body.get('messages')}")]})

    async def _completions(self, request):
        body = orjson.loads(await request.read())
        if "logprob_token_ids" in body:
            choices = [self._verdict(i, prompt) for i, prompt in enumerate(body["prompt"])]
        else:
            choices = [self._step(body, i) for i in range(body["n"])]
        return told({"choices": choices, "usage": {"prompt_tokens": 100, "completion_tokens": len(choices)}})

    def _verdict(self, index, prompt):
        score = self.world.score((prompt,))
        top = {f"token_id:{PLUS}": math.log(score), f"token_id:{MINUS}": math.log1p(-score)}
        return {"index": index, "text": "+", "finish_reason": "length", "logprobs": {"top_logprobs": [top]}}

    def _step(self, body, index):
        before = tuple(self._texts[token] for token in body["prompt"][1:])
        text, finish = self.world.step(before, number(body["prompt"][0], body["seed"] + index))
        ended = {"finish_reason": "stop", "stop_reason": body.get("stop", [None])[0] if finish == "step" else None}
        return {"index": index, "text": text, "token_ids": [self._token(text)], **ended}

    def _token(self, text):
        token = number(text) % 2**40 + 100
        self._texts[token] = text
        return token


def told(body):
    return web.Response(body=orjson.dumps(body), content_type="application/json")
