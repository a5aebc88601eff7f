"""Running together: results in order, the plain first failure, and nothing left behind."""

import asyncio
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asearch.concurrency import as_completed, cancel_and_wait, together
from virtual_clock import Deadlock, run


class Worker:
    def __init__(self):
        self.running = 0
        self.cancelled = []

    async def work(self, name, seconds, failure=None):
        self.running += 1
        try:
            await asyncio.sleep(seconds)
            if failure is not None:
                raise failure
            return name  # noqa: TRY300 - the line above it is what may be cancelled
        except asyncio.CancelledError:
            self.cancelled.append(name)
            await asyncio.sleep(0.1)  # even one that takes its time to leave
            raise
        finally:
            self.running -= 1


times = st.lists(st.floats(0, 9, allow_subnormal=False), max_size=12)


@given(times)
def test_results_come_in_the_order_of_the_coroutines(seconds):
    worker = Worker()
    result, passed = run(together(worker.work(i, s) for i, s in enumerate(seconds)))
    assert result == list(range(len(seconds)))
    assert passed == pytest.approx(max(seconds, default=0.0), abs=1e-6)


@pytest.mark.parametrize("others", [0, 3])
def test_the_first_failure_is_raised_as_it_is(others):
    worker = Worker()

    async def scenario():
        with pytest.raises(KeyError, match="second"):
            await together(
                [
                    worker.work("fails", 2, KeyError("second")),
                    *(worker.work(i, 5) for i in range(others)),
                    *(worker.work(f"later {i}", 3, ValueError("too late")) for i in range(others)),
                ]
            )
        assert worker.running == 0
        return len(worker.cancelled)

    assert run(scenario())[0] == 2 * others


def test_leaving_takes_all_along():
    worker = Worker()

    async def scenario():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await together(worker.work(i, 5) for i in range(4))
        return worker.running, sorted(worker.cancelled)

    assert run(scenario())[0] == (0, [0, 1, 2, 3])


@given(times)
def test_as_completed_yields_in_the_order_of_time(seconds):
    async def scenario():
        worker = Worker()
        return [pair async for pair in as_completed(worker.work(f"w{i}", s) for i, s in enumerate(seconds))]

    pairs, _ = run(scenario())
    assert sorted(pairs) == sorted((i, f"w{i}") for i in range(len(seconds)))
    ended = [seconds[i] for i, _ in pairs]
    assert all(a <= b + 1e-6 for a, b in itertools.pairwise(ended))


def test_leaving_as_completed_early_cancels_the_rest():
    worker = Worker()

    async def scenario():
        arrivals = as_completed(worker.work(i, i) for i in range(5))
        async for i, _ in arrivals:
            if i == 1:
                break
        await arrivals.aclose()
        return worker.running, sorted(worker.cancelled)

    assert run(scenario())[0] == (0, [2, 3, 4])


def test_a_failure_in_as_completed_cancels_the_rest():
    worker = Worker()

    async def scenario():
        with pytest.raises(KeyError):
            async for _ in as_completed([worker.work(0, 1, KeyError()), worker.work(1, 2), worker.work(2, 3)]):
                pass
        return worker.running, sorted(worker.cancelled)

    assert run(scenario())[0] == (0, [1, 2])


def test_cancel_and_wait_sees_everybody_out():
    worker = Worker()

    async def scenario():
        tasks = [asyncio.ensure_future(worker.work(i, 5)) for i in range(3)]
        failed = asyncio.ensure_future(worker.work("failed", 0, ValueError()))
        await asyncio.sleep(1)
        await cancel_and_wait([*tasks, failed])
        await cancel_and_wait([])
        return worker.running

    assert run(scenario())[0] == 0


def test_the_virtual_clock_notices_a_deadlock():
    with pytest.raises(Deadlock):
        run(asyncio.Event().wait())
