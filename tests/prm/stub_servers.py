"""Small real HTTP servers that answer as vLLM, TGI or something broken would, without a model behind them."""

from __future__ import annotations

import math
import zlib
from contextlib import asynccontextmanager

from aiohttp import web

from asearch.serving import listening, url_of

PLUS, MINUS = 15, 17
NOISE = {f"token_id:{100 + i}": -3.0 - i / 8 for i in range(20)}


def logits(prefix: str) -> tuple[float, float]:
    """The log-probabilities of "+" and "-" after a text: any, but always the same."""
    crc = zlib.crc32(prefix.encode())
    return -1.0 - crc % 97 / 50, -1.0 - crc // 97 % 89 / 50


def probability(prefix: str) -> float:
    good, bad = logits(prefix)
    return math.exp(good) / (math.exp(good) + math.exp(bad))


class Stub:
    """A server whose replies a test can turn.

    Args:
        name: the served model name.
        root: the path that it says it came from.
        completions: "new" knows logprob_token_ids, "old" ignores it, "strict" refuses it, "none" has no such route.
        mute: prefixes for which one or both verdicts are not among the likeliest ("+", "-" or "+-").
        rows: what /pooling answers for an input, or None where there is no such route.
        card: further fields of the model's entry in /v1/models.
        cached: tokens that replies say came from the prefix cache; None: they say nothing of it.
    """

    def __init__(
        self, name="asearch-prm", *, root=None, completions="new", rows=None, card=None, mute=None, cached=None
    ):
        self.name, self.root = name, root
        self.completions = completions
        self.rows = rows
        self.cached = cached
        self.card = card or {}
        self.mute = mute or {}
        self.seen: list[tuple[str, dict]] = []
        self.raw: web.Response | None = None
        self.template = None  # renders chats, where the model has a template

    def prompts(self) -> list[str]:
        """All texts that were sent to be completed."""
        return [prompt for route, body in self.seen if route == "/v1/completions" for prompt in body["prompt"]]

    @asynccontextmanager
    async def listening(self):
        app = web.Application(middlewares=[self._watch])
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/tokenize", self._tokenize)
        app.router.add_post("/detokenize", self._detokenize)
        app.router.add_post("/classify", self._classify)
        if self.completions != "none":
            app.router.add_post("/v1/completions", self._completions)
        if self.rows is not None:
            app.router.add_post("/pooling", self._pooling)
        async with listening(app) as runner:
            yield url_of(runner)

    @web.middleware
    async def _watch(self, request, handler):
        body = await request.json() if request.method == "POST" else {}
        self.seen.append((request.path, body))
        if self.raw is not None and request.method == "POST":
            return web.Response(body=self.raw.body, status=self.raw.status, content_type=self.raw.content_type)
        return await handler(request)

    async def _models(self, _):
        card = {"id": self.name, "object": "model", "root": self.root or self.name, "max_model_len": 512, **self.card}
        return web.json_response({"object": "list", "data": [card]})

    async def _tokenize(self, request):
        """One token per character, but "+" and "-"."""
        body = await request.json()
        if "messages" in body:
            if self.template is None:
                return refuse("this tokenizer has no chat template")
            text = self.template(body["messages"])
        else:
            text = body["prompt"]
        return web.json_response({"tokens": [{"+": PLUS, "-": MINUS}.get(c, 1000 + ord(c)) for c in text]})

    async def _detokenize(self, request):
        tokens = (await request.json())["tokens"]
        return web.json_response({"prompt": "".join({PLUS: "+", MINUS: "-"}.get(t) or chr(t - 1000) for t in tokens)})

    async def _completions(self, request):
        body = await request.json()
        if self.completions == "strict" and "logprob_token_ids" in body:
            return refuse("Extra inputs are not permitted: logprob_token_ids")
        choices = [self._choice(i, prompt, body) for i, prompt in enumerate(body["prompt"])]
        usage = self._usage(sum(map(len, body["prompt"])))
        return web.json_response({"choices": choices[::-1], "usage": usage})

    def _usage(self, tokens):
        details = None if self.cached is None else {"cached_tokens": self.cached}
        return {"prompt_tokens": tokens, "prompt_tokens_details": details}

    def _choice(self, index, prompt, body):
        good, bad = logits(prompt)
        muted = self.mute.get(prompt, "")
        top = {"token_id:99": -0.5}
        if self.completions == "new" and "logprob_token_ids" in body:
            top |= {f"token_id:{PLUS}": good, f"token_id:{MINUS}": bad}
        elif body["logprobs"]:
            top |= dict(list(NOISE.items())[: body["logprobs"]])
            top |= {} if "+" in muted else {f"token_id:{PLUS}": good}
            top |= {} if "-" in muted else {f"token_id:{MINUS}": bad}
        return {"index": index, "text": "x", "logprobs": {"top_logprobs": [top]}}

    async def _pooling(self, request):
        body = await request.json()
        data = [{"index": i, "object": "pooling", "data": self.rows(item)} for i, item in enumerate(body["input"])]
        return web.json_response({"data": data, "usage": self._usage(100)})

    async def _classify(self, request):
        chat = (await request.json())["messages"]
        probability_ = len(chat[1]["content"]) % 10 / 10
        data = [{"index": 0, "probs": [1 - probability_, probability_]}]
        return web.json_response({"data": data, "usage": self._usage(100)})


def refuse(message):
    return web.json_response({"error": {"message": message, "type": "BadRequestError", "code": 400}}, status=400)
