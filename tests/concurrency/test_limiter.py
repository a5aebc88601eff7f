"""The limiter: never too many at once, nothing lost, whoever is cancelled whenever."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asearch.concurrency import Limiter, seniority
from virtual_clock import run


async def use(limiter, units, seconds, log=None, name=None):
    async with limiter.hold(units):
        if log is not None:
            log.append(name)
        await asyncio.sleep(seconds)


calls = st.lists(
    st.tuples(
        st.integers(1, 7),  # units
        st.floats(0, 5, allow_subnormal=False),  # arrives
        st.floats(0, 5, allow_subnormal=False),  # works
        st.one_of(st.none(), st.floats(0, 8, allow_subnormal=False)),  # is cancelled
        st.integers(0, 2),  # seniority
    ),
    min_size=1,
    max_size=25,
)


@given(calls, st.integers(1, 8))
def test_whatever_happens_the_limit_holds_and_everything_comes_back(script, limit):
    async def scenario():
        limiter = Limiter(limit)
        alone = set()

        async def call(i, units, arrives, works, senior):
            await asyncio.sleep(arrives)
            seniority.set(senior)
            async with limiter.hold(units):
                alone.add(i)
                assert limiter.in_use <= limit or len(alone) == 1, "too many at once"
                try:
                    await asyncio.sleep(works)
                finally:
                    alone.discard(i)

        tasks = []
        for i, (units, arrives, works, cancelled, senior) in enumerate(script):
            tasks.append(asyncio.ensure_future(call(i, units, arrives, works, senior)))
            if cancelled is not None:
                asyncio.get_running_loop().call_later(cancelled, tasks[-1].cancel)
        await asyncio.wait(tasks)
        assert (limiter.in_use, limiter.waiting) == (0, 0)
        return [task.exception() for task in tasks if not task.cancelled()]

    failures, _ = run(scenario())
    assert not any(failures)


def test_nobody_waits_while_there_is_room():
    async def scenario():
        limiter = Limiter(3)
        await asyncio.gather(*(use(limiter, 1, 10) for _ in range(9)))

    assert run(scenario())[1] == pytest.approx(30)


def test_the_senior_goes_first_then_the_order_of_arrival():
    async def scenario():
        limiter, log = Limiter(1), []

        async def call(senior, name):
            seniority.set(senior)
            await use(limiter, 1, 1, log, name)

        await asyncio.gather(*(call(s, n) for s, n in [(5, "first in"), (9, "c"), (2, "a"), (2, "b"), (9, "d")]))
        return log

    # nothing is admitted before the call that asks for it runs: the first one finds an empty limiter
    assert run(scenario())[0] == ["first in", "a", "b", "c", "d"]


def test_a_request_beyond_the_limit_runs_alone():
    async def scenario():
        limiter, log = Limiter(2), []
        await asyncio.gather(
            use(limiter, 1, 1, log, "small"), use(limiter, 5, 1, log, "large"), use(limiter, 1, 1, log, "next")
        )
        return log

    log, seconds = run(scenario())
    assert log == ["small", "large", "next"]
    assert seconds == pytest.approx(3)


def test_the_limit_can_be_turned_while_it_is_in_use():
    async def scenario():
        limiter = Limiter(1)
        calls = asyncio.gather(*(use(limiter, 1, 10) for _ in range(4)))
        await asyncio.sleep(1)
        assert (limiter.in_use, limiter.waiting) == (1, 3)
        limiter.limit = 3
        assert (limiter.in_use, limiter.waiting) == (3, 1)
        limiter.limit = 0  # as low as it goes: one
        assert limiter.limit == 1
        await calls

    assert run(scenario())[1] == pytest.approx(21)


def test_cancelled_in_the_moment_of_admission():
    async def scenario():
        limiter = Limiter(1)
        first = asyncio.ensure_future(use(limiter, 1, 1))
        second = asyncio.ensure_future(use(limiter, 1, 1))
        await asyncio.sleep(0.5)
        # the first leaves and admits the second, which is cancelled before it wakes
        first.cancel()
        second_was_admitted = asyncio.get_running_loop().create_future()
        first.add_done_callback(lambda _: (second.cancel(), second_was_admitted.set_result(limiter.in_use)))
        assert await second_was_admitted == 1
        await asyncio.wait([first, second])
        return limiter.in_use, limiter.waiting

    assert run(scenario())[0] == (0, 0)


def test_cancelled_waiters_are_not_kept():
    async def scenario():
        limiter = Limiter(1)
        async with limiter.hold():
            waiting = [asyncio.ensure_future(use(limiter, 1, 1)) for _ in range(1000)]
            await asyncio.sleep(0)
            for task in waiting:
                task.cancel()
            await asyncio.wait(waiting)
            assert limiter.waiting == 0
            return len(limiter._queue)

    assert run(scenario())[0] == 0
