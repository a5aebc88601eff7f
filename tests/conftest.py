"""What all tests share: the embedded servers, started once, over real HTTP."""

import asyncio
import os
import threading

import pytest

from asearch.embedded import EmbeddedServers, embedded_servers

os.environ.setdefault(
    "LITELLM_LOCAL_MODEL_COST_MAP", "True"
)  # or LiteLLM asks the network for prices when it is imported


@pytest.fixture(scope="session")
def servers():
    """The URLs of the embedded policy and PRM, in processes of their own for the whole test run."""
    started: list[EmbeddedServers] = []
    ready, finish = threading.Event(), threading.Event()

    async def keep() -> None:
        async with embedded_servers() as running:
            started.append(running)
            ready.set()
            await asyncio.to_thread(finish.wait)

    def run() -> None:
        try:
            asyncio.run(keep())
        finally:
            ready.set()

    thread = threading.Thread(target=run, name="embedded servers")
    thread.start()
    ready.wait()
    yield started[0]
    finish.set()
    thread.join()
