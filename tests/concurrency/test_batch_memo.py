"""A batcher that remembers: asked once, no matter how many ask; failures are shared and forgotten; cancelling harms nobody."""

import asyncio

import pytest

from asearch.concurrency import Batcher, BatchMemo
from asearch.errors import BadRequest, Closed
from worlds import run


class Server:
    """Doubles numbers, in batches of at most four, a second each; refuses 13."""

    def __init__(self, seconds=1):
        self.seconds, self.asked, self.batches = seconds, [], 0
        self.batcher = Batcher(self.send, concurrency=1, max_items=4)
        self.memo = BatchMemo(self.batcher, max_size=100)

    async def send(self, items):
        self.batches += 1
        await asyncio.sleep(self.seconds)
        self.asked += items
        if 13 in items:
            raise BadRequest("no 13", endpoint="here", status=400)
        return [2 * item for item in items]


def test_each_item_is_asked_once():
    async def main():
        server, new = Server(), []
        first = await server.memo.get([1, 2, 1], new.append)
        again = await server.memo.get([2, 3], new.append)
        assert (first, again) == ([2, 4, 2], [4, 6])
        assert server.asked == [1, 2, 3]
        assert new == [2, 4, 6]
        assert server.memo.known(3) == 6
        assert server.memo.known(4) is None

    run(main())


def test_those_who_ask_at_the_same_time_share():
    async def main():
        server, new = Server(), []
        answers = await asyncio.gather(*(server.memo.get([k, k + 1], new.append) for k in range(3)))
        assert answers == [[0, 2], [2, 4], [4, 6]]
        assert sorted(server.asked) == [0, 1, 2, 3]
        assert sorted(new) == [0, 2, 4, 6]  # each is booked for one of them

    run(main())


def test_a_failure_stands_in_its_place_and_is_asked_again():
    async def main():
        server, new = Server(), []
        one, other = await asyncio.gather(server.memo.get([1, 13, 2], new.append), server.memo.get([13], new.append))
        assert [one[0], one[2]] == [2, 4]
        assert isinstance(one[1], BadRequest)
        assert other == [one[1]]
        asked = server.asked.count(13)
        assert isinstance((await server.memo.get([13]))[0], BadRequest)
        assert server.asked.count(13) > asked
        assert sorted(new) == [2, 4]

    run(main())


def test_who_waits_with_one_that_is_cancelled_gets_an_answer():
    async def main():
        server = Server()
        first = asyncio.create_task(server.memo.get([1, 2]))
        await asyncio.sleep(0.5)
        second = asyncio.create_task(server.memo.get([2, 3]))
        await asyncio.sleep(0.1)
        first.cancel()
        assert await second == [4, 6]
        assert first.cancelled()
        assert server.batcher.waiting == server.batcher.in_flight == 0

    run(main())


def test_one_who_waits_and_is_cancelled_leaves_the_first_alone():
    async def main():
        server = Server()
        first = asyncio.create_task(server.memo.get([1]))
        await asyncio.sleep(0.5)
        second = asyncio.create_task(server.memo.get([1]))
        await asyncio.sleep(0.1)
        second.cancel()
        assert await first == [2]
        assert server.asked == [1]

    run(main())


def test_when_all_have_gone_the_request_goes_too():
    async def main():
        server = Server()
        task = asyncio.create_task(server.memo.get([1, 2]))
        await asyncio.sleep(0.5)
        task.cancel()
        await asyncio.sleep(5)
        assert server.batches == 1
        assert server.asked == []
        assert server.batcher.in_flight == 0

    run(main())


def test_a_closed_batcher_says_so():
    async def main():
        server = Server()
        waiting = asyncio.create_task(server.memo.get([1]))
        await asyncio.sleep(0.5)
        await server.batcher.aclose()
        assert isinstance((await waiting)[0], Closed)
        with pytest.raises(Closed):
            await server.memo.get([2])

    run(main())


def test_the_oldest_are_forgotten():
    async def main():
        server = Server(seconds=0)
        await server.memo.get(list(range(20, 150)))
        assert server.memo.known(20) is None
        assert server.memo.known(149) == 298
        assert await server.memo.get([20]) == [40]

    run(main())


def test_more_at_once_than_are_remembered():
    async def main():
        server = Server(seconds=0)
        assert await server.memo.get(list(range(200, 400))) == [2 * k for k in range(200, 400)]

    run(main())
