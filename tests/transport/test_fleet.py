"""Replicas on the virtual clock: where requests go, and what happens when one dies, comes back, or is overloaded."""

import asyncio
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted_replicas import Server, endpoint_of, replica

from asearch.concurrency import seniority
from asearch.errors import Closed, ModelNotFound, Overloaded, ServerError, Unreachable
from asearch.transport import Probes, Retry, Trail
from virtual_clock import run


def trail(*keys):
    return Trail(lambda: keys)


async def post(endpoint, body, *keys, units=1):
    return await endpoint.post("/v1/x", {"i": body}, units=units, trail=trail(*keys) if keys else None)


def test_new_paths_go_to_the_least_loaded():
    async def scenario():
        servers = {"a": Server(), "b": Server(), "c": Server()}
        endpoint = endpoint_of(servers)
        await asyncio.gather(*(post(endpoint, i) for i in range(30)))
        await endpoint.aclose()
        return [len(server.came) for server in servers.values()]

    assert run(scenario())[0] == [10, 10, 10]


def test_load_counts_sequences_and_not_requests():
    async def scenario():
        servers = {"a": Server(), "b": Server()}
        endpoint = endpoint_of(servers)
        await asyncio.gather(post(endpoint, 0, units=6), *(post(endpoint, i) for i in range(1, 7)))
        await endpoint.aclose()
        return sorted(len(server.came) for server in servers.values())

    assert run(scenario())[0] == [1, 6]


def test_a_path_stays_where_its_beginning_is():
    async def scenario():
        servers = {name: Server() for name in "abcd"}
        endpoint = endpoint_of(servers)

        async def path(i):
            for depth in range(1, 9):
                await post(endpoint, i, *(hash((i, d)) for d in range(depth, 0, -1)))

        await asyncio.gather(*(path(i) for i in range(12)))
        await endpoint.aclose()
        return [set(server.asked()) for server in servers.values()]

    homes, _ = run(scenario())
    assert sorted(i for home in homes for i in home) == list(range(12)), "each path on one replica only"
    assert [len(home) for home in homes] == [3, 3, 3, 3]


def test_a_path_leaves_a_replica_that_is_much_busier():
    async def scenario():
        servers = {"a": Server(), "b": Server()}
        endpoint = endpoint_of(servers, limit=64)
        endpoint.remember([1, 2], replica(endpoint, "a"))
        few = asyncio.gather(*(post(endpoint, "few", 1) for _ in range(2)))
        await asyncio.sleep(0.1)
        assert replica(endpoint, "a").limiter.in_use == 2, "a small difference is not worth the prefix"
        await few
        many = asyncio.gather(*(post(endpoint, "many", 1) for _ in range(40)))
        await asyncio.sleep(0.1)
        loads = sorted(r.limiter.in_use for r in endpoint.replicas)
        await many
        await endpoint.aclose()
        return loads

    loads, _ = run(scenario())
    assert sum(loads) == 40
    assert loads[0] >= 14


def test_a_full_replica_sends_on_to_one_with_room():
    async def scenario():
        servers = {"a": Server(), "b": Server()}
        endpoint = endpoint_of(servers, limit=4)
        endpoint.remember([7], replica(endpoint, "a"))
        await asyncio.gather(*(post(endpoint, i, 7) for i in range(8)))
        await endpoint.aclose()

    assert run(scenario())[1] == pytest.approx(1.0), "all eight at once"


@given(st.floats(0.0, 6.0), st.integers(1, 60), st.booleans())
def test_one_of_two_killed_nothing_lost_and_no_pause(when, requests, comes_back):
    async def scenario():
        servers = {"a": Server(), "b": Server()}
        endpoint = endpoint_of(servers, limit=8)
        loop = asyncio.get_running_loop()
        loop.call_later(when, servers["a"].kill)
        if comes_back:
            loop.call_later(when + 3, servers["a"].restart)
        ended = []

        async def one(i):
            await asyncio.sleep(0.2 * i)
            await post(endpoint, i, i)
            ended.append(loop.time())

        await asyncio.gather(*(one(i) for i in range(requests)))
        assert endpoint.limiter.in_use == endpoint.limiter.waiting == 0
        assert endpoint.stats.moves == endpoint.stats.retries, "every one went on elsewhere, without a wait"
        answered = [body["i"] for server in servers.values() for body in server.bodies()]
        assert set(answered) == set(range(requests))
        assert len(answered) <= requests + endpoint.stats.moves
        pauses = [later - earlier for earlier, later in zip([0.0, *ended], ended, strict=False)]
        assert max(pauses) <= 2.0 + 1e-6, "two answers of a second each: no wait between them"
        await endpoint.aclose()

    run(scenario())


