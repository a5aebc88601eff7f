"""Limits: searches at once, those that wait, bodies, time; and what upstream failures look like from outside."""

import asyncio

import openai
import pytest
from proxies import events, running, until

import asearch
from asearch.errors import AuthError, BadRequest, Overloaded, RequestTimeout, ServerError, Unreachable
from asearch.proxy import stream as stream_module
from worlds import ScriptedClient, ScriptedPRM, World


class Gated(ScriptedClient):
    """A policy that answers when it is let."""

    def __init__(self, world):
        super().__init__(world)
        self.gate = asyncio.Event()

    async def _wait(self, path, seed):
        self.open += 1
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.open -= 1


WORLD = World(depth=2)


@pytest.fixture
def policy():
    return Gated(WORLD)


@pytest.fixture
def prm():
    return ScriptedPRM(WORLD)


async def test_what_is_too_much_is_refused_with_the_time_to_come_back(policy, prm):
    async with running(policy, prm, max_concurrent=2, max_waiting=1) as proxy:
        asked = [asyncio.ensure_future(proxy.ask(f"{i} + 1?", model="greedy")) for i in range(3)]
        await until(lambda: proxy.proxy.admission.waiting == 1 and policy.open == 2)
        assert proxy.proxy.admission.in_use == 2
        async with proxy.post(model="greedy") as reply:
            body = await reply.json()
            assert reply.status == 429
            assert 1 <= int(reply.headers["Retry-After"]) <= 60
            assert (body["error"]["type"], body["error"]["code"]) == ("rate_limit_error", "rate_limit_exceeded")
            assert "2 searches are under way and 1 wait" in body["error"]["message"]
        policy.gate.set()
        assert [status for status, _ in await asyncio.gather(*asked)] == [200] * 3
        assert (await proxy.ask(model="greedy"))[0] == 200
        assert proxy.proxy.admission.in_use == proxy.proxy.admission.waiting == 0


async def test_a_request_for_choices_takes_as_many_places(policy, prm):
    async with running(policy, prm, max_concurrent=3, max_waiting=0) as proxy:
        first = asyncio.ensure_future(proxy.ask(model="greedy", n=2))
        await until(lambda: policy.open == 2)
        assert (await proxy.ask(model="greedy", n=2))[0] == 429
        policy.gate.set()
        status, body = await first
        assert (status, len(body["choices"])) == (200, 2)
        assert (await proxy.ask(model="greedy", n=4))[0] == 400, "more than there are places"


async def test_a_refused_stream_is_refused_by_its_status(policy, prm):
    async with running(policy, prm, max_concurrent=1, max_waiting=0) as proxy:
        first = asyncio.ensure_future(proxy.ask(model="greedy"))
        await until(lambda: policy.open == 1)
        async with proxy.post(model="greedy", stream=True) as reply:
            assert reply.status == 429
        policy.gate.set()
        await first


async def test_waiting_for_a_place_ends_with_the_request_s_time(policy, prm):
    async with running(policy, prm, max_concurrent=1) as proxy:
        first = asyncio.ensure_future(proxy.ask(model="greedy"))
        await until(lambda: policy.open == 1)
        status, body = await proxy.ask(model="greedy", timeout=0.05)
        assert (status, body["error"]["code"]) == (429, "rate_limit_exceeded")
        assert proxy.proxy.admission.waiting == 0
        policy.gate.set()
        await first


async def test_time_without_a_single_step_is_an_error_that_is_not_worth_another_try(policy, prm):
    async with running(policy, prm) as proxy, proxy.post(model="dvts-4", timeout=0.05) as reply:
        assert (reply.status, reply.headers["x-should-retry"]) == (504, "false")
        assert policy.cancelled > 0
        assert policy.open == 0


class Slow(Gated):
    """A policy whose first level comes at once and whose second does not come."""

    async def _wait(self, path, seed):
        if path.depth:
            await super()._wait(path, seed)


@pytest.mark.parametrize("how", ["timeout", "header", "operator"])
async def test_at_the_deadline_there_is_what_was_found(prm, how):
    policy = Slow(World(depth=3))
    async with running(policy, prm, max_seconds=0.2 if how == "operator" else 600) as proxy:
        limit = {"timeout": 0.2} if how == "timeout" else {}
        headers = {"X-Stainless-Read-Timeout": "0.2"} if how == "header" else None
        async with proxy.post(model="dvts-4", headers=headers, asearch={"details": True}, **limit) as reply:
            body = await reply.json()
        assert reply.status == 200, body
        choice = body["choices"][0]
        assert (choice["finish_reason"], choice["asearch"]["stopped_by"]) == ("length", "seconds")
        assert choice["message"]["content"].startswith("## Step 1")
        assert policy.open == 0


async def test_the_official_client_has_its_answer_before_it_gives_up(prm):
    policy = Slow(World(depth=3))
    async with (
        running(policy, prm) as proxy,
        openai.AsyncOpenAI(base_url=f"{proxy.url}/v1", api_key="x", max_retries=0, timeout=2.0) as client,
    ):
        question = [{"role": "user", "content": "1 + 1?"}]
        reply = await client.chat.completions.create(model="dvts-4", messages=question)
        assert reply.choices[0].finish_reason == "length"
        assert reply.choices[0].message.content.startswith("## Step 1")


async def test_a_body_that_does_not_come_is_not_waited_for(policy, prm, monkeypatch):
    monkeypatch.setattr("asearch.serving.BODY_SECONDS", 0.05)
    async with running(policy, prm) as proxy:
        host, port = proxy.url.removeprefix("http://").split(":")
        for length, kind in ((b"1000", b"408"), (b"2", b"400")):
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(
                b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                b"Content-Length: " + length + b"\r\n\r\n{}"
            )
            assert (await reader.readline()).split()[1] == kind
            writer.close()


