"""A stand-in for TGI: its protocol, with its measured quirks, on top of the embedded engine.

TGI itself needs a GPU and a container. What it would say is known from its OpenAPI document, to which every request and
reply is held, and from measurements: no n, a BOS that is always added, stop strings in the text, `length` checked before
the end of the text, and a validation that refuses what other servers read as "off".
"""

from __future__ import annotations

import json
import re
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import web

from asearch.serving import listening, url_of
from tgi.openapi import Violation

MODEL = "asearch/standin"
SPECIAL = re.compile(r"<\|\w+\|>")


class Refused(Exception):
    """A reply with an error status, in TGI's shape."""

    def __init__(self, status, error, error_type, headers=None):
        super().__init__(error)
        self.status, self.body, self.headers = status, {"error": error, "error_type": error_type}, headers or {}


class StandIn:
    """The server's state, and what a test may look at or turn.

    Args:
        upstream: URL of an embedded server, which holds model and tokenizer.
        document: an OpenAPI to hold requests and replies to, or None.
    """

    def __init__(self, upstream, document, *, max_input_tokens=448, max_total_tokens=512, max_concurrent_requests=128):
        self.upstream = upstream
        self.document = document
        self.max_input_tokens = max_input_tokens
        self.max_total_tokens = max_total_tokens
        self.max_concurrent_requests = max_concurrent_requests
        self.running = self.peak = 0
        self.requests = []  # (route, headers, body)
        self.prompts = []  # the ids that the model read, per /generate
        self.violations = []
        self.next_replies = []  # Refused or web.Response, given instead of the next generations
        self._texts = {}
        self._session = None

    @asynccontextmanager
    async def listening(self):
        """Serve on a free port; yields the URL."""
        app = web.Application(middlewares=[self._held_to_the_document])
        app.add_routes(
            [
                web.get("/info", self.info),
                web.post("/tokenize", self.tokenize),
                web.post("/chat_tokenize", self.chat_tokenize),
                web.post("/generate", self.generate),
            ]
        )
        # a client that leaves ends its handler, and with it the request to the engine
        async with aiohttp.ClientSession() as self._session, listening(app) as runner:
            yield url_of(runner)

    @web.middleware
    async def _held_to_the_document(self, request, handler):
        route, method = request.path, request.method.lower()
        if isinstance(request.match_info.http_exception, web.HTTPNotFound):
            return await handler(request)
        body = await request.json() if method == "post" else None
        self.requests.append((route, request.headers.copy(), body))
        try:
            if self.document and method == "post":
                self._check_request(route, body)
            reply = await handler(request)
        except Refused as refused:
            reply = web.json_response(refused.body, status=refused.status, headers=refused.headers)
        if self.document and reply.content_type == "application/json" and reply.body:
            self._check_reply(method, route, reply)
        return reply

    def _check_request(self, route, body):
        try:
            self.document.check_request(route, body)
            unknown = self.document.unknown("GenerateParameters", body.get("parameters") or {})
        except Violation as violation:
            self.violations.append(str(violation))
            raise Refused(422, f"Failed to deserialize the JSON body: {violation}", "validation") from None
        if unknown:
            self.violations.append(f"unknown parameters {unknown}")

    def _check_reply(self, method, route, reply):
        try:
            self.document.check_reply(method, route, reply.status, json.loads(reply.body))
        except Violation as violation:
            self.violations.append(str(violation))

    async def info(self, request):
        del request
        return web.json_response(
            {
                "model_id": MODEL,
                "model_pipeline_tag": "text-generation",
                "max_concurrent_requests": self.max_concurrent_requests,
                "max_best_of": 2,
                "max_stop_sequences": 4,
                "max_input_tokens": self.max_input_tokens,
                "max_total_tokens": self.max_total_tokens,
                "validation_workers": 2,
                "max_client_batch_size": 4,
                "router": "text-generation-router",
                "version": "3.3.0",
            }
        )

    async def tokenize(self, request):
        text = (await request.json())["inputs"]
        ids = await self._ids({"prompt": text, "add_special_tokens": True})
        return web.json_response(await self._spans(ids, text, added=1))

    async def chat_tokenize(self, request):
        messages = (await request.json())["messages"]
        ids = await self._ids({"messages": messages, "add_generation_prompt": True})
        text = (await self._post("/detokenize", {"tokens": ids}))["prompt"]
        return web.json_response({"templated_text": text, "tokenize_response": await self._spans(ids, text, added=0)})

    async def generate(self, request):
        body = await request.json()
        if self.next_replies:
            reply = self.next_replies.pop(0)
            if isinstance(reply, Refused):
                raise reply
            return reply
        if self.running >= self.max_concurrent_requests:
            raise Refused(429, "Model is overloaded", "overloaded")
        self.running += 1
        self.peak = max(self.peak, self.running)
        try:
            return web.json_response(await self._generated(body["inputs"], body.get("parameters") or {}))
        finally:
            self.running -= 1

    async def _generated(self, text, asked):
        ids = await self._ids({"prompt": text, "add_special_tokens": True})  # the BOS is added whatever the text says
        limit = asked.get("max_new_tokens") or 1024
        self._validate(asked, len(ids), limit)
        self.prompts.append(ids)
        top = asked.get("top_n_tokens")
        reply = await self._post("/v1/completions", completion(ids, asked, limit, top))
        choice = reply["choices"][0]
        finish = finish_reason(choice, limit)
        tokens, tops = await self._tokens(choice, top)
        details = {
            "finish_reason": finish,
            "generated_tokens": len(tokens),
            "seed": asked.get("seed"),
            "prefill": [],
            "tokens": tokens,
        }
        if top:
            details["top_tokens"] = tops
        answer = {"generated_text": choice["text"]}
        return answer | ({"details": details} if asked.get("details", False) else {})

    def _validate(self, asked, length, limit):
        def refuse(why):
            raise Refused(422, f"Input validation error: {why}", "validation")

        rules = [
            ("temperature", lambda v: v > 0, "`temperature` must be strictly positive"),
            ("top_p", lambda v: 0 < v < 1, "`top_p` must be > 0.0 and < 1.0"),
            ("top_k", lambda v: v > 0, "`top_k` must be strictly positive"),
            ("seed", lambda v: v > 0, "`seed` must be strictly positive"),
            ("repetition_penalty", lambda v: v > 0, "`repetition_penalty` must be strictly positive"),
        ]
        for name, holds, why in rules:
            if asked.get(name) is not None and not holds(asked[name]):
                refuse(why)
        if asked.get("decoder_input_details"):
            refuse("this would turn the prefix cache off")  # TGI does it; our client must not ask for it
        if length > self.max_input_tokens:
            refuse(f"`inputs` must have less than {self.max_input_tokens} tokens. Given: {length}")
        if length + limit > self.max_total_tokens:
            refuse(
                f"`inputs` tokens + `max_new_tokens` must be <= {self.max_total_tokens}. "
                f"Given: {length} `inputs` tokens and {limit} `max_new_tokens`"
            )

    async def _tokens(self, choice, top):
        logprobs = choice["logprobs"]
        tokens, tops = [], []
        for i, token in enumerate(choice["token_ids"]):
            tokens.append(await self._token(token, logprobs["token_logprobs"][i]))
            if top:
                likely = sorted(logprobs["top_logprobs"][i].items(), key=lambda item: -item[1])[:top]
                tops.append([await self._token(int(name.removeprefix("token_id:")), value) for name, value in likely])
        return tokens, tops

    async def _token(self, token, logprob):
        text = await self._text(token)
        return {"id": token, "text": text, "logprob": logprob, "special": bool(SPECIAL.fullmatch(text))}

    async def _spans(self, ids, text, *, added):
        """Tokens with their places in the text; those that the tokenizer added have none."""
        spans, at = [], 0
        for i, token in enumerate(ids):
            length = 0 if i < added else len(await self._text(token))
            spans.append({"id": token, "text": text[at : at + length], "start": at, "stop": at + length})
            at += length
        return spans

    async def _text(self, token):
        if token not in self._texts:
            self._texts[token] = (await self._post("/detokenize", {"tokens": [token]}))["prompt"]
        return self._texts[token]

    async def _ids(self, body):
        return (await self._post("/tokenize", body))["tokens"]

    async def _post(self, route, body):
        async with self._session.post(self.upstream + route, json=body) as reply:
            answer = await reply.json()
            assert reply.status == 200, answer
            return answer


def completion(ids, asked, limit, top):
    """What to ask of the engine for TGI's parameters."""
    sampling = asked.get("do_sample") or asked.get("temperature") not in (None, 1.0)
    return {
        "prompt": ids,
        "max_tokens": limit,
        "temperature": (asked.get("temperature") or 1.0) if sampling else 0.0,
        "top_p": asked.get("top_p") or 1.0,
        "top_k": asked.get("top_k") or -1,
        "min_p": 0.0,
        "repetition_penalty": asked.get("repetition_penalty") or 1.0,
        "seed": asked.get("seed"),
        "stop": asked.get("stop") or [],
        "include_stop_str_in_output": True,
        "return_token_ids": True,
        "logprobs": top or 0,
        "return_tokens_as_token_ids": True,
    }


def finish_reason(choice, limit):
    """In TGI's order: the limit first, then the end of the text, then stop strings."""
    if len(choice["token_ids"]) >= limit or choice["finish_reason"] == "length":
        return "length"
    return "stop_sequence" if isinstance(choice["stop_reason"], str) else "eos_token"
