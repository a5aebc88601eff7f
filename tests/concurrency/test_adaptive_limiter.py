"""The limiter that finds out what a server can take."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asearch.concurrency import AdaptiveLimiter, Evicted, Limiter
from virtual_clock import run

moves = st.lists(st.one_of(st.integers(1, 600), st.none(), st.just(-1)), max_size=200)


@given(st.integers(1, 600), moves)
def test_never_above_the_ceiling_and_never_below_one(ceiling, script):
    limiter = AdaptiveLimiter(ceiling)
    for move in script:
        limiter.in_use = ceiling  # busy, so that the limit is what holds requests up
        if move is None:
            limiter.congested()
        else:
            limiter.passed(abs(move))
        assert 1 <= limiter.limit <= ceiling
        assert isinstance(limiter.limit, int)


def test_a_burst_of_refusals_is_one_signal():
    async def scenario():
        limiter = AdaptiveLimiter(100)

        async def refused():
            async with limiter.hold() as admission:
                await asyncio.sleep(1)
                limiter.congested(admission)

        await asyncio.gather(*(refused() for _ in range(100)))
        assert (limiter.limit, limiter.cuts) == (70, 1)
        await asyncio.gather(*(refused() for _ in range(70)))
        return limiter.limit, limiter.cuts

    assert run(scenario())[0] == (49, 2)


def test_what_was_under_way_counts_and_not_what_might_have_been():
    async def scenario():
        limiter = AdaptiveLimiter(512)
        async with limiter.hold(20) as admission:
            limiter.congested(admission)
            return limiter.limit

    assert run(scenario())[0] == 14


def test_it_grows_by_the_same_amount_for_every_limit_full_of_successes():
    limiter = AdaptiveLimiter(640)
    limiter.in_use = 100
    limiter.congested()
    assert limiter.limit == 70
    limits = []
    for _ in range(5):
        window = limiter.limit
        for _ in range(window):
            limiter.passed(1)
        limits.append(limiter.limit)
    assert limits == pytest.approx([80, 90, 100, 110, 120], abs=4)


def test_it_does_not_grow_while_it_is_not_needed():
    limiter = AdaptiveLimiter(100)
    limiter.in_use = 100
    limiter.congested()
    limiter.in_use = 3
    for _ in range(1000):
        limiter.passed(1)
    assert limiter.limit == 70


def test_turning_the_limit_turns_the_ceiling():
    limiter = AdaptiveLimiter(100)
    limiter.limit = 10
    assert (limiter.limit, limiter.ceiling) == (10, 10)
    limiter.in_use = 10
    limiter.passed(1000)
    assert limiter.limit == 10
    limiter.limit = 200
    assert limiter.limit == 200


class Refusing:
    """A server that can take so many at once, and refuses more."""

    def __init__(self, capacity):
        self.capacity = capacity
        self.running = self.served = self.refused = self.asked = 0

    async def ask(self):
        self.asked += 1
        if self.running >= self.capacity:
            self.refused += 1
            await asyncio.sleep(0.05)
            return False
        self.running += 1
        try:
            await asyncio.sleep(1.0 + 0.37 * (self.asked % 7) / 7)
        finally:
            self.running -= 1
        self.served += 1
        return True


async def work(server, limiter, seconds):
    """A client that always has more to ask, as fast as its limiter lets it; returns how much was served."""
    served = 0
    end = asyncio.get_running_loop().time() + seconds

    async def worker():
        nonlocal served
        while asyncio.get_running_loop().time() < end:
            async with limiter.hold() as admission:
                if await server.ask():
                    limiter.passed(1)
                    served += 1
                    continue
                limiter.congested(admission)
            await asyncio.sleep(0.5)  # as a retry waits

    await asyncio.gather(*(worker() for _ in range(limiter.ceiling)))
    return served


def test_it_finds_the_capacity_of_a_server():
    async def scenario():
        server = Refusing(capacity=50)
        limiter = AdaptiveLimiter(256)
        await work(server, limiter, 200)
        return server.served / (50 * 200 / 1.16), server.refused / server.asked

    (used, refused), _ = run(scenario())
    assert used > 0.8, "of what the server could have done"
    assert refused < 0.1


def test_clients_of_one_server_come_to_equal_shares():
    async def scenario():
        server = Refusing(capacity=120)
        limiters = [AdaptiveLimiter(256) for _ in range(4)]
        for limiter, start in zip(limiters, (256, 10, 50, 1), strict=True):
            limiter._set(start)
        await asyncio.gather(*(work(server, limiter, 150) for limiter in limiters))  # to find their places
        return await asyncio.gather(*(work(server, limiter, 300) for limiter in limiters))

    shares, _ = run(scenario())
    jain = sum(shares) ** 2 / (len(shares) * sum(share**2 for share in shares))
    assert jain > 0.95, f"shares {shares}"


def test_a_pause_lets_nobody_in_and_ends_by_itself():
    async def scenario():
        limiter, times = Limiter(5), []
        loop = asyncio.get_running_loop()

        async def call():
            async with limiter.hold():
                times.append(loop.time())
                await asyncio.sleep(1)

        first = asyncio.ensure_future(call())
        await asyncio.sleep(0.5)
        limiter.pause(10)
        limiter.pause(3)  # a shorter one does not end the longer
        assert limiter.paused
        assert not limiter.has_room()
        await asyncio.gather(first, *(call() for _ in range(7)))
        return times

    times, _ = run(scenario())
    assert times == pytest.approx([0, *[10.5] * 5, *[11.5] * 2])


def test_eviction_sends_away_who_waits_and_nobody_else():
    async def scenario():
        limiter = Limiter(1)

        async def call():
            async with limiter.hold():
                await asyncio.sleep(1)
            return "done"

        tasks = [asyncio.ensure_future(call()) for _ in range(4)]
        await asyncio.sleep(0.5)
        limiter.evict(1)
        await asyncio.sleep(0)
        assert limiter.waiting == 2
        limiter.evict()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert (limiter.in_use, limiter.waiting) == (0, 0)
        return [result if isinstance(result, str) else type(result) for result in results]

    assert run(scenario())[0] == ["done", Evicted, Evicted, Evicted]


def test_vacancy_comes_when_there_is_room_and_nobody_waits_for_it():
    async def scenario():
        limiter = Limiter(2)
        loop = asyncio.get_running_loop()

        async def call():
            async with limiter.hold():
                await asyncio.sleep(1)

        tasks = [asyncio.ensure_future(call()) for _ in range(5)]
        await asyncio.sleep(0)
        await limiter.vacancy()
        when = loop.time()
        await asyncio.gather(*tasks)
        await limiter.vacancy()
        return when

    assert run(scenario()) == (pytest.approx(2.0), pytest.approx(3.0))
