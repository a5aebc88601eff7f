"""Events: enough to draw the tree live, in a sensible order, from a function, a coroutine or a loop."""

import asyncio
from collections import Counter
from contextlib import aclosing

import pytest

from asearch import (
    DVTS,
    BeamSearch,
    BestOfN,
    Failed,
    Finished,
    Majority,
    ParticleFilter,
    Pruned,
    Rebase,
    Sampled,
    Scored,
    SearchFailed,
    SelfRefine,
    ServerError,
    Stopped,
    UsageError,
    solve,
    stream,
)
from asearch.search import Search
from worlds import ScriptedClient, ScriptedPRM, World, run

WORLD = World(branching=4, depth=3)
STRATEGIES = [
    BestOfN(n=8, early_stop=False),
    BeamSearch(n=8, width=2),
    DVTS(n=8, width=2),
    ParticleFilter(n=8),
    Rebase(n=8),
    SelfRefine(n=8),
]


def servers(**options):
    return ScriptedClient(WORLD, latency=lambda *_: 1, **options), ScriptedPRM(WORLD, latency=lambda _: 1)


@pytest.mark.parametrize("strategy", STRATEGIES, ids=repr)
def test_the_tree_can_be_drawn_from_the_events_alone(strategy):
    events = []
    result = run(solve(strategy, *servers(), "What?", on_event=events.append))
    sampled, scored, fates = {}, {}, {}
    for event in events[:-1]:
        if isinstance(event, Sampled):
            for path in event.path.lineage():
                sampled.setdefault(path.id, path.step.text)
        elif isinstance(event, Scored):
            assert event.path.id in sampled
            for path in event.path.lineage():
                scored[path.id] = path.score
        elif isinstance(event, Pruned | Finished):
            fates[event.path.id] = "pruned" if isinstance(event, Pruned) else "finished"
    assert sampled == {node.path.id: node.path.step.text for node in result.tree.nodes}
    assert scored == {node.path.id: node.path.score for node in result.tree.nodes if node.path.score is not None}
    assert {path.id for path in result.paths} == {key for key, fate in fates.items() if fate == "finished"}
    assert all(fates[node.path.id] == "pruned" for node in result.tree.nodes if node.fate == "pruned")


@pytest.mark.parametrize("strategy", STRATEGIES, ids=repr)
def test_usage_grows_and_the_last_event_has_the_result(strategy):
    events = []
    result = run(solve(strategy, *servers(), "What?", on_event=events.append))
    assert isinstance(events[-1], Stopped)
    assert events[-1].result is result
    assert events[-1].path.text == result.text
    assert events[-1].reason is None
    assert sum(isinstance(event, Stopped) for event in events) == 1
    spent = [(event.usage.requests, event.usage.policy_tokens, event.usage.seconds) for event in events]
    assert spent == sorted(spent)


def test_a_coroutine_is_awaited():
    heard = Counter()

    async def listen(event):
        await asyncio.sleep(0.01)
        heard[type(event).__name__] += 1

    run(solve(DVTS(n=4, width=2), *servers(), "What?", on_event=listen))
    assert heard["Sampled"] >= 12 - 4
    assert heard["Stopped"] == 1


def test_what_a_listener_raises_ends_the_search():
    client, prm = servers()

    def listen(event):
        raise KeyError("listener")

    with pytest.raises(KeyError, match="listener"):
        run(solve(DVTS(n=4, width=2), client, prm, "What?", on_event=listen))
    assert (client.open, prm.open) == (0, 0)


def test_failures_are_told():
    broken = ServerError("gone")
    client, prm = servers(fail=lambda path, _: broken if path.id[:1] == (0,) else None)
    events = []
    run(solve(DVTS(n=8, width=2, temperature=1), client, prm, "What?", on_event=events.append))
    failed = [event for event in events if isinstance(event, Failed)]
    assert all(event.error == "gone" for event in failed)


def test_events_cost_nothing_when_nobody_listens(monkeypatch):
    """No event is made, and no usage is read for one."""
    reads = 0

    def usage(self):
        nonlocal reads
        reads += 1
        return self.book.usage

    monkeypatch.setattr(Search, "usage", property(usage))
    run(solve(BeamSearch(n=8), *servers(), "What?"))
    assert reads == 1  # for the result


# -- the stream --------------------------------------------------------------------------------------------------------


def test_a_stream_is_what_a_listener_hears():
    async def streamed():
        return [event async for event in stream(DVTS(n=8, width=2), *servers(), "What?", seed=3)]

    events, heard = run(streamed()), []
    run(solve(DVTS(n=8, width=2), *servers(), "What?", seed=3, on_event=heard.append))
    assert [(type(e), e.path.id, e.usage) for e in events] == [(type(e), e.path.id, e.usage) for e in heard]
    assert events[-1].result.answer == heard[-1].result.answer


def test_leaving_the_stream_early_ends_the_search():
    async def main():
        client, prm = servers()
        async with aclosing(stream(BeamSearch(n=8), client, prm, "What?")) as events:
            async for event in events:
                if isinstance(event, Scored):
                    break
        assert (client.open, prm.open) == (0, 0)
        assert len(asyncio.all_tasks()) == 1

    run(main())


async def read(events):
    return [event async for event in events]


def test_a_cancelled_reader_ends_the_search():
    async def main():
        client, prm = servers()
        reading = asyncio.create_task(read(stream(BeamSearch(n=8), client, prm, "What?")))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reading, 1.5)
        assert (client.open, prm.open) == (0, 0)
        assert len(asyncio.all_tasks()) == 1

    run(main())


def test_what_the_search_raises_is_raised_by_the_stream():
    async def main():
        client, prm = servers(fail=lambda *_: ServerError("gone"))
        return [event async for event in stream(Majority(n=2), client, prm, "What?")]

    with pytest.raises(SearchFailed, match="gone"):
        run(main())


def test_a_stream_refuses_at_once():
    with pytest.raises(UsageError, match="multiple of width"):
        stream(BeamSearch(n=3), "http://nowhere", "http://nowhere", "What?")
    with pytest.raises(UsageError, match="needs a PRM"):
        stream("dvts", "http://nowhere", None, "What?")
