"""What is counted: per endpoint and replica, per search, and for Prometheus."""

import asyncio
import gc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted_replicas import Server, endpoint_of

import asearch
from asearch.client import OpenAIClient
from asearch.errors import Overloaded
from asearch.prm import as_prm
from asearch.transport import Counters
from asearch.transport.metrics import EndpointCollector, snapshot
from asearch.transport.pressure import crowded, queue_of
from asearch.usage import Ledger, Usage, ledger
from virtual_clock import run

REPLY = {"usage": {"prompt_tokens": 10, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 8}}}


def test_times_and_tokens_are_counted():
    async def scenario():
        servers = {"a": Server(seconds=2.0, answer=lambda *_: REPLY)}
        endpoint = endpoint_of(servers, limit=1)
        book = Ledger()
        ledger.set(book)
        await asyncio.sleep(5)
        await asyncio.gather(*(endpoint.post("/v1/x", {}) for _ in range(3)))
        await asyncio.sleep(4)
        now = endpoint.now()
        for stats in (endpoint.stats, endpoint.replicas[0].stats):
            assert (stats.requests, stats.sequences, stats.in_flight) == (3, 3, 0)
            assert (stats.prompt_tokens, stats.completion_tokens, stats.cached_tokens) == (30, 12, 24)
            assert (stats.queue_seconds, stats.service_seconds) == (pytest.approx(0 + 2 + 4), pytest.approx(6))
            assert stats.busy_seconds(now) == pytest.approx(6)
            assert stats.utilisation(now) == pytest.approx(0.6), "of the ten seconds since its first request"
        await endpoint.aclose()
        return book.usage

    usage, _ = run(scenario())
    assert (usage.policy_queue_seconds, usage.policy_service_seconds) == (pytest.approx(6), pytest.approx(6))
    assert usage.prm_service_seconds == 0


def test_replicas_add_up_to_the_endpoint():
    async def scenario():
        answers = iter([Overloaded("busy", status=503)])
        servers = {name: Server(answer=lambda *_: next(answers, REPLY)) for name in "abc"}
        endpoint = endpoint_of(servers)
        await asyncio.gather(*(endpoint.post("/v1/x", {}, units=2) for _ in range(9)))
        parts = [replica.stats.totals() for replica in endpoint.replicas]
        whole = endpoint.stats.totals()
        await endpoint.aclose()
        return parts, whole

    (parts, whole), _ = run(scenario())
    for name in ("requests", "sequences", "retries", "moves", "refusals", "service_seconds"):
        assert sum(part[name] for part in parts) == pytest.approx(whole[name]), name
    assert (whole["requests"], whole["moves"], whole["refusals"]) == (10, 1, 1)


@given(st.lists(st.tuples(st.floats(0, 50), st.floats(0, 10)), max_size=30))
def test_busy_time_is_the_length_of_the_union(intervals):
    stats = Counters()
    moments = sorted(
        [(begin, 0, "begin") for begin, _ in intervals] + [(begin + length, 1, "end") for begin, length in intervals]
    )
    for when, _, what in moments:
        getattr(stats, what)(when)
    union, reached = 0.0, float("-inf")
    for begin, length in sorted(intervals):
        union += max(0.0, begin + length - max(begin, reached))
        reached = max(reached, begin + length)
    assert stats.busy_seconds(1000.0) == pytest.approx(union, abs=1e-6)


def test_outstanding_is_time_in_which_anything_is():
    async def scenario():
        book = Ledger()

        async def ask(begin, length):
            await asyncio.sleep(begin)
            with book.outstanding("prm"):
                await asyncio.sleep(length)

        watch = asyncio.ensure_future(asyncio.gather(ask(0, 3), ask(1, 4), ask(10, 1)))
        await asyncio.sleep(2)
        so_far = book.usage.prm_busy_seconds
        await watch
        return so_far, book.usage.prm_busy_seconds, book.usage.policy_busy_seconds

    assert run(scenario())[0] == (pytest.approx(2), pytest.approx(6), 0)


async def test_a_search_tells_where_its_time_went(servers):
    client, prm = OpenAIClient(servers.policy), as_prm(servers.prm)
    problem = "What is $7 + 2 \\cdot 3$?"
    seen = [event.usage async for event in asearch.stream(asearch.BestOfN(n=4), client, prm, problem)]
    usage = seen[-1]
    for role in ("policy", "prm"):
        service, busy = getattr(usage, f"{role}_service_seconds"), getattr(usage, f"{role}_busy_seconds")
        assert 0 < busy <= usage.seconds
        assert service > 0
    growing = [u.policy_service_seconds for u in seen]
    assert growing == sorted(growing), "in the event stream, too"
    assert client.endpoint.stats.completion_tokens >= usage.policy_tokens
    await client.aclose()
    await prm.aclose()


def test_results_of_before_still_load():
    old = {"requests": 3, "policy_tokens": 7, "seconds": 1.5}
    assert Usage(**old).policy_queue_seconds == 0.0
    total = Usage(policy_busy_seconds=1.0) + Usage(policy_busy_seconds=2.0, requests=1)
    assert (total.policy_busy_seconds, total.requests) == (3.0, 1)


def test_prometheus_sees_every_replica_and_counters_never_fall():
    prometheus = pytest.importorskip("prometheus_client")

    async def scenario():
        endpoint = endpoint_of({"m1": Server(answer=lambda *_: REPLY), "m2": Server()}, role="prm", limit=7)
        await asyncio.gather(*(endpoint.post("/v1/x", {}) for _ in range(4)))
        registry = prometheus.CollectorRegistry()
        registry.register(EndpointCollector())
        page = prometheus.generate_latest(registry).decode()
        await endpoint.aclose()
        return page

    page, _ = run(scenario())
    assert 'asearch_endpoint_requests_total{replica="http://m1",role="prm"} 2.0' in page
    assert 'asearch_endpoint_cached_tokens_total{replica="http://m1",role="prm"} 16.0' in page
    assert 'asearch_endpoint_limit{replica="http://m2",role="prm"} 7.0' in page
    assert 'asearch_endpoint_up{replica="http://m2",role="prm"} 1.0' in page
    gc.collect()
    after = snapshot()["prm", "http://m1"]
    assert after["requests"] == 2, "the endpoint is gone, what it counted stays"
    assert after.get("limit", 0) == 0


VLLM_PAGE = """# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 100.0
vllm:num_requests_running{engine="1",model_name="m"} 28.0
vllm:num_requests_waiting{engine="0",model_name="m"} 3.0
vllm:num_requests_waiting{engine="1",model_name="m"} 0.0
vllm:num_requests_waiting_by_reason{reason="capacity"} 99.0
"""


@pytest.mark.parametrize(
    ("page", "queue"),
    [
        (VLLM_PAGE, (128.0, 3.0)),
        ("tgi_queue_size 4\ntgi_batch_current_size 2\n", (2.0, 4.0)),
        ("vllm:num_requests_running 1\n", None),
        ("vllm:num_requests_running x\nvllm:num_requests_waiting 1\n", None),
        ("<html>", None),
        ("", None),
    ],
)
def test_a_servers_own_queue_is_read_from_its_metrics(page, queue):
    assert queue_of(page) == queue


@pytest.mark.parametrize(
    ("running", "waiting", "too_long"), [(0, 0, False), (0, 2, True), (64, 64, False), (64, 65, True)]
)
def test_a_queue_longer_than_what_runs_is_of_no_use(running, waiting, too_long):
    assert crowded(running, waiting) is too_long
