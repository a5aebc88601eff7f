"""The batcher: at once while idle, gathered while busy, and everybody minds his own business."""

import asyncio
from contextvars import ContextVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asearch.concurrency import Batcher, seniority
from asearch.errors import AuthError, BadRequest, Overloaded, ServerError
from virtual_clock import run


class Server:
    """Doubles numbers, a second per batch; numbers in `bad` are refused."""

    def __init__(self, bad=(), error=BadRequest, seconds=1.0):
        self.batches = []
        self.now = self.peak = 0
        self.cancelled = 0
        self.bad, self.error, self.seconds = set(bad), error, seconds

    async def double(self, items):
        self.batches.append(list(items))
        self.now += 1
        self.peak = max(self.peak, self.now)
        try:
            await asyncio.sleep(self.seconds)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.now -= 1
        if self.bad & set(items):
            raise self.error(f"refused {sorted(self.bad & set(items))}")
        return [2 * item for item in items]


def test_an_exception_among_the_results_is_that_items_alone():
    async def send(items):
        return [BadRequest("odd") if item % 2 else 2 * item for item in items]

    async def scenario():
        batcher = Batcher(send)
        results = await batcher.submit_all([1, 2, 3, 4])
        with pytest.raises(BadRequest, match="odd"):
            await batcher.submit(5)
        return results

    results, _ = run(scenario())
    assert [type(result) for result in results] == [BadRequest, int, BadRequest, int]
    assert results[1::2] == [4, 8]


scripts = st.lists(
    st.tuples(st.floats(0, 4, allow_subnormal=False), st.one_of(st.none(), st.floats(0, 6, allow_subnormal=False))),
    min_size=1,
    max_size=30,
)


@given(scripts, st.integers(1, 3), st.integers(1, 5), st.sets(st.integers(0, 29), max_size=3))
def test_each_gets_his_own_result_whoever_is_cancelled(script, concurrency, max_items, bad):
    async def scenario():
        server = Server(bad)
        batcher = Batcher(server.double, concurrency=concurrency, max_items=max_items)

        async def call(i, arrives):
            await asyncio.sleep(arrives)
            return await batcher.submit(i)

        tasks = [asyncio.ensure_future(call(i, arrives)) for i, (arrives, _) in enumerate(script)]
        for task, (_, cancelled) in zip(tasks, script, strict=True):
            if cancelled is not None:
                asyncio.get_running_loop().call_later(cancelled, task.cancel)
        await asyncio.wait(tasks)
        for i, task in enumerate(tasks):
            if not task.cancelled():
                assert (task.exception() is not None) == (i in bad), "a neighbour's failure is not mine"
                assert i in bad or task.result() == 2 * i
        await asyncio.sleep(0)
        assert (batcher.in_flight, batcher.waiting) == (0, 0)
        assert server.peak <= concurrency
        assert all(len(batch) <= max_items for batch in server.batches)

    run(scenario())


def test_siblings_travel_together_and_a_lone_item_at_once():
    async def scenario():
        server = Server()
        batcher = Batcher(server.double, concurrency=1)
        assert await asyncio.gather(*(batcher.submit(i) for i in range(5))) == [0, 2, 4, 6, 8]
        await batcher.submit(7)
        return server.batches

    batches, seconds = run(scenario())
    assert batches == [[0, 1, 2, 3, 4], [7]]
    assert seconds == pytest.approx(2)  # no timer: nothing was waited for but the server


def test_what_comes_while_it_is_busy_is_gathered():
    async def scenario():
        server = Server()
        batcher = Batcher(server.double, concurrency=1, max_items=64)

        async def late(i):
            await asyncio.sleep(0.1 * i)
            return await batcher.submit(i)

        await asyncio.gather(*(late(i) for i in range(1, 8)))
        return server.batches

    assert run(scenario())[0] == [[1], [2, 3, 4, 5, 6, 7]]


def test_batches_are_bounded_by_cost_and_a_costly_item_goes_alone():
    async def scenario():
        server = Server()
        batcher = Batcher(server.double, concurrency=1, max_cost=10, cost=float)
        await asyncio.gather(*(batcher.submit(i) for i in (4, 5, 6, 30, 1)))
        return server.batches

    assert run(scenario())[0] == [[4, 5], [6], [30], [1]]


