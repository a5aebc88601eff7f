"""An embedded server with one fault: a proxy in front of it that changes what goes in, or what comes out."""

import asyncio
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import web

from asearch.serving import listening, url_of


class Faulty:
    """Everything passes, but for the fault.

    Args:
        upstream: the healthy server.
        asked: (route, body) -> the body that the server gets instead.
        answered: (route, body, reply) -> the reply that the caller gets instead.
        at_once: more requests than these are refused with 503.
    """

    def __init__(self, upstream, *, asked=None, answered=None, at_once=None):
        self.upstream = upstream
        self.asked = asked or (lambda route, body: body)
        self.answered = answered or (lambda route, body, reply: reply)
        self.at_once = at_once
        self.running = 0
        self.seen = []

    @asynccontextmanager
    async def listening(self):
        app = web.Application()
        app.router.add_route("*", "/{tail:.*}", self._pass_on)
        async with aiohttp.ClientSession() as self._session, listening(app) as runner:
            yield url_of(runner)

    async def _pass_on(self, request):
        self.running += 1
        try:
            if self.at_once is not None and request.method == "POST" and self.running > self.at_once:
                await asyncio.sleep(0)
                return web.json_response({"error": {"message": "busy", "code": 503}}, status=503)
            return await self._answer(request)
        finally:
            self.running -= 1

    async def _answer(self, request):
        if request.method == "GET":
            async with self._session.get(self.upstream + request.path) as reply:
                return web.Response(body=await reply.read(), status=reply.status, content_type=reply.content_type)
        given = await request.json()
        self.seen.append((request.path, given))
        body = self.asked(request.path, dict(given))
        async with self._session.post(self.upstream + request.path, json=body) as reply:
            answer = await reply.json()
            if reply.status == 200:
                answer = self.answered(request.path, given, answer)
            return web.json_response(answer, status=reply.status)


def each_choice(change):
    """Change every choice of a completion."""

    def answered(route, body, reply):
        if route == "/v1/completions":
            for choice in reply["choices"]:
                change(choice)
        return reply

    return answered


def in_completions(change):
    """Change the body of every completion."""
    return lambda route, body: change(body) if route == "/v1/completions" else body


def in_chats(change):
    """Change the messages of everything that renders a chat."""

    def asked(_route, body):
        if "messages" in body:
            body["messages"] = [dict(message) for message in body["messages"]]
            change(body["messages"])
        return body

    return asked
