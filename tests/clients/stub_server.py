"""A real HTTP server on aiohttp that answers as a test says, and remembers what it was asked."""

import asyncio
from contextlib import asynccontextmanager

from aiohttp import web


class Stub:
    """Routes to answers: a dict (JSON), a (status, dict) pair, a web.Response, or a function of (body, request) to one.

    A list is used up answer by answer, its last one for ever.
    """

    def __init__(self, **routes):
        self.routes = {name if name.startswith("/") else f"/{name}": answer for name, answer in routes.items()}
        self.requests = []  # (route, headers, query, body)
        self.url = ""
        self.connections = set()

    @asynccontextmanager
    async def listening(self, tls=None, host="127.0.0.1", port=0):
        app = web.Application()
        app.router.add_route("*", "/{tail:.*}", self._answer)
        runner = web.AppRunner(app, handler_cancellation=True)
        await runner.setup()
        try:
            site = web.TCPSite(runner, host, port, ssl_context=tls)
            await site.start()
            self.port = runner.addresses[0][1]
            self.url = f"{'https' if tls else 'http'}://localhost:{self.port}"
            yield self
        finally:
            await runner.cleanup()

    def hang_up(self):
        """Break all connections at once, as a process that is killed does."""
        for transport in self.connections:
            transport.abort()

    def asked(self, route):
        """The bodies that came for a route."""
        return [body for name, _, _, body in self.requests if name == route]

    async def _answer(self, request):
        body = await request.json() if request.can_read_body else None
        self.requests.append((request.path, request.headers.copy(), dict(request.query), body))
        self.connections.add(request.transport)
        answer = self.routes.get(request.path, (404, {"detail": "Not Found"}))
        if isinstance(answer, list):
            answer = answer.pop(0) if len(answer) > 1 else answer[0]
        if callable(answer):
            answer = answer(body, request)
            if asyncio.iscoroutine(answer):
                answer = await answer
        if isinstance(answer, web.StreamResponse):
            return answer
        status, payload = answer if isinstance(answer, tuple) else (200, answer)
        return web.json_response(payload, status=status)


def reset(_body, request):
    """Break the connection before a byte of the answer."""
    request.transport.abort()
    return web.Response()


async def reset_inside(_body, request):
    """Break the connection in the middle of the answer."""
    reply = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": "1000"})
    await reply.prepare(request)
    await reply.write(b'{"data": [')
    request.transport.close()
    return reply


async def hang(_body, _request):
    """Never answer; the client's leaving ends it."""
    await asyncio.Event().wait()


def models(*names, **extra):
    return {"object": "list", "data": [{"id": name, "object": "model", **extra} for name in names]}


def openai_error(message, kind="invalid_request_error", code=None):
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def chat_reply(text="Therefore, $\\boxed{4}$.", finish="stop", **extra):
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish, **extra}
    return {"choices": [choice], "usage": {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14}}


def completion_reply(*texts, finish="stop", **extra):
    choices = [{"index": i, "text": text, "finish_reason": finish, **extra} for i, text in enumerate(texts)]
    return {"choices": choices, "usage": {"prompt_tokens": 9, "completion_tokens": 5 * len(texts)}}