def test_a_replica_that_is_back_is_taken_back_and_used():
    async def scenario():
        servers = {"a": Server(), "b": Server()}
        endpoint = endpoint_of(servers, probes=Probes(first=1.0, longest=4.0))
        servers["a"].kill()
        await asyncio.gather(*(post(endpoint, i) for i in range(4)))
        assert [r.up for r in endpoint.replicas] == [False, True]
        await asyncio.sleep(30)
        looks = servers["a"].looked
        servers["a"].restart()
        await asyncio.sleep(4)
        assert [r.up for r in endpoint.replicas] == [True, True]
        await asyncio.gather(*(post(endpoint, i) for i in range(4)))
        await endpoint.aclose()
        return [later - earlier for earlier, later in pairwise(looks)], len(servers["a"].came)

    (gaps, came), _ = run(scenario())
    assert came == 2, "half of what came then"
    assert all(0.75 <= gap / wait <= 1.0 for gap, wait in zip(gaps, [2, 4, 4, 4, 4, 4], strict=False)), "backoff"


def test_what_waits_for_a_replica_that_dies_goes_elsewhere():
    async def scenario():
        servers = {"a": Server(seconds=100), "b": Server()}
        endpoint = endpoint_of(servers, limit=2)
        a = replica(endpoint, "a")
        sent = [asyncio.ensure_future(endpoint.post("/v1/x", {"i": i}, replica=a)) for i in range(6)]
        await asyncio.sleep(5)
        assert (a.limiter.in_use, a.limiter.waiting) == (2, 4)
        servers["a"].kill()
        await asyncio.gather(*sent)
        await endpoint.aclose()
        return len(servers["b"].came)

    served, seconds = run(scenario())
    assert served == 6
    assert seconds == pytest.approx(8.0), "six requests, two at a time"


def test_what_waits_elsewhere_comes_to_a_replica_that_is_back():
    async def scenario():
        servers = {"a": Server(), "b": Server(seconds=10)}
        endpoint = endpoint_of(servers, limit=2, probes=Probes(first=1.0))
        servers["a"].kill()
        with pytest.raises(Unreachable):
            await endpoint_of({"a": servers["a"]}, retry=Retry(attempts=1)).post("/v1/x", {})
        sent = [asyncio.ensure_future(post(endpoint, i)) for i in range(8)]
        await asyncio.sleep(0.5)
        servers["a"].restart()
        await asyncio.gather(*sent)
        await endpoint.aclose()
        return len(servers["a"].came)

    came, seconds = run(scenario())
    assert came == 6
    assert seconds == pytest.approx(10.0, abs=0.5)


def test_the_only_replica_is_never_down():
    async def scenario():
        servers = {"a": Server()}
        endpoint = endpoint_of(servers, retry=Retry(attempts=3, first=0.1))
        servers["a"].kill()
        with pytest.raises(Unreachable):
            await post(endpoint, 1)
        assert endpoint.replicas[0].up
        assert (endpoint.stats.requests, endpoint.stats.retries, endpoint.stats.moves) == (3, 2, 0)
        await endpoint.aclose()

    run(scenario())


def test_when_all_are_down_the_retry_policy_decides():
    async def scenario():
        servers = {"a": Server(), "b": Server()}
        endpoint = endpoint_of(servers, retry=Retry(attempts=6, first=1.0))
        for server in servers.values():
            server.kill()
        asyncio.get_running_loop().call_later(2.0, servers["b"].restart)
        await post(endpoint, 1)
        attempts = endpoint.stats.requests
        for server in servers.values():
            server.kill()
        with pytest.raises(Unreachable):
            await post(endpoint, 2)
        await endpoint.aclose()
        return attempts, endpoint.stats.requests - attempts

    (first, second), _ = run(scenario())
    assert first <= 6
    assert second == 6


@pytest.mark.parametrize("failure", [ServerError("500", status=500), Overloaded("busy", status=503)])
def test_no_request_is_sent_more_often_than_the_policy_allows(failure):
    async def scenario():
        servers = {name: Server(answer=lambda *_: failure) for name in "abc"}
        endpoint = endpoint_of(servers, retry=Retry(attempts=5, first=0.1))
        results = await asyncio.gather(*(post(endpoint, i) for i in range(10)), return_exceptions=True)
        assert all(type(result) is type(failure) for result in results)
        counts = [sum(body == {"i": i} for server in servers.values() for body in server.bodies()) for i in range(10)]
        await endpoint.aclose()
        return counts

    assert run(scenario())[0] == [5] * 10


def test_strikes_in_a_row_take_a_replica_down_and_a_success_clears_them():
    async def scenario():
        broken = [True]
        servers = {"a": Server(answer=lambda *_: ServerError("500", status=500) if broken[0] else {}), "b": Server()}
        endpoint = endpoint_of(servers, probes=Probes(strikes=3, first=50, longest=50))
        a = replica(endpoint, "a")
        for i in range(2):
            await endpoint.post("/v1/x", {"i": i}, replica=a)
        assert (a.up, a.strikes) == (True, 2)
        broken[0] = False
        await endpoint.post("/v1/x", {}, replica=a)
        assert (a.up, a.strikes) == (True, 0)
        broken[0] = True
        for i in range(3):
            await endpoint.post("/v1/x", {"i": i}, replica=a)
        up = a.up
        await endpoint.aclose()
        return up

    assert run(scenario())[0] is False


