"""The laws of clients, on every server there is in the tests; and that each law can be broken."""

import asyncio

import aiohttp
import openai
import pytest
from fake_clients import BREAKAGES, FakeClient

from asearch.client import OpenAIClient, as_client
from asearch.path import Sampling
from asearch.testing import assert_client_laws

RUNNING = ("vllm:num_requests_running", "vllm:num_requests_waiting")


@pytest.fixture
async def running(servers):
    """How many sequences the embedded policy has under way."""
    async with aiohttp.ClientSession() as session:

        async def count():
            async with session.get(servers.policy + "/metrics") as reply:
                lines = (await reply.text()).splitlines()
            return int(sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(RUNNING)))

        yield count


@pytest.mark.parametrize("mode", [None, "tokens", "text", "prefill", "chat"])
async def test_embedded_server(servers, running, mode):
    client = OpenAIClient(servers.policy, mode=mode)
    try:
        await assert_client_laws(client, running=running)
        assert client.mode == (mode or "tokens")
        assert client.can_continue == (mode != "chat")
    finally:
        await client.aclose()


async def test_embedded_server_by_way_of_an_sdk_client(servers, running):
    async with openai.AsyncOpenAI(base_url=f"{servers.policy}/v1", api_key="unused") as sdk:
        client = as_client(sdk)
        await assert_client_laws(client, running=running, seed=1_000, sampling=Sampling(temperature=0.8))
        await client.aclose()


async def test_fake():
    await assert_client_laws(FakeClient())


@pytest.mark.parametrize("law", BREAKAGES)
async def test_a_broken_client_is_named(law):
    with pytest.raises(AssertionError, match=f"law '{law}'"):
        await assert_client_laws(BREAKAGES[law]())


async def test_laws_leave_nothing_running():
    before = asyncio.all_tasks()
    client = FakeClient()
    await assert_client_laws(client)
    assert asyncio.all_tasks() == before
    assert client.under_way == 0
