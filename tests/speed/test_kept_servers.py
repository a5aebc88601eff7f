"""Servers that stay from run to run must have empty caches before each, or the speed benchmarks refuse them."""

from contextlib import asynccontextmanager

import counters
import pytest
import servers as pairs
from aiohttp import web

import asearch
from asearch.serving import listening, url_of


class OldVllm:
    """vLLM 0.25.1 as far as this goes: /reset_prefix_cache answers 200, whether anything was reset or not.

    Args:
        refusals: resets that do nothing.
        busy: looks at /metrics at which a request is still running.
    """

    def __init__(self, refusals: int = 0, busy: int = 0) -> None:
        self.refusals, self.busy = refusals, busy
        self.resets = self.hits = self.steps = 0
        self.cached: set[tuple[int, ...]] = set()
        self.reset_while_busy = False

    async def metrics(self, _: web.Request) -> web.Response:
        running = float(self.busy > 0)
        self.busy = max(0, self.busy - 1)
        values = {
            "num_requests_running{": running,
            "num_requests_waiting{": 0.0,
            "prefix_cache_hits_total{": float(self.hits),
            'iteration_tokens_total_bucket{le="1.0",': 0.0,
            "iteration_tokens_total_sum{": 100.0 * self.steps,
            "iteration_tokens_total_count{": float(self.steps),
        }
        lines = [f'vllm:{name}engine="0"}} {value}' for name, value in values.items()]
        return web.Response(text="\n".join(["# TYPE vllm:iteration_tokens_total histogram", *lines, ""]))

    async def completions(self, request: web.Request) -> web.Response:
        prompt = tuple((await request.json())["prompt"])
        self.hits += len(prompt) // 16 * 16 if prompt in self.cached else 0
        self.cached.add(prompt)
        self.steps += 1
        return web.json_response({"choices": []})

    async def reset(self, _: web.Request) -> web.Response:
        self.resets += 1
        self.reset_while_busy = self.reset_while_busy or self.busy > 0
        if self.resets > self.refusals:
            self.cached.clear()
        return web.Response(status=200)

    async def models(self, _: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "m"}]})

    @asynccontextmanager
    async def served(self):
        app = web.Application()
        app.router.add_get("/metrics", self.metrics)
        app.router.add_get("/v1/models", self.models)
        app.router.add_post("/v1/completions", self.completions)
        app.router.add_post("/reset_prefix_cache", self.reset)
        async with listening(app) as runner:
            yield url_of(runner)


async def test_a_reset_that_did_nothing_is_made_again():
    server = OldVllm(refusals=2)
    async with server.served() as url:
        await pairs.forget(url)
        assert server.resets == 3
        server.cached.add((1, 2, 3))
        await pairs.forget(url)
        assert server.cached == {tuple(pairs.PROBE)}


async def test_nothing_is_reset_while_requests_run():
    server = OldVllm(busy=4)
    async with server.served() as url:
        await pairs.forget(url)
    assert server.resets == 1
    assert not server.reset_while_busy


async def test_a_cache_that_stays_is_refused(monkeypatch):
    monkeypatch.setattr(pairs, "PATIENCE", 0.05)
    async with OldVllm(refusals=1000).served() as url:
        with pytest.raises(SystemExit, match="kept its prefix cache"):
            await pairs.forget(url)


async def test_a_server_that_cannot_reset_is_refused(servers):
    with pytest.raises(SystemExit, match="VLLM_SERVER_DEV_MODE=1"):
        await pairs.forget(servers.policy)


async def test_engine_steps_go_by_both_names(servers):
    old = OldVllm()
    async with old.served() as url:
        counts = counters.Counts(url, counters.STEPS)
        await counts.begin()
        for _ in range(3):
            await pairs.remembered(url)
        assert await counts.read() == [3]
    ours = counters.Counts(servers.policy, counters.STEPS, counters.WRITTEN)
    await ours.begin()
    await pairs.remembered(servers.policy)  # one token: read and written in one step, or two where reading is cut
    steps, written = await ours.read()
    assert 1 <= steps <= 4
    assert written == 1
    with pytest.raises(SystemExit, match="no vllm:nothing_of_the_kind"):
        await counters.counted(servers.policy, "nothing_of_the_kind")


async def test_seeds_are_left_out_on_request_only(servers):
    for seeds in (True, False):
        client = pairs.policy_client(servers.policy, seeds=seeds)
        bodies = []
        try:
            await client.connect()
            client.endpoint.stats.on_exchange.append(lambda route, body, _, bodies=bodies: bodies.append((route, body)))
            path = asearch.Path(asearch.Problem("What is $1 + 2$?"))
            await client.extend(path, 2, sampling=asearch.Sampling(), seed=5)
        finally:
            await client.aclose()
        asked = [dict(body) for route, body in bodies if route == "/v1/completions"]
        assert [body.get("seed", "none") for body in asked] == [5 if seeds else "none"]
        assert [body["n"] for body in asked] == [2]