def test_a_cancelled_caller_leaves_its_neighbours_alone():
    async def scenario():
        server = Server()
        batcher = Batcher(server.double)
        tasks = [asyncio.ensure_future(batcher.submit(i)) for i in range(3)]
        await asyncio.sleep(0.5)
        tasks[1].cancel()
        await asyncio.wait(tasks)
        return server.cancelled, tasks[0].result(), tasks[2].result()

    assert run(scenario())[0] == (0, 0, 4)


def test_when_the_last_caller_goes_the_request_goes():
    async def scenario():
        server = Server()
        batcher = Batcher(server.double)
        tasks = [asyncio.ensure_future(batcher.submit(i)) for i in range(3)]
        await asyncio.sleep(0.5)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await asyncio.sleep(0)
        return server.cancelled, batcher.in_flight

    (cancelled, in_flight), seconds = run(scenario())
    assert (cancelled, in_flight) == (1, 0)
    assert seconds == pytest.approx(0.5)


def test_cancelled_while_waiting_never_reaches_the_server():
    async def scenario():
        server = Server()
        batcher = Batcher(server.double, concurrency=1)
        first = asyncio.ensure_future(batcher.submit(1))
        await asyncio.sleep(0.5)
        second = asyncio.ensure_future(batcher.submit(2))
        await asyncio.sleep(0)
        second.cancel()
        await first
        await asyncio.sleep(2)
        return server.batches

    assert run(scenario())[0] == [[1]]


def test_closing_fails_what_waits_and_what_is_under_way():
    async def scenario():
        server = Server()
        batcher = Batcher(server.double, concurrency=1)
        under_way = asyncio.ensure_future(batcher.submit(1))
        await asyncio.sleep(0.5)
        waiting = asyncio.ensure_future(batcher.submit(2))
        await asyncio.sleep(0)
        await batcher.aclose()
        results = await asyncio.gather(under_way, waiting, return_exceptions=True)
        with pytest.raises(RuntimeError, match="closed"):
            await batcher.submit(3)
        return [str(result) for result in results], server.now

    (said, now), seconds = run(scenario())
    assert ["under way" in said[0], "before this item was sent" in said[1]] == [True, True]
    assert now == 0
    assert seconds == pytest.approx(0.5)


@pytest.mark.parametrize(("error", "requests"), [(BadRequest, 6), (AuthError, 1), (Overloaded, 1)])
def test_only_failures_that_may_be_one_items_fault_are_divided(error, requests):
    async def scenario():
        server = Server(bad={3}, error=error)
        batcher = Batcher(server.double)
        results = await asyncio.gather(*(batcher.submit(i) for i in range(8)), return_exceptions=True)
        return [isinstance(result, error) for result in results], len(server.batches)

    (failed, sent), _ = run(scenario())
    assert sent == requests + (error is BadRequest)
    assert failed == ([i == 3 for i in range(8)] if error is BadRequest else [True] * 8)


def test_a_wrong_number_of_results_is_nobodys_result():
    async def scenario():
        async def drop_one(items):
            return items[1:]

        batcher = Batcher(drop_one)
        return await asyncio.gather(*(batcher.submit(i) for i in range(3)), return_exceptions=True)

    assert all("came back with" in str(result) for result in run(scenario())[0])


def test_items_wait_by_seniority():
    async def scenario():
        server = Server()
        batcher = Batcher(server.double, concurrency=1, max_items=2)

        async def call(senior, i):
            seniority.set(senior)
            return await batcher.submit(i)

        first = asyncio.ensure_future(call(5, 0))
        await asyncio.sleep(0.5)
        await asyncio.gather(first, *(call(senior, i) for i, senior in enumerate([9, 2, 4, 2, 1], start=1)))
        return server.batches

    assert run(scenario())[0] == [[0], [5, 2], [4, 3], [1]]


