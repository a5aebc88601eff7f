"""The memo: one computation per key, shared by all who wait, gone with the last of them."""

import asyncio
import gc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asearch.concurrency import Memo
from virtual_clock import run


class Slow:
    """Squares in a second; counts."""

    def __init__(self, fail=0):
        self.begun = self.ended = self.cancelled = 0
        self.fail = fail

    async def square(self, key):
        self.begun += 1
        try:
            await asyncio.sleep(1)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.begun <= self.fail:
            raise ValueError(f"no {key}")
        self.ended += 1
        return key * key


def test_asked_by_many_computed_once():
    async def scenario():
        slow = Slow()
        memo = Memo(slow.square)
        assert await asyncio.gather(*(memo.get(7) for _ in range(50))) == [49] * 50
        assert await memo.get(7) == 49
        assert (memo.known(7), memo.known(8)) == (49, None)
        return slow.begun

    assert run(scenario()) == (1, 1.0)


@given(st.lists(st.floats(0, 2, allow_subnormal=False), min_size=1, max_size=12), st.data())
def test_cancelled_waiters_do_not_disturb_the_others(cancellations, data):
    stays = data.draw(st.booleans())

    async def scenario():
        slow = Slow()
        memo = Memo(slow.square)
        tasks = [asyncio.ensure_future(memo.get(3)) for _ in cancellations]
        for task, when in zip(tasks, cancellations, strict=True):
            asyncio.get_running_loop().call_later(when, task.cancel)
        last = asyncio.ensure_future(memo.get(3)) if stays else None
        await asyncio.wait([*tasks, *([last] if last else [])])
        if last:
            assert last.result() == 9
        in_time = [task for task in tasks if not task.cancelled()]
        assert all(task.result() == 9 for task in in_time)
        if not in_time and not last:
            assert (slow.cancelled, slow.ended) in [(1, 0), (0, 1)]
        assert await memo.get(3) == 9  # whatever happened, it works

    run(scenario())


def test_the_last_to_leave_ends_the_computation():
    async def scenario():
        slow = Slow()
        memo = Memo(slow.square)
        tasks = [asyncio.ensure_future(memo.get(3)) for _ in range(3)]
        await asyncio.sleep(0.5)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        return slow.cancelled

    assert run(scenario()) == (1, 0.5)


def test_failures_are_everybodys_and_are_not_remembered():
    async def scenario():
        slow = Slow(fail=1)
        memo = Memo(slow.square)
        first = await asyncio.gather(*(memo.get(2) for _ in range(3)), return_exceptions=True)
        assert [str(failure) for failure in first] == ["no 2"] * 3
        assert await memo.get(2) == 4

    run(scenario())


def test_it_forgets_the_oldest():
    async def scenario():
        slow = Slow()
        memo = Memo(slow.square, max_size=2)
        for key in (1, 2, 3):
            await memo.get(key)
        return memo.known(1), memo.known(2), memo.known(3)

    assert run(scenario())[0] == (None, 4, 9)


def test_an_unseen_failure_is_no_noise(caplog):
    async def scenario():
        slow = Slow(fail=1)
        memo = Memo(slow.square)
        task = asyncio.ensure_future(memo.get(2))
        asyncio.get_running_loop().call_later(1, task.cancel)
        await asyncio.wait([task])

    run(scenario())
    gc.collect()
    assert not caplog.records


def test_none_is_a_value():
    async def scenario():
        calls = []

        async def nothing(key):
            calls.append(key)

        memo = Memo(nothing)
        assert await memo.get(1) is None
        assert await memo.get(1) is None
        return calls

    assert run(scenario())[0] == [1]


def test_an_exception_keeps_its_type():
    class Odd(Exception):
        pass

    async def fail(_):
        raise Odd

    with pytest.raises(Odd):
        run(Memo(fail).get(1))
