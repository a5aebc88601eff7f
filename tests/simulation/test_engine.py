"""The model of a server against a plain one that computes iteration by iteration, and against sums done by hand."""

import asyncio
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulation.cache import PrefixCache
from simulation.engine import Engine, Task
from simulation.hardware import Machine

from virtual_clock import run

LONG = 1e6  # until everything is over
MACHINE = Machine(
    "test",
    host=1.0,
    weights=2.0,
    flop=0.25,
    sequence=0.125,
    read=0.0078125,  # powers of two: sums are exact in whatever order
    max_num_seqs=4,
    max_num_batched_tokens=32,
    kv_tokens=100_000,
    block=16,
    latency=0.0,
)


def serve(arrivals, machine=MACHINE):
    """When each of (time, prompt, new) ends; prompts share nothing."""

    async def scenario():
        engine, loop = Engine(machine), asyncio.get_running_loop()
        ends = {}

        def submit(i, prompt, new):
            engine.submit([Task([(i + 1, prompt)], new, lambda: ends.__setitem__(i, loop.time()))])

        for i, (when, prompt, new) in enumerate(arrivals):
            loop.call_at(when, submit, i, prompt, new)
        await asyncio.sleep(LONG)
        return [ends[i] for i in range(len(arrivals))], engine

    return run(scenario())[0]


def serve_plainly(arrivals, machine=MACHINE):
    """The same, with every iteration on its own."""
    coming = sorted(range(len(arrivals)), key=lambda i: (arrivals[i][0], i))
    now, ends, waiting, filling, decoding = 0.0, {}, [], [], []
    while len(ends) < len(arrivals):
        waiting += [i for i in coming if arrivals[i][0] <= now]
        coming = [i for i in coming if arrivals[i][0] > now]
        budget = machine.max_num_batched_tokens - len(decoding) - sum(left for _, left in filling)
        while waiting and budget > 0 and len(decoding) + len(filling) < machine.max_num_seqs:
            i = waiting.pop(0)
            filling.append((i, arrivals[i][1]))
            budget -= arrivals[i][1]
        if not filling and not decoding:
            now = arrivals[coming[0]][0]
            continue
        room, filled, chunk, touched, rest = machine.max_num_batched_tokens - len(decoding), [], 0, 0, []
        for i, left in filling:
            part = min(left, room) if not rest else 0
            chunk, room, touched = chunk + part, room - part, touched + (part > 0)
            (rest.append((i, left - part)) if part < left else filled.append(i))
        context = sum(arrivals[i][1] + made for i, made in decoding)
        now += machine.iteration(len(decoding) + chunk, len(decoding) + touched, context)
        filling = rest
        decoding = [(i, made + 1) for i, made in decoding] + [(i, 1) for i in filled]
        ends.update({i: now for i, made in decoding if made == arrivals[i][2]})
        decoding = [(i, made) for i, made in decoding if i not in ends]
    return [ends[i] for i in range(len(arrivals))]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 4000), st.integers(1, 80), st.integers(1, 40)),
        min_size=1,
        max_size=12,
    )
)
def test_leaps_end_where_single_iterations_do(drawn):
    # nothing arrives in the very moment in which something else does, or an iteration ends (a multiple of 1/128)
    arrivals = [(t / 16 + (i + 1) / 4096, prompt, new) for i, (t, prompt, new) in enumerate(drawn)]
    assert serve(arrivals)[0] == pytest.approx(serve_plainly(arrivals), abs=1e-5)


def test_one_sequence_takes_its_prompt_and_one_iteration_per_further_token():
    ends, engine = serve([(0.0, 10, 5)])
    first = 1.0 + max(2.0, 10 * 0.25) + 0.125
    rest = sum(1.0 + 2.0 + 0.125 + 0.0078125 * (10 + made) for made in range(1, 5))
    assert ends == pytest.approx([first + rest])
    assert engine.counters.generated_tokens == 5
    assert engine.counters.busy == pytest.approx(first + rest)


def test_more_sequences_than_places_wait():
    ends, engine = serve([(0.0, 4, 10)] * 5)
    assert len(set(ends[:4])) == 1
    assert ends[4] > ends[0]
    assert engine.counters.peak_waiting == 5
    assert (engine.running, engine.waiting) == (0, 0)


