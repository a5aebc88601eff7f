"""Replicas over real sockets: small servers that answer as a test says, and the embedded ones."""

import asyncio
import socket
from contextlib import AsyncExitStack

import pytest
from stub_server import Stub, hang, models

import asearch
from asearch.client import OpenAIClient
from asearch.embedded import embedded_problems, embedded_server
from asearch.errors import Closed, NotFound, Unreachable, UsageError
from asearch.prm import as_prm
from asearch.transport import Endpoint, Probes, Retry, Timeouts

SOON = Probes(first=0.01, longest=0.05)
MODEL = models("m", max_model_len=512)


async def until(condition, seconds=20):
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.01)


@pytest.fixture
async def stubs():
    """Two servers of the same model."""
    async with AsyncExitStack() as stack:
        made = [Stub(**{"/v1/models": MODEL, "/v1/x": {"fine": True}, "/health": {}}) for _ in range(2)]
        yield [await stack.enter_async_context(stub.listening()) for stub in made]


async def test_requests_are_spread(stubs):
    endpoint = Endpoint([stub.url for stub in stubs])
    await asyncio.gather(*(endpoint.post("/v1/x", {"i": i}) for i in range(20)))
    assert [len(stub.asked("/v1/x")) for stub in stubs] == [10, 10]
    assert [replica.stats.requests for replica in endpoint.replicas] == [10, 10]
    assert endpoint.stats.requests == 20
    assert endpoint.url == ",".join(stub.url for stub in stubs)
    await endpoint.aclose()


async def test_one_of_two_killed_and_restarted():
    """All is answered, the dead one is found out, and taken back at the same address."""
    routes = {"/v1/models": MODEL, "/v1/x": hang, "/health": {}}
    async with Stub(**{**routes, "/v1/x": {"fine": True}}).listening() as alive, AsyncExitStack() as life:
        mortal = await life.enter_async_context(Stub(**routes).listening())
        endpoint = Endpoint([mortal.url, alive.url], probes=SOON)
        sent = [asyncio.ensure_future(endpoint.post("/v1/x", {"i": i})) for i in range(20)]
        await until(lambda: len(mortal.asked("/v1/x")) == 10)
        mortal.hang_up()
        await life.aclose()
        assert await asyncio.gather(*sent) == [{"fine": True}] * 20
        assert endpoint.stats.moves >= 10
        assert (endpoint.limiter.in_use, endpoint.limiter.waiting) == (0, 0)
        await endpoint.post("/v1/x", {}, replica=endpoint.replicas[0])
        assert not endpoint.replicas[0].up
        before = len(alive.asked("/v1/x"))
        async with Stub(**{**routes, "/v1/x": {"again": True}}).listening(port=mortal.port) as reborn:
            await until(lambda: endpoint.replicas[0].up)
            await asyncio.gather(*(endpoint.post("/v1/x", {"i": i}) for i in range(10)))
            assert len(reborn.asked("/v1/x")) == len(alive.asked("/v1/x")) - before == 5
        await endpoint.aclose()


async def test_replicas_must_serve_the_same_model(stubs):
    stubs[1].routes["/v1/models"] = models("other", max_model_len=512)
    client = OpenAIClient([stub.url for stub in stubs])
    with pytest.raises(
        UsageError, match=r"serves (m|other), and not (m|other) as the others do; the replicas"
    ) as caught:
        await client.connect()
    assert any(stub.url in str(caught.value) for stub in stubs)
    await client.aclose()


async def test_replicas_must_have_the_same_context(stubs):
    stubs[1].routes["/v1/models"] = models("m", max_model_len=256)
    client = OpenAIClient([stub.url for stub in stubs])
    with pytest.raises(UsageError, match=r"serves m with a context of (512|256) tokens, and not (512|256)"):
        await client.connect()
    await client.aclose()


async def test_a_replica_without_models_is_refused_by_name(stubs):
    stubs[1].routes.pop("/v1/models")
    endpoint = Endpoint([stub.url for stub in stubs])
    with pytest.raises(NotFound, match="no route /v1/models") as caught:
        await endpoint.agree("/v1/models", lambda _: None)
    assert caught.value.endpoint == stubs[1].url
    await endpoint.aclose()


async def test_one_that_is_not_there_yet_is_waited_for_beside_the_work(servers, caplog):
    client = OpenAIClient(f"{servers.policy},http://127.0.0.1:9", probes=SOON)
    result = await asearch.majority(client, None, "What is $1 + 2$?", n=4)
    assert result.answer == "3"
    assert [replica.up for replica in client.endpoint.replicas] == [True, False]
    assert "http://127.0.0.1:9 is down: no connection" in caplog.text
    await client.aclose()


