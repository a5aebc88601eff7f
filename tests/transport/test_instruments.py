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
from asearch.transport import Counters, cached_tokens
from asearch.transport.metrics import COUNTERS, EndpointCollector, snapshot
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


async def test_every_instrument_is_there_for_policy_and_prm_alike(servers):
    """On the result, in the event stream and for Prometheus: requests, tokens, cached tokens, retries, times, utilisation."""
    prometheus = pytest.importorskip("prometheus_client")
    client, prm = OpenAIClient(servers.policy), as_prm(servers.prm)
    problem = "What is $8 - 3 \\cdot (2 + 4) + 9$?"
    events = [event async for event in asearch.stream(asearch.BeamSearch(n=8, width=4), client, prm, problem)]
    registry = prometheus.CollectorRegistry()
    registry.register(EndpointCollector())
    total = {(role, name): 0.0 for role in ("policy", "prm") for name in COUNTERS}
    for family in registry.collect():
        for sample in family.samples:
            name = family.name.removeprefix("asearch_endpoint_")
            if (key := (sample.labels["role"], name)) in total:
                total[key] += sample.value
    await client.aclose()
    await prm.aclose()
    for usage in (events[-1].usage, events[-1].result.usage):
        for name in SPENT:
            assert getattr(usage, name) > 0, name
        assert 0 < usage.policy_utilisation <= 1
        assert 0 < usage.prm_utilisation <= 1
        assert usage.policy_cached_tokens < usage.policy_prompt_tokens
        assert usage.prm_cached_tokens < usage.prm_tokens
    for name in ("policy_cached_tokens", "prm_cached_tokens", "policy_service_seconds", "prm_service_seconds"):
        growing = [getattr(event.usage, name) for event in events]
        assert growing == sorted(growing)
    for role in ("policy", "prm"):
        for name in ("requests", "prompt_tokens", "cached_tokens", "queue_seconds", "service_seconds", "busy_seconds"):
            assert total[role, name] > 0, (role, name)


SPENT = (
    *("requests", "policy_tokens", "policy_prompt_tokens", "policy_cached_tokens"),
    *("policy_queue_seconds", "policy_service_seconds", "policy_busy_seconds"),
    *("prm_requests", "prm_tokens", "prm_cached_tokens", "scored"),
    *("prm_queue_seconds", "prm_service_seconds", "prm_busy_seconds"),
)


async def test_the_policy_as_its_own_verifier_is_counted_in_full(servers):
    """What it reads is the verifier's, and its seconds are those of the policy, whose server it is."""
    client = OpenAIClient(servers.policy)
    result = await asearch.solve(asearch.SelfVerify(n=4), client, None, "What is $3 \\cdot (5 + 4) - 6$?")
    await client.aclose()
    usage = result.usage
    assert usage.prm_requests == usage.scored > 0
    assert 0 < usage.prm_cached_tokens < usage.prm_tokens
    assert usage.prm_busy_seconds == 0 < usage.policy_busy_seconds


def test_a_function_that_takes_its_time_is_busy_too():
    async def scenario():
        async def judge(problem, steps):
            await asyncio.sleep(3)
            return 0.5

        book = Ledger()
        ledger.set(book)
        await as_prm(judge).score(asearch.Path(asearch.Problem("?")).grow(asearch.Step("one", "step"), 0))
        return book.usage.prm_busy_seconds

    assert run(scenario())[0] == pytest.approx(3)


@pytest.mark.parametrize(("role", "of_the_prm"), [("policy", 0), ("prm", 2)])
def test_retries_are_told_apart_by_their_server(role, of_the_prm):
    async def scenario():
        answers = iter([Overloaded("busy", status=503), Overloaded("busy", status=503)])
        endpoint = endpoint_of({"a": Server(answer=lambda *_: next(answers, REPLY))}, role=role)
        book = Ledger()
        ledger.set(book)
        await endpoint.post("/v1/x", {})
        await endpoint.aclose()
        return book.usage

    usage, _ = run(scenario())
    assert (usage.retries, usage.prm_retries) == (2, of_the_prm)


def test_utilisation_is_a_share_of_the_time():
    usage = Usage(seconds=4.0, policy_busy_seconds=3.0, prm_busy_seconds=1.0)
    assert (usage.policy_utilisation, usage.prm_utilisation) == (0.75, 0.25)
    assert (Usage().policy_utilisation, Usage().prm_utilisation) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("usage", "cached"),
    [
        ({"prompt_tokens_details": {"cached_tokens": 5}}, 5),
        ({"prompt_tokens_details": {"cached_tokens": 0}}, 0),
        ({"prompt_tokens_details": {"cached_tokens": None}}, None),
        ({"prompt_tokens_details": None}, None),
        ({"prompt_tokens_details": [5]}, None),
        ({}, None),
        (None, None),
        ([], None),
    ],
)
def test_cached_tokens_are_those_that_a_reply_states(usage, cached):
    assert cached_tokens(usage) == cached


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
