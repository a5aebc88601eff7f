"""The ledger: what a search may spend is never passed, and whoever waits for tokens gets them in the end."""

import asyncio
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asearch import Budget, Usage
from asearch.usage import BudgetSpent, Ledger
from worlds import run


def test_usage_adds_up():
    total = Usage(requests=1, policy_tokens=5, seconds=0.5) + Usage(requests=2, prm_tokens=7)
    assert total == Usage(requests=3, policy_tokens=5, prm_tokens=7, seconds=0.5)
    assert total.tokens == 12


def test_calls_are_counted_and_retries_with_them():
    book = Ledger(Budget(requests=3))
    book.open_call()
    book.book(retries=1)
    book.open_call()
    with pytest.raises(BudgetSpent, match="the budget of requests is spent"):
        book.open_call()


calls = st.lists(st.tuples(st.integers(1, 60), st.integers(0, 59), st.integers(0, 5), st.integers(0, 3)), max_size=20)


@given(calls, st.integers(1, 200))
def test_tokens_are_never_overspent_and_nobody_waits_for_ever(calls, limit):
    """Each caller wants some tokens, can do with fewer or not, spends a part of what it was granted, and takes its time."""

    async def one(book, want, spare, seconds, start):
        await asyncio.sleep(start)
        at_least = None if spare % 3 == 0 else max(1, want - spare)
        with suppress(BudgetSpent):
            async with book.reserved(want, at_least=at_least) as granted:
                assert (at_least or want) <= granted <= want
                await asyncio.sleep(seconds)
                book.book(policy_tokens=max(0, granted - spare))

    async def main():
        book = Ledger(Budget(tokens=limit))
        async with asyncio.TaskGroup() as group:
            for call in calls:
                group.create_task(one(book, *call))
        assert book.usage.tokens <= limit
        assert book._reserved == 0

    run(main())


def test_a_caller_that_is_cancelled_while_it_waits_holds_nothing():
    async def main():
        book = Ledger(Budget(tokens=10))

        async def hold(tokens, seconds):
            async with book.reserved(tokens):
                await asyncio.sleep(seconds)

        first = asyncio.create_task(hold(10, 5))
        await asyncio.sleep(1)
        second = asyncio.create_task(hold(10, 5))
        await asyncio.sleep(1)
        second.cancel()
        await asyncio.wait([first, second])
        async with book.reserved(10) as granted:
            assert granted == 10

    run(main())


def test_without_a_budget_nothing_is_held_back():
    async def main():
        book = Ledger()
        async with book.reserved(10**9) as granted:
            assert granted == 10**9
        assert not book.short

    run(main())