async def test_nobody_there():
    client = OpenAIClient(["http://127.0.0.1:9", "http://127.0.0.1:10"], retry=Retry(attempts=50, first=30.0))
    with pytest.raises(Unreachable, match="is the server running there"):
        await client.connect()
    assert client.endpoint.stats.requests == 2
    await client.aclose()


async def test_closing_ends_what_is_under_way_and_opens_nothing_new():
    async with Stub(**{"/v1/x": hang}).listening() as stub:
        endpoint = Endpoint(stub.url, limit=2)
        sent = [asyncio.ensure_future(endpoint.post("/v1/x", {"i": i})) for i in range(4)]
        await until(lambda: len(stub.asked("/v1/x")) == 2)
        await endpoint.aclose()
        results = await asyncio.gather(*sent, return_exceptions=True)
        assert [type(result) for result in results] == [Closed] * 4
        assert len(stub.requests) == 2
        assert endpoint.replicas[0]._session is None


async def test_which_failures_are_tried_again_can_be_set():
    async with Stub(**{"/v1/x": [(404, {}), (500, {}), {"fine": True}]}).listening() as stub:
        endpoint = Endpoint(stub.url, retry=Retry(first=0.001, on=(404, asearch.ServerError)))
        assert await endpoint.post("/v1/x", {}) == {"fine": True}
        stub.routes["/v1/x"] = [(429, {}), {"fine": True}]
        with pytest.raises(asearch.Overloaded):
            await endpoint.post("/v1/x", {})
        await endpoint.aclose()


async def test_a_file_of_endpoints_is_followed(stubs, tmp_path, monkeypatch):
    monkeypatch.setattr("asearch.transport.sources.FromFile.every", 0.02)
    path = tmp_path / "endpoints.txt"
    path.write_text(f"{stubs[0].url}\n")
    endpoint = Endpoint(path, probes=SOON)
    await endpoint.post("/v1/x", {})
    path.write_text(f"{stubs[0].url}\n{stubs[1].url}\n")
    await until(lambda: len(endpoint.replicas) == 2 and all(replica.up for replica in endpoint.replicas))
    await asyncio.gather(*(endpoint.post("/v1/x", {}) for _ in range(10)))
    assert stubs[1].asked("/v1/x"), "the new one is used"
    path.write_text("no url at all://\n")
    await asyncio.sleep(0.1)
    assert len(endpoint.replicas) == 2, "nonsense changes nothing"
    path.write_text(f"{stubs[1].url}\n")
    await until(lambda: len(endpoint.replicas) == 1)
    before = len(stubs[0].asked("/v1/x"))
    await asyncio.gather(*(endpoint.post("/v1/x", {}) for _ in range(10)))
    assert len(stubs[0].asked("/v1/x")) == before, "the one that was taken off is left alone"
    await endpoint.aclose()


async def test_a_name_with_two_addresses_is_two_replicas(monkeypatch):
    """Only the name server is made up: 127.0.0.1 and 127.0.0.2 are two hosts with the same port."""
    addresses = ["127.0.0.1", "127.0.0.2"]

    async def answer(_host, port, **_):
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port)) for ip in addresses]

    monkeypatch.setattr("asearch.transport.sources.FromDNS.every", 0.02)
    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", answer)
    routes = {"/v1/x": {"fine": True}, "/v1/models": MODEL, "/health": {}}
    async with Stub(**routes).listening() as one, Stub(**routes).listening(host="127.0.0.2", port=one.port) as two:
        endpoint = Endpoint(f"dns+http://policy.internal:{one.port}", probes=SOON)
        await asyncio.gather(*(endpoint.post("/v1/x", {}) for _ in range(10)))
        assert [len(stub.asked("/v1/x")) for stub in (one, two)] == [5, 5]
        assert {headers["Host"] for _, headers, _, _ in one.requests} == {f"policy.internal:{one.port}"}
        assert [replica.name for replica in endpoint.replicas] == [
            f"http://policy.internal:{one.port} ({ip})" for ip in addresses
        ]
        del addresses[0]
        await until(lambda: len(endpoint.replicas) == 1)
        await endpoint.aclose()


@pytest.fixture
async def pairs(servers):
    """Two embedded policies and two embedded PRMs."""
    async with embedded_server("policy") as policy, embedded_server("prm") as prm:
        yield [servers.policy, policy], [servers.prm, prm]


