"""Who leaves takes the search along: no request stays behind on the servers. And the proxy leaves in good order."""

import asyncio
import random
import re

import aiohttp
import pytest
from proxies import QUESTION, events, running, until
from test_proxy_limits import Gated, Slow

from asearch.proxy import service
from worlds import ScriptedPRM, World

CLIENTS = 200


async def in_flight(url, session):
    """Sequences that an embedded server runs, or has waiting."""
    async with session.get(f"{url}/metrics") as reply:
        numbers = re.findall(r"^vllm:num_requests_(?:running|waiting){.*} (\S+)$", await reply.text(), re.MULTILINE)
    assert len(numbers) == 2
    return sum(float(number) for number in numbers)


async def settled(servers, session):
    """Wait until nothing runs on the servers; the test's own time limit is how long that may take."""
    for url in (servers.policy, servers.prm):
        while await in_flight(url, session):  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.01)


async def test_two_hundred_streaming_clients(servers):
    async def ask(i):
        async with proxy.post(f"What is ${i} + 4 \\cdot 5 - 2$?", model="majority-1", stream=True) as reply:
            assert reply.status == 200
            said = [event async for event in events(reply)]
        assert said[-1] == "[DONE]"
        return "".join(choice["delta"].get("content", "") for event in said[:-1] for choice in event["choices"])

    async with running(servers.policy, servers.prm, max_concurrent=64, max_waiting=CLIENTS) as proxy:
        answers = await asyncio.gather(*(ask(i) for i in range(CLIENTS)))
        assert all(text.startswith("## Step 1") for text in answers)
        assert len(set(answers)) > CLIENTS / 2, "everybody has the answer to his own question"
        assert proxy.proxy.admission.in_use == proxy.proxy.admission.waiting == 0
        async with proxy.http.get(f"{proxy.url}/metrics") as reply:
            text = await reply.text()
        assert f'asearch_proxy_searches_total{{outcome="done",strategy="majority"}} {CLIENTS}.0' in text


async def test_clients_that_leave_at_random_leave_nothing_running(servers):
    chance = random.Random(8)
    left = 0

    async def ask(i):
        nonlocal left
        stay, stream = chance.randrange(12), chance.random() < 0.7
        options = {"model": chance.choice(["dvts-8", "beam-search-8", "best-of-n-8"]), "asearch": {"progress": True}}
        seen = 0
        async with (
            aiohttp.ClientSession() as own,
            own.post(
                f"{proxy.url}/v1/chat/completions",
                json={"messages": [{"role": "user", "content": QUESTION}], "seed": i, "stream": stream, **options},
            ) as reply,
        ):
            async for _ in events(reply):
                seen += 1
                if seen > stay:
                    left += 1
                    return  # in the middle of the answer

    async def ask_and_leave(i):
        """Some leave at a moment of their own, before a byte of the answer."""
        patience = chance.choice([0.001, 0.01, 0.05, 0.2, None])
        nonlocal left
        try:
            async with asyncio.timeout(patience):
                await ask(i)
        except TimeoutError:
            left += 1

    async with running(servers.policy, servers.prm, max_concurrent=16) as proxy:
        await asyncio.gather(*(ask_and_leave(i) for i in range(60)))
        assert left > 20
        await until(lambda: proxy.proxy.admission.in_use == proxy.proxy.admission.waiting == 0)
        await settled(servers, proxy.http)
        async with proxy.http.get(f"{proxy.url}/metrics") as reply:
            cancelled = re.findall(r'searches_total{outcome="cancelled".*} (\S+)', await reply.text())
        assert sum(map(float, cancelled)) > 10
        assert (await proxy.ask(model="dvts-4"))[0] == 200


@pytest.mark.parametrize("stream", [False, True])
async def test_leaving_cancels_the_requests_of_the_search(stream):
    world = World(depth=2)
    policy = Gated(world)
    async with running(policy, ScriptedPRM(world)) as proxy:
        asked = asyncio.ensure_future(proxy.ask(model="best-of-n-4", stream=stream))
        await until(lambda: policy.open == 4)
        asked.cancel()
        await until(lambda: policy.open == 0)
        assert policy.cancelled == 4
        await until(lambda: proxy.proxy.admission.in_use == 0)


async def test_a_reader_who_takes_nothing_is_left(monkeypatch):
    from asearch.proxy import stream

    monkeypatch.setattr(stream, "WRITE_SECONDS", 0.05)
    world = World(depth=2)
    policy = Gated(world)
    policy.gate.set()
    monkeypatch.setattr("asearch.proxy.chat.pieces", lambda text: ["x" * 10**6] * 16)  # more than buffers hold
    async with running(policy, ScriptedPRM(world)) as proxy:
        host, port = proxy.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port), limit=1024)
        body = b'{"model": "greedy", "stream": true, "messages": [{"role": "user", "content": "1 + 1?"}]}'
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        await reader.readline()  # and not a byte more
        await until(lambda: proxy.proxy.admission.in_use == 0)
        await proxy.proxy.idle()
        writer.close()


async def test_at_the_end_searches_under_way_are_finished():
    world = World(depth=2)
    policy = Gated(world)
    async with running(policy, ScriptedPRM(world)) as proxy:
        asked = [asyncio.ensure_future(proxy.ask(model="greedy", stream=False)) for _ in range(3)]
        await until(lambda: policy.open == 3)
        async with proxy.http.get(f"{proxy.url}/health") as reply:
            assert reply.status == 200
        end = asyncio.ensure_future(service.drain(proxy.proxy, proxy.runner, grace=60))
        await until(lambda: proxy.proxy.draining)
        with pytest.raises(aiohttp.ClientConnectorError):
            async with aiohttp.ClientSession() as other, other.get(f"{proxy.url}/health"):
                pass
        async with proxy.http.get(f"{proxy.url}/health") as reply:  # on a connection that was open before
            assert reply.status == 503
        assert not end.done()
        policy.gate.set()
        assert [status for status, _ in await asyncio.gather(*asked)] == [200] * 3
        await end


@pytest.mark.parametrize("grace", [0.05, 60])
async def test_what_is_not_finished_in_time_is_cancelled_and_told_so(grace):
    """After the grace period, or at once when somebody is in a hurry."""
    world = World(depth=2)
    policy = Gated(world)
    hurry = asyncio.Event()
    async with running(policy, ScriptedPRM(world), max_concurrent=2) as proxy:
        asked = [asyncio.ensure_future(proxy.ask(model="greedy")) for _ in range(4)]
        await until(lambda: policy.open == 2 and proxy.proxy.admission.waiting == 2)
        end = asyncio.ensure_future(service.drain(proxy.proxy, proxy.runner, grace, hurry.wait()))
        if grace > 1:
            hurry.set()
        await end
        for status, body in await asyncio.gather(*asked):
            assert (status, body["error"]["code"]) == (503, "stopping")
        assert policy.open == 0


async def test_a_stream_that_is_cut_at_the_end_says_so():
    world = World(depth=3)
    policy = Slow(world)
    async with running(policy, ScriptedPRM(world)) as proxy:
        async with proxy.post(model="dvts-4", stream=True, asearch={"progress": True}) as reply:
            said = events(reply)
            assert (await anext(said))["choices"][0]["delta"]["role"] == "assistant"
            await until(lambda: policy.open == 1)
            await service.drain(proxy.proxy, proxy.runner, grace=0.01)
            *_, failure, done = [event async for event in said]
        assert (failure["error"]["code"], done) == ("stopping", "[DONE]")
        assert policy.open == 0
