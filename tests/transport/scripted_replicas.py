"""Replicas without sockets: each answers as a test says, on the virtual clock."""

import asyncio
import json

from asearch.errors import ServerError, Unreachable
from asearch.transport import Endpoint, Replica


class Server:
    """What stands behind one URL.

    Args:
        seconds: for an answer.
        answer: (route, body) -> JSON, or an exception to raise.
    """

    def __init__(self, seconds=1.0, answer=lambda _route, _body: {}):
        self.seconds, self.answer = seconds, answer
        self.running = self.waiting = 0
        self.alive = True
        self.came = []  # (time, route, body)
        self.looked = []  # times at which its health was asked
        self._dying = asyncio.Event()

    def kill(self):
        self.alive = False
        self._dying.set()

    def restart(self):
        self.alive = True
        self._dying = asyncio.Event()

    async def serve(self, route, body):
        now = asyncio.get_running_loop().time()
        if not self.alive:
            raise Unreachable("no connection (refused)")
        self.came.append((now, route, body))
        dying = asyncio.ensure_future(self._dying.wait())
        try:
            done, _ = await asyncio.wait([dying], timeout=self.seconds)
        finally:
            dying.cancel()
        if done:
            raise ServerError("the connection broke off before an answer")
        answer = self.answer(route, body)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def page(self, route):
        if route == "/health":
            self.looked.append(asyncio.get_running_loop().time())
        if not self.alive:
            raise Unreachable("no connection (refused)")
        return f"vllm:num_requests_running {self.running}\nvllm:num_requests_waiting {self.waiting}\n"

    def bodies(self):
        return [body for _, _, body in self.came]

    def asked(self):
        return [body["i"] for body in self.bodies()]


def endpoint_of(servers, **options):
    """An endpoint whose replicas are these: a dict from host names to servers."""

    class ScriptedReplica(Replica):
        @property
        def server(self):
            return servers[self.url.removeprefix("http://")]

        async def request(self, method, route, body=None, *, patient=True):
            for stats in self.books:
                stats.requests += 1
            return await self.server.serve(route, None if body is None else json.loads(body))

        async def text(self, route):
            return await self.server.page(route)

    class ScriptedEndpoint(Endpoint):
        replica_class = ScriptedReplica

    return ScriptedEndpoint([f"http://{name}" for name in servers], **options)


def replica(endpoint, name):
    return next(replica for replica in endpoint.replicas if replica.url == f"http://{name}")