async def test_replicas_change_neither_the_trees_nor_the_use_of_the_prefix_cache(pairs):
    policies, prms = pairs
    problems = [text for text, _ in await embedded_problems(3, 1)]

    async def search(policy, prm):
        client, verifier = OpenAIClient(policy, limit=64), as_prm(prm)
        results = [result async for result in asearch.solve_all(asearch.DVTS(n=16), client, verifier, problems)]
        trees = [{node.path.id: node.path.text for node in result.tree.nodes} for result in results]
        usage = sum((result.usage for result in results), asearch.Usage())
        shares = [replica.stats.sequences for replica in client.endpoint.replicas]
        await client.aclose()
        await verifier.aclose()
        return trees, usage, shares

    alone, cached, _ = await search(policies[0], prms[0])
    trees, usage, shares = await search(policies, prms)
    assert trees == alone
    assert usage.policy_tokens == cached.policy_tokens
    assert usage.policy_cached_tokens >= 0.95 * cached.policy_cached_tokens, "paths stay with their prefixes"
    assert min(shares) > 0.2 * sum(shares)


async def test_the_command_line_takes_replicas(pairs, capsys):
    policies, prms = pairs
    arguments = ["solve", "What is $1 + 2$?", "--policy", ",".join(policies), "--prm", ",".join(prms), "-n", "4"]
    status = await asyncio.to_thread(lambda: __import__("asearch.cli", fromlist=["main"]).main(arguments))
    assert status == 0
    assert "answer:" in capsys.readouterr().out


async def test_a_replica_that_hangs_costs_one_timeout():
    async with Stub(**{"/v1/x": hang}).listening() as slow, Stub(**{"/v1/x": {"fine": True}}).listening() as quick:
        endpoint = Endpoint([slow.url, quick.url], timeouts=Timeouts(read=0.05), probes=Probes(first=50, longest=50))
        results = await asyncio.gather(*(endpoint.post("/v1/x", {}) for _ in range(10)))
        assert results == [{"fine": True}] * 10
        assert not endpoint.replicas[0].up, "five in a row"
        await endpoint.aclose()


async def test_each_replica_of_a_verifier_gets_batches_of_its_own_paths():
    """/pooling: a path's steps are scored where its beginning was, first steps are spread, siblings share a batch."""

    def rows(body, _request):
        data = [{"index": i, "data": [[0.1, 0.9]] * len(item["steps"])} for i, item in enumerate(body["input"])]
        return {"data": data, "usage": {"prompt_tokens": 10 * len(data)}}

    card = {"owned_by": "asearch-prm-server", "family": "skywork", "max_model_len": 4096}
    routes = {"/v1/models": models("prm", **card), "/pooling": rows, "/health": {}}
    async with Stub(**routes).listening() as one, Stub(**routes).listening() as two:
        prm = as_prm([one.url, two.url])

        async def grow(i):
            path = asearch.Path(asearch.Problem(f"problem {i}"))
            for depth in range(4):
                path = path.grow(asearch.Step(f"step {depth} of {i}\n\n", "step"), 0)
                path = path.with_scores(await prm.score(path))
            return path.scores

        assert await asyncio.gather(*(grow(i) for i in range(8))) == [(0.9,) * 4] * 8
        await prm.aclose()
    homes = [{item["problem"] for body in stub.asked("/pooling") for item in body["input"]} for stub in (one, two)]
    assert not homes[0] & homes[1]
    assert [len(home) for home in homes] == [4, 4]
    assert all(len(stub.asked("/pooling")) <= 8 for stub in (one, two)), "4 paths of 4 steps in a few batches"


async def test_a_server_that_refuses_is_given_less_and_then_more_again():
    """vLLM's --max-num-queued-reqs: 503 for what is too much, and no Retry-After."""
    running, peak = 0, 0

    async def serve(_body, _request):
        nonlocal running, peak
        if running >= 10:
            return 503, {"error": {"message": "The engine is currently busy"}}
        running += 1
        peak = max(peak, running)
        await asyncio.sleep(0.01)
        running -= 1
        return {"fine": True}

    async with Stub(**{"/v1/x": serve}).listening() as stub:
        endpoint = Endpoint(stub.url, limit=64, retry=Retry(attempts=30, first=0.005, longest=0.02))
        results = await asyncio.gather(*(endpoint.post("/v1/x", {}) for _ in range(300)))
        assert results == [{"fine": True}] * 300
        limiter = endpoint.limiter
        assert limiter.cuts >= 1
        assert endpoint.stats.refusals < 300, "fewer refusals than requests: it has learned"
        lowest = limiter.limit
        stub.routes["/v1/x"] = {"fine": True}
        for _ in range(40):
            await asyncio.gather(*(endpoint.post("/v1/x", {}) for _ in range(64)))
        assert lowest < limiter.limit <= 64
        await endpoint.aclose()
