"""A proxy for tests: the real one, on a real socket, over whatever policy and verifier a test brings."""

import asyncio
import json
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import aiohttp

from asearch.client import as_client
from asearch.prm import as_prm
from asearch.proxy import Proxy, ProxyOptions, service
from asearch.workers import AnswerWorkers

QUESTION = r"What is $7 \cdot (12 - 5) + 8 - 3 \cdot 4$?"


@dataclass
class Running:
    """A proxy that listens, and the session to ask it with."""

    url: str
    proxy: Proxy
    runner: object
    http: aiohttp.ClientSession

    async def ask(self, question=QUESTION, **fields):
        """(status, body) of a chat request."""
        async with self.post(question, **fields) as reply:
            return reply.status, await reply.json()

    def post(self, question=QUESTION, *, headers=None, **fields):
        body = {"model": "best-of-n-4", "messages": [{"role": "user", "content": question}], **fields}
        return self.http.post(f"{self.url}/v1/chat/completions", json=body, headers=headers)


@asynccontextmanager
async def running(policy, prm, **options):
    """A proxy over these, for the time of the block; URLs become clients."""
    async with AsyncExitStack() as stack:
        client, verifier = as_client(policy), None if prm is None else as_prm(prm)
        for given, made in ((policy, client), (prm, verifier)):
            if made is not None:
                await made.connect()
            if made is not given:
                stack.push_async_callback(made.aclose)
        workers = await stack.enter_async_context(AnswerWorkers(size=1))
        proxy = Proxy(client, verifier, workers, ProxyOptions(**options))
        url, runner = await stack.enter_async_context(service.listening(proxy, "127.0.0.1", 0))
        session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        yield Running(url, proxy, runner, await stack.enter_async_context(session))


async def events(reply):
    """The data of each server-sent event; "[DONE]" as it stands."""
    async for line in reply.content:
        if line.startswith(b"data: "):
            data = line.removeprefix(b"data: ").strip().decode()
            yield data if data == "[DONE]" else json.loads(data)


async def until(condition):
    """Let the event loop turn until something has happened; the test's own time limit ends it."""
    while not condition():  # noqa: ASYNC110 - what is waited for does not know of the test
        await asyncio.sleep(0.001)