def test_a_batch_runs_for_the_account_of_its_first_item():
    account = ContextVar("account", default="nobody")

    async def scenario():
        seen = []

        async def send(items):
            seen.append((account.get(), seniority.get(), list(items)))
            await asyncio.sleep(1)
            return items

        batcher = Batcher(send, concurrency=1)

        async def call(name, senior, i):
            account.set(name)
            seniority.set(senior)
            return await batcher.submit(i)

        await asyncio.gather(call("ann", 7, 1), call("bob", 3, 2))
        return seen

    assert run(scenario())[0] == [("bob", 3, [2, 1])]


def test_lanes_do_not_meet_and_do_not_wait_for_each_other():
    async def scenario():
        sent = []

        async def send(items, lane):
            sent.append((asyncio.get_running_loop().time(), lane, list(items)))
            await asyncio.sleep(10 if lane == 0 else 1)
            return items

        batcher = Batcher(send, concurrency=1, lane=lambda item: item % 2)
        tasks = [asyncio.ensure_future(batcher.submit(i)) for i in range(4)]
        await asyncio.sleep(0.5)
        tasks += [asyncio.ensure_future(batcher.submit(i)) for i in range(4, 8)]
        await asyncio.sleep(0)
        waiting = [batcher.waiting_in(lane) for lane in (0, 1, 2)]
        await asyncio.gather(*tasks)
        return waiting, sent, batcher._lanes

    (waiting, sent, lanes), _ = run(scenario())
    assert waiting == [2, 2, 0]
    assert sent == [(0, 0, [0, 2]), (0, 1, [1, 3]), (1, 1, [5, 7]), (10, 0, [4, 6])]
    assert not lanes, "a lane in which nothing happens is taken down"


@pytest.mark.parametrize(("bad", "requests"), [({3}, 7), ({0, 7}, 11), (set(range(8)), 1 + 2 + 4)])
def test_a_failure_of_the_server_is_divided_while_any_part_passes(bad, requests):
    async def scenario():
        server = Server(bad=bad, error=lambda said: ServerError(said, status=500))
        batcher = Batcher(server.double)
        results = await asyncio.gather(*(batcher.submit(i) for i in range(8)), return_exceptions=True)
        return [isinstance(result, ServerError) for result in results], len(server.batches)

    (failed, sent), _ = run(scenario())
    assert failed == [i in bad for i in range(8)]
    assert sent == requests


def test_one_who_waits_for_several_batches_wakes_up_once_all_are_there():
    async def scenario():
        server = Server(bad={4})
        batcher = Batcher(server.double, concurrency=1, max_items=2)
        results = await batcher.submit_all(range(5))
        assert await batcher.submit_all([]) == []
        return results[:4], type(results[4]), server.batches

    (results, failed, batches), seconds = run(scenario())
    assert (results, failed) == ([0, 2, 4, 6], BadRequest)
    assert batches == [[0, 1], [2, 3], [4]]
    assert seconds == pytest.approx(3)


def test_one_who_leaves_takes_all_of_his_items_with_him_and_no_others():
    async def scenario():
        server = Server()
        batcher = Batcher(server.double, concurrency=1, max_items=2)
        leaves = asyncio.ensure_future(batcher.submit_all(range(3)))
        stays = asyncio.ensure_future(batcher.submit(7))
        await asyncio.sleep(0.5)
        leaves.cancel()
        await asyncio.wait([leaves])
        assert batcher.waiting == 1, "what he waited for is not counted any longer"
        return await stays, server.batches, server.cancelled

    (result, batches, cancelled), seconds = run(scenario())
    assert (result, batches, cancelled) == (14, [[0, 1], [7]], 1)
    assert seconds == pytest.approx(1.5)  # his request went at once, and made room


def test_batches_of_one_call_do_not_share_a_context():
    """Two requests under way at the same time must not see what the other notes (whether its connection is new)."""
    noted = ContextVar("noted", default=None)

    async def scenario():
        async def send(items):
            noted.set(items[0])
            await asyncio.sleep(1)
            return [noted.get()] * len(items)

        return await Batcher(send, concurrency=2, max_items=2).submit_all([0, 1, 2, 3])

    assert run(scenario())[0] == [0, 0, 2, 2]
