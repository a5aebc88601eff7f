"""Nothing waits that need not: a path is scored when its step ends, subtrees and problems do not wait for each other."""

import asyncio

import pytest

from asearch import DVTS, BeamSearch, BestOfN, Sampled, Scored, solve, solve_all
from asearch.admission import Admission
from asearch.concurrency import Limiter
from worlds import ScriptedClient, ScriptedPRM, World, number, run

WORLD = World(branching=6, depth=4)


class Diary:
    """Who wrote and who judged when, on the virtual clock."""

    def __init__(self):
        self.writing = self.judging = self.both = 0
        self.moments = []
        self.score_began = {}

    def client(self, latency):
        diary = self

        class Client(ScriptedClient):
            async def extend(self, path, n, **options):
                diary.writing += 1
                diary.both += bool(diary.judging)
                try:
                    return await super().extend(path, n, **options)
                finally:
                    diary.writing -= 1

        return Client(WORLD, latency=latency)

    def prm(self, latency):
        diary = self

        class PRM(ScriptedPRM):
            async def score(self, path):
                diary.judging += 1
                diary.both += bool(diary.writing)
                diary.score_began[path.id] = asyncio.get_running_loop().time()
                try:
                    return await super().score(path)
                finally:
                    diary.judging -= 1

        return PRM(WORLD, latency=latency)


def uneven(path, seed):
    return 1 + number("time", path.id, seed) % 7


def searched(strategy, diary):
    """A search, and when each path was sampled."""
    sampled = {}

    def note(event):
        if isinstance(event, Sampled):
            sampled[event.path.id] = asyncio.get_running_loop().time()

    async def main():
        client, prm = diary.client(uneven), diary.prm(lambda _: 3)
        return await solve(strategy, client, prm, "Which?", on_event=note)

    return run(main()), sampled


@pytest.mark.parametrize(
    "strategy", [BestOfN(n=12, early_stop=False), DVTS(n=12, width=2), BeamSearch(n=12, width=2)], ids=lambda s: s.name
)
def test_a_path_is_scored_in_the_moment_in_which_its_step_ends(strategy):
    diary = Diary()
    _, sampled = searched(strategy, diary)
    assert diary.score_began
    assert {path: sampled[path] for path in diary.score_began} == diary.score_began


@pytest.mark.parametrize(
    "strategy", [BestOfN(n=12, early_stop=False), DVTS(n=12, width=2), BeamSearch(n=12, width=2)], ids=lambda s: s.name
)
def test_the_policy_writes_while_the_verifier_judges(strategy):
    """Requests that began while the other server worked. Only beam search has levels, within which it happens, too."""
    diary = Diary()
    searched(strategy, diary)
    assert diary.both >= 6


def test_a_subtree_does_not_wait_for_a_slow_one():
    """The first step of one subtree takes longer than all of the others."""
    ended = {}

    def note(event):
        if isinstance(event, Scored) and event.path.finished:
            ended.setdefault(event.path.id[0] // 2, asyncio.get_running_loop().time())

    def latency(path, seed):
        slow.setdefault("seed", seed)  # of the first request
        return 1000 if seed == slow["seed"] else 1

    slow = {}
    client, prm = ScriptedClient(WORLD, latency=latency), ScriptedPRM(WORLD, latency=lambda _: 1)
    run(solve(DVTS(n=8, width=2), client, prm, "Which?", on_event=note))
    assert max(when for subtree, when in ended.items() if subtree) <= 2 * WORLD.depth
    assert ended[0] > 1000


# -- which problem is next --------------------------------------------------------------------------------------------


class Endpoint:
    """As much of an endpoint as admission looks at."""

    def __init__(self, limit):
        self.limiter = Limiter(limit)


class Served(ScriptedClient):
    """A policy whose server takes so many sequences; keeps what was in use."""

    def __init__(self, limit, **options):
        super().__init__(WORLD, **options)
        self.endpoint = Endpoint(limit)
        self.work = 0.0  # sequences x seconds

    async def extend(self, path, n, **options):
        limiter = self.endpoint.limiter
        async with limiter.hold(n):
            began = asyncio.get_running_loop().time()
            steps = await super().extend(path, n, **options)
            self.work += n * (asyncio.get_running_loop().time() - began)
            return steps


def evaluation(limit, at_once, strategy, problems=40, judging=3):
    """Run it: (share of the server's room that was used, the most problems under way)."""
    client = Served(limit, latency=uneven)
    prm = ScriptedPRM(WORLD, latency=lambda _: judging)
    under_way, most = set(), 0

    def note(event):
        nonlocal most
        (under_way.discard if type(event).__name__ == "Stopped" else under_way.add)(event.path.problem.text)
        most = max(most, len(under_way))

    async def main():
        results = solve_all(strategy, client, prm, map(str, range(1, problems + 1)), at_once=at_once, on_event=note)
        found = [result.problem.text async for result in results]
        assert found == [str(i) for i in range(1, problems + 1)]
        return asyncio.get_running_loop().time()

    seconds = run(main())
    return client.work / (limit * seconds), most


@pytest.mark.parametrize("strategy", [DVTS(n=8, width=2), BeamSearch(n=8, width=2), BestOfN(n=8)], ids=lambda s: s.name)
def test_problems_begin_as_the_policy_has_room(strategy):
    """Its server is used better than by as many problems as fill it in their first step, and the room stays bounded."""
    used, most = evaluation(32, None, strategy)
    assert used > 0.8
    assert used > 1.5 * evaluation(32, 32 // 8, strategy)[0]
    assert most <= 4 * 32 // 8


def test_where_the_verifier_is_slow_problems_do_not_pile_up_before_it():
    _, most = evaluation(16, None, DVTS(n=8, width=2), judging=500)
    assert most <= 4 * 16 // 8


def test_a_problem_larger_than_the_server_runs_none_the_less():
    used, most = evaluation(4, None, BestOfN(n=8, early_stop=False), problems=5)
    assert used > 0.8
    assert most <= 2


def test_a_fixed_number_is_kept():
    assert evaluation(64, 3, DVTS(n=8, width=2))[1] <= 3


def test_room_that_was_promised_is_not_promised_again():
    """A search that has begun and asks for its prompt first: the room that it will need is taken."""

    async def main():
        limiter = Limiter(16)
        places, began = Admission(8, limiter, None), []

        async def search(i):
            async with places.place(None) as book:
                began.append((i, asyncio.get_running_loop().time()))
                await asyncio.sleep(10)  # rendering
                book.open_call()
                async with limiter.hold(8):
                    await asyncio.sleep(1)

        async with asyncio.TaskGroup() as group:
            for i in range(6):
                group.create_task(search(i))
        return began

    assert run(main()) == [(0, 0), (1, 0), (2, 11), (3, 11), (4, 22), (5, 22)]


def test_a_search_that_is_cancelled_before_it_asks_gives_its_place_back():
    async def main():
        places = Admission(8, Limiter(8), None)

        async def idle():
            async with places.place(None):
                await asyncio.sleep(1000)

        async def search():
            async with places.place(None) as book:
                book.open_call()

        first = asyncio.create_task(idle())
        await asyncio.sleep(1)
        second = asyncio.create_task(search())
        await asyncio.sleep(1)
        assert not second.done()
        first.cancel()
        await second

    run(main())