def test_siblings_compute_their_prompt_once_and_continuations_only_what_is_new():
    async def scenario():
        engine = Engine(MACHINE)
        ended = []
        parts = [Task([(1, 48)], 20, lambda: ended.append(1), [(10 + i, 68)]) for i in range(2)]
        engine.submit(parts)
        await asyncio.sleep(LONG)
        first = engine.counters.computed_tokens
        engine.submit([Task([(1, 48), (10, 68)], 5, lambda: ended.append(1))])
        await asyncio.sleep(LONG)
        return first, engine.counters.computed_tokens - first

    # the second of two equal prompts computes its last block, a continuation what lies beyond the last whole block
    assert run(scenario())[0] == (48 + 16, 68 - 64)


def test_aborted_sequences_give_back_their_places_and_their_memory():
    async def scenario():
        engine = Engine(MACHINE)
        ended = []
        tasks = [Task([(i + 1, 40)], 30, lambda: ended.append(1)) for i in range(6)]
        engine.submit(tasks)
        await asyncio.sleep(60.0)
        running = engine.running
        engine.abort(tasks)
        engine.submit([Task([(100, 40)], 3, lambda: ended.append(2))])
        await asyncio.sleep(LONG)
        return running, ended, engine.running, engine.waiting, engine.cache.used

    running, ended, left, waiting, used = run(scenario())[0]
    assert running == 4
    assert ended == [2]
    assert (left, waiting) == (0, 0)
    assert used == sum(40 for _ in range(5))  # the prompts that had been computed stay in the cache, and nothing else


def test_without_a_prefix_cache_all_is_computed_again():
    machine = Machine(**{name: getattr(MACHINE, name) for name in MACHINE.__slots__} | {"prefix_caching": False})

    async def scenario():
        engine, ended = Engine(machine), []
        for _ in range(2):
            engine.submit([Task([(1, 48)], 1, lambda: ended.append(1))])
        await asyncio.sleep(LONG)
        return engine.counters.computed_tokens

    assert run(scenario())[0] == 96


class TestPrefixCache:
    def test_what_was_used_last_stays(self):
        cache = PrefixCache(100, 16)
        for name in (1, 2, 3):
            cache.release(cache.hold([(name, 30)], 0), 0)
        cache.release(cache.hold([(1, 30)], 0), 0)
        cache.release(cache.hold([(4, 30)], 0), 0)  # no room: the piece that was used longest ago leaves
        assert [cache.cached([(name, 30)]) for name in (1, 2, 3, 4)] == [16, 0, 16, 16]

    def test_ends_leave_before_beginnings(self):
        cache = PrefixCache(100, 16)
        cache.release(cache.hold([(1, 40), (2, 80)], 0), 0)
        cache.release(cache.hold([(3, 60)], 0), 0)
        assert cache.cached([(1, 40), (2, 80)]) == 32
        assert cache.used == 100

    def test_what_runs_cannot_be_evicted(self):
        cache = PrefixCache(100, 16)
        node = cache.hold([(1, 60)], 30)
        assert cache.hold([(2, 20)], 0) is None
        cache.release(node, 30, [(5, 90)])
        assert cache.hold([(2, 20)], 0) is not None
        assert cache.used <= 100

    @given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 4)), min_size=1, max_size=60))
    def test_memory_is_accounted_for(self, requests):
        cache, held = PrefixCache(300, 16), []
        for chain, depth in requests:
            pieces = [(100 * chain + k + 1, 25 * (k + 1)) for k in range(depth)]
            node = cache.hold(pieces, 10)
            if node is not None:
                held.append((node, (1000 * chain + 100 * depth + 1, pieces[-1][1] + 10)))
            if len(held) > 2 or node is None:
                for each, piece in held:
                    cache.release(each, 10, [piece])
                held = []
            assert cache.used <= 300
            assert cache.used == 10 * len(held) + sum(n.own for n in cache._nodes.values())
        assert all(n.parent is None or n.parent.name in cache._nodes for n in cache._nodes.values())


def test_arrivals_are_counted_once():
    ends, engine = serve([(float(t), 8, 3) for t in itertools.islice(itertools.count(), 9)])
    assert engine.counters.sequences == 9
    assert engine.counters.prompt_tokens == 72
    assert len(ends) == 9
