"""An embedded server that can be killed without a word, and started again at the same address."""

import asyncio
import os
import signal
import sys
from contextlib import asynccontextmanager

import orjson


class MortalServer:
    """A process of its own, and the lives that it had."""

    def __init__(self, model):
        self.model, self.url, self.lives = model, "", 0
        self._process = None
        self._tasks = []

    async def start(self):
        port = self.url.rpartition(":")[2] or "0"
        command = [sys.executable, "-m", "asearch_backends.embedded", "--model", self.model, "--port", port]
        pipe = asyncio.subprocess.PIPE
        self._process = await asyncio.create_subprocess_exec(
            *command,
            "--exit-with-parent",
            stdin=pipe,
            stdout=pipe,
            start_new_session=True,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        )
        self.url = orjson.loads(await self._process.stdout.readline())["url"]
        self.lives += 1

    async def kill(self):
        """SIGKILL: connections break, nothing is tidied up."""
        self._process.send_signal(signal.SIGKILL)
        await self._process.communicate()

    def freeze(self):
        """SIGSTOP: connections stay open, and nobody answers any more."""
        self._process.send_signal(signal.SIGSTOP)

    async def renew(self):
        """Kill it, and start it again at the same address."""
        await self.kill()
        await self.start()

    def soon(self, coroutine):
        """Do something to it while the test goes on; whoever closes it sees to the end of that."""
        self._tasks.append(asyncio.ensure_future(coroutine))

    async def aclose(self):
        for task in self._tasks:
            await task
        if self._process.returncode is None:
            await self.kill()


@asynccontextmanager
async def mortal_servers(*models):
    """Servers of these models, for the time of the block."""
    servers = [MortalServer(model) for model in models]
    started = []
    try:
        for server in servers:
            await server.start()
            started.append(server)
        yield servers
    finally:
        for server in started:
            await server.aclose()
