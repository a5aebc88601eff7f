"""A proxy that breaks requests on their way to a real server, by a plan that a seed determines."""

import asyncio
import hashlib
from collections import Counter
from contextlib import asynccontextmanager, suppress

import aiohttp
from aiohttp import web

from asearch.serving import listening, url_of

# What can go wrong. The good ones end in an answer all the same.
KINDS = (
    "reset before",
    "reset inside",
    "429",
    "429 with Retry-After",
    "500",
    "503",
    "hang",
    "truncated",
    "slow",
)
STATUS = {"429": 429, "429 with Retry-After": 429, "500": 500, "503": 503}
RETRY_AFTER = 0.05  # seconds; short, so that tests are
PIECES, PAUSE = 5, 0.02  # of a slow answer


def at_random(seed, share=0.2, kinds=KINDS):
    """A plan: the same fault for the same attempt of the same request, `share` of them all."""

    def plan(key, attempt, _body):
        digest = hashlib.blake2b(f"{seed}|{key}|{attempt}".encode(), digest_size=8).digest()
        chance = int.from_bytes(digest, "big") / 2**64
        if chance >= share:
            return None
        kind = kinds[int(chance / share * len(kinds))]
        # the first look at a server gives up at once on one that says nothing, and says so: that is no fault to survive
        return "500" if kind == "hang" and key.startswith("GET") else kind

    return plan


class FaultProxy:
    """One proxy before one server.

    Args:
        upstream: the server's URL.
        plan: (key, attempt, body) -> one of `KINDS`, or None to let it pass. A key names a request: method, path and
            body.
    """

    def __init__(self, upstream, plan):
        self.upstream, self.plan = upstream, plan
        self.url = ""
        self.sent = Counter()  # key -> how often it came
        self.answered = Counter()  # key -> how often it was answered as it should be
        self.faults = Counter()  # (key, kind) -> how often it was broken
        self.left = Counter()  # key -> how often the client left before an answer, without being made to
        self.errors = []  # what broke in here

    @asynccontextmanager
    async def listening(self):
        app = web.Application(client_max_size=2**26)
        app.router.add_route("*", "/{tail:.*}", self._answer)
        async with listening(app, shutdown_timeout=1.0) as runner:
            self.url = url_of(runner)
            async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as self._session:
                yield self

    def kinds(self):
        """How often each kind of fault was met."""
        total = Counter()
        for (_, kind), times in self.faults.items():
            total[kind] += times
        return total

    def posts(self):
        """The keys of what was asked of the models, without the first looks at the server."""
        return [key for key in self.sent if key.startswith("POST /v1/completions")]

    def story(self, key):
        """What became of a request, for messages."""
        faults = {kind: self.faults[key, kind] for kind in KINDS if self.faults[key, kind]}
        return f"{key}: sent {self.sent[key]}, answered {self.answered[key]}, left {self.left[key]}, {faults}"

    def broken(self, key):
        """How often a request failed at the fault of this proxy."""
        return sum(self.faults[key, kind] for kind in KINDS if kind != "slow")

    async def _answer(self, request):
        body = await request.read()
        key = f"{request.method} {request.path} {hashlib.blake2b(body, digest_size=8).hexdigest()}"
        attempt = self.sent[key]
        self.sent[key] += 1
        kind = self.plan(key, attempt, body)
        if kind is not None:
            self.faults[key, kind] += 1
        try:
            return await self._broken(request, body, key, kind)
        except asyncio.CancelledError:
            self.left[key] += kind in (None, "slow")
            raise
        except Exception as failure:
            self.errors.append(failure)
            raise

    async def _broken(self, request, body, key, kind):
        if kind == "reset before":
            request.transport.abort()
            return web.Response()
        if kind == "hang":
            await asyncio.Event().wait()
        if kind in STATUS:
            headers = {"Retry-After": str(RETRY_AFTER)} if "Retry" in kind else {}
            return web.json_response({"error": {"message": kind}}, status=STATUS[kind], headers=headers)
        status, answer = await self._forward(request, body)
        if kind == "truncated":
            answer = answer[: len(answer) // 2]
        if kind in ("reset inside", "slow"):
            return await self._piecemeal(request, answer, key, whole=kind == "slow")
        self.answered[key] += kind is None
        return web.Response(body=answer, status=status, content_type="application/json")

    async def _forward(self, request, body):
        async with self._session.request(
            request.method,
            f"{self.upstream}{request.path_qs}",
            data=body,
            headers={"Content-Type": "application/json"},
        ) as reply:
            return reply.status, await reply.read()

    async def _piecemeal(self, request, answer, key, *, whole):
        """An answer in pieces: slowly to its end, or half of it and then the connection breaks."""
        reply = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": str(len(answer))})
        await reply.prepare(request)
        size = -(-len(answer) // PIECES)
        pieces = [answer[i : i + size] for i in range(0, len(answer), size)]
        with suppress(ConnectionError):
            for piece in pieces[:-1] if whole else pieces[: len(pieces) // 2]:
                await reply.write(piece)
                await asyncio.sleep(PAUSE if whole else 0)
            if whole:
                self.answered[key] += 1  # before the last byte: with that the client has what it wants, and may go
                await reply.write(pieces[-1])
        if not whole:
            request.transport.abort()
        return reply


@asynccontextmanager
async def fault_proxies(servers, plan):
    """A proxy before the policy and one before the verifier."""
    policy, prm = FaultProxy(servers.policy, plan), FaultProxy(servers.prm, plan)
    async with policy.listening(), prm.listening():
        yield policy, prm