async def test_a_compressed_body_is_refused(policy, prm):
    async with running(policy, prm) as proxy:
        url = f"{proxy.url}/v1/chat/completions"
        headers = {"Content-Type": "application/json", "Content-Encoding": "deflate"}
        async with proxy.http.post(url, data=b"{}", headers=headers) as reply:
            assert reply.status == 415
            assert "must not be compressed" in (await reply.json())["error"]["message"]


async def test_a_large_body_is_refused(policy, prm):
    policy.gate.set()
    async with running(policy, prm, max_body=1000) as proxy:
        async with proxy.post("x" * 2000) as reply:
            assert reply.status == 413
            assert "larger than 1000 bytes" in (await reply.json())["error"]["message"]

        async def endless():
            for _ in range(100):
                yield b"x" * 1000

        url, headers = f"{proxy.url}/v1/chat/completions", {"Content-Type": "application/json"}
        async with proxy.http.post(url, data=endless(), headers=headers) as reply:  # no Content-Length
            assert reply.status == 413
        assert (await proxy.ask("1 + 1?"))[0] == 200


async def test_a_body_that_a_web_page_could_send_is_refused(policy, prm):
    async with running(policy, prm) as proxy:
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
            url = f"{proxy.url}/v1/chat/completions"
            async with proxy.http.post(url, data=b"{}", headers={"Content-Type": kind}) as reply:
                assert reply.status == 415


@pytest.mark.parametrize(
    ("failure", "status", "says"),
    [
        (Unreachable("no connection", endpoint="http://10.1.2.3:8000"), 502, "no connection"),
        (ServerError("it broke", endpoint="http://10.1.2.3:8000", status=500), 502, "it broke"),
        (AuthError("key sk-upstream", endpoint="http://10.1.2.3:8000"), 502, "another API key"),
        (RequestTimeout("no answer", endpoint="http://10.1.2.3:8000"), 504, "did not answer in time"),
        (Overloaded("busy", endpoint="http://10.1.2.3:8000", retry_after=7.2), 503, "overloaded"),
        (BadRequest("prompt too long", endpoint="http://10.1.2.3:8000"), 400, "prompt too long"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_failures_behind_the_proxy_say_what_and_not_where(prm, failure, status, says, stream):
    policy = ScriptedClient(WORLD, fail=lambda path, seed: failure)
    async with running(policy, prm) as proxy, proxy.post(model="dvts-4", stream=stream) as reply:
        error = (await reply.json())["error"]
        assert reply.status == status, error
        assert says in error["message"]
        assert "10.1.2.3" not in str(error)
        assert "sk-upstream" not in str(error)
        if isinstance(failure, Overloaded):
            assert reply.headers["Retry-After"] == "8"


async def test_a_failure_in_the_middle_of_a_stream_is_an_event(prm):
    def fail(path, seed):
        return ServerError("it broke") if path.depth else None

    policy = ScriptedClient(World(depth=3), fail=fail)
    async with running(policy, prm) as proxy:
        async with proxy.post(model="dvts-4", stream=True, asearch={"progress": True}) as reply:
            assert reply.status == 200
            said = [event async for event in events(reply)]
        assert "it broke" in said[-2]["error"]["message"]
        assert said[-2]["error"]["type"] == "server_error"
        assert said[-1] == "[DONE]"
        assert proxy.proxy.admission.in_use == 0


async def test_a_bug_is_a_500_that_says_nothing(caplog):
    def broken(path, seed):
        raise RuntimeError("secret detail")

    async with running(ScriptedClient(WORLD, fail=broken), ScriptedPRM(WORLD)) as proxy:
        status, body = await proxy.ask(model="dvts-4")
        assert (status, body["error"]["type"]) == (500, "server_error")
        assert "secret detail" not in str(body)
        assert "secret detail" in caplog.text, "the operator sees it"


async def test_a_quiet_stream_shows_that_it_lives(policy, prm, monkeypatch):
    monkeypatch.setattr(stream_module, "QUIET_SECONDS", 0.01)
    async with running(policy, prm) as proxy, proxy.post(model="greedy", stream=True) as reply:
        seen = b""
        async for line in reply.content:
            seen += line
            if seen.count(b": searching") == 3:
                policy.gate.set()
        assert seen.rstrip().endswith(b"data: [DONE]")


async def test_the_official_client_reads_over_signs_of_life(policy, prm, monkeypatch):
    monkeypatch.setattr(stream_module, "QUIET_SECONDS", 0.01)
    async with (
        running(policy, prm) as proxy,
        openai.AsyncOpenAI(base_url=f"{proxy.url}/v1", api_key="x", max_retries=0) as client,
    ):
        question = [{"role": "user", "content": "1 + 1?"}]
        stream = await client.chat.completions.create(model="greedy", messages=question, stream=True)
        assert policy.open == 1, "the stream has begun, and the search has found nothing yet"
        policy.gate.set()
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
        assert "boxed" in text


async def test_the_laws_of_a_client_hold_for_the_proxy(servers):
    """The library can stand on the proxy: a model of it is a policy of whole solutions."""
    async with running(servers.policy, servers.prm) as proxy:
        client = asearch.OpenAIClient(proxy.url, model="best-of-n-4", mode="chat")
        try:
            result = await asearch.majority(client, None, "What is $3 + 4 \\cdot 5 - 2$?", n=4, max_tokens=200)
        finally:
            await client.aclose()
        assert result.answer == "21"