def test_refusals_move_on_only_where_there_is_room():
    async def scenario():
        busy = Overloaded("busy", status=503)
        servers = {"a": Server(answer=lambda *_: busy), "b": Server(seconds=10)}
        endpoint = endpoint_of(servers, limit=1, retry=Retry(attempts=3, first=1.0))
        a, b = endpoint.replicas
        holds = asyncio.ensure_future(endpoint.post("/v1/x", {}, replica=b))
        await asyncio.sleep(0.5)
        with pytest.raises(Overloaded):  # b is full: to wait for a, as it asks, is all there is
            await endpoint_of({"a": servers["a"]}, retry=Retry(attempts=2, first=1.0)).post("/v1/x", {})
        await holds
        await endpoint.post("/v1/x", {}, replica=a)
        assert a.up, "busy is not down"
        await endpoint.aclose()
        return endpoint.stats.moves

    assert run(scenario())[0] == 1


def test_a_model_that_is_gone_from_one_replica_is_found_on_another():
    async def scenario():
        gone = [False]
        model = {"data": [{"id": "m", "max_model_len": 8}]}
        lost = ModelNotFound("no m here", status=404)

        def answer(route, _body):
            return {"data": [{"id": "other"}]} if gone[0] and route == "/v1/models" else lost if gone[0] else model

        servers = {"a": Server(answer=answer), "b": Server(answer=lambda *_: model)}
        endpoint = endpoint_of(servers)
        await endpoint.agree("/v1/models", lambda reply: None if reply == model else "serves something else")
        gone[0] = True
        await endpoint.post("/v1/x", {}, replica=replica(endpoint, "a"))
        await asyncio.sleep(60)
        assert not replica(endpoint, "a").up, "well, but it serves something else"
        gone[0] = False
        await asyncio.sleep(20)
        up = replica(endpoint, "a").up
        await endpoint.aclose()
        return up

    assert run(scenario())[0] is True


def test_retry_after_holds_for_all_requests_to_that_replica():
    async def scenario():
        first = [True]

        def answer(*_):
            if first.pop() if first else False:
                return Overloaded("later", status=429, retry_after=30.0)
            return {}

        servers = {"a": Server(answer=answer)}
        endpoint = endpoint_of(servers)
        loop = asyncio.get_running_loop()

        async def late(i):
            await asyncio.sleep(2 + i)
            await post(endpoint, i)

        await asyncio.gather(post(endpoint, "first"), *(late(i) for i in range(20)))
        times = [when for when, _, _ in servers["a"].came]
        await endpoint.aclose()
        return times, loop.time()

    (times, _), _ = run(scenario())
    assert times[0] == 0.0
    assert min(times[1:]) == pytest.approx(31.0), "nobody before the server wants to be asked"
    assert len(times) == 22


def test_the_time_for_retries_begins_with_the_first_failure():
    async def scenario():
        answers = [ServerError("500", status=500), {}]
        servers = {"a": Server(seconds=1000, answer=lambda *_: answers.pop(0))}
        endpoint = endpoint_of(servers, retry=Retry(total=10.0))
        await post(endpoint, 1)
        await endpoint.aclose()
        return endpoint.stats.retries

    assert run(scenario())[0] == 1


@pytest.mark.parametrize("replicas", ["a", "ab", "abcd"])
def test_the_older_search_goes_first_on_every_replica(replicas):
    async def scenario():
        servers = {name: Server() for name in replicas}
        endpoint = endpoint_of(servers, limit=1)

        async def call(senior):
            seniority.set(senior)
            await post(endpoint, senior)

        order = [9, 3, 7, 1, 8, 2, 6, 4, 5] * len(replicas)
        await asyncio.gather(*(call(senior) for senior in order))
        await endpoint.aclose()
        return [server.asked() for server in servers.values()]

    for came in run(scenario())[0]:
        assert came[1:] == sorted(came[1:]), "after the first, who found it empty"


def test_closing_ends_what_waits_and_what_is_between_attempts():
    async def scenario():
        servers = {"a": Server(answer=lambda *_: ServerError("500", status=500))}
        endpoint = endpoint_of(servers, limit=1, retry=Retry(first=1000.0, longest=1000.0, total=1e6))
        tasks = [asyncio.ensure_future(post(endpoint, i)) for i in range(3)]
        await asyncio.sleep(1.5)  # one waits for its next attempt, one is under way, one waits for its permit
        await endpoint.aclose()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert endpoint.limiter.in_use == endpoint.limiter.waiting == 0
        return [type(result) for result in results]

    assert run(scenario())[0] == [Closed, Closed, Closed]


def test_the_limit_of_a_shared_server_follows_its_own_queue():
    async def scenario():
        servers = {"a": Server(seconds=20)}
        endpoint = endpoint_of(servers, limit=100, shared=True)
        tasks = [asyncio.ensure_future(post(endpoint, i)) for i in range(100)]
        await asyncio.sleep(10)
        assert endpoint.limiter.limit == 100, "nothing waits inside the server"
        servers["a"].running, servers["a"].waiting = 40, 60
        await asyncio.sleep(5)
        lowered = endpoint.limiter.limit
        servers["a"].waiting = 5
        await asyncio.gather(*tasks)
        await endpoint.aclose()
        return lowered

    assert run(scenario())[0] <= 70
