"""Sampling, the cache, car pools and stop strings by themselves."""

from __future__ import annotations

import numpy as np
import pytest
from embedded_models import Recorder, token_ids, write_checkpoint
from hypothesis import given
from hypothesis import strategies as st

from asearch_backends.embedded.admission import carpool
from asearch_backends.embedded.cache import PrefixCache, token_bytes
from asearch_backends.embedded.checkpoint import load_checkpoint
from asearch_backends.embedded.kv import BLOCK, PAGE, KVPages
from asearch_backends.embedded.sampling import SamplingParams, SamplingTable, keep_likely, uniform
from asearch_backends.embedded.sequence import Sequence
from asearch_backends.embedded.tokenizer import Tokenizer, find_stop


def kept(weights, *, top_k=0, top_p=1.0, min_p=0.0):
    row = np.array([weights])
    result = keep_likely(row, np.array([top_k]), np.array([top_p]), np.array([min_p]))[0]
    assert all(value in (0, weight) for value, weight in zip(result, weights, strict=True))
    return np.flatnonzero(result).tolist()


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({}, [0, 1, 2, 3]),
        ({"top_k": 2}, [1, 3]),
        ({"top_p": 0.4}, [1]),
        ({"top_p": 0.41}, [1, 3]),
        ({"top_p": 1e-9}, [1]),
        ({"min_p": 0.5}, [0, 1, 3]),
        ({"min_p": 0.51}, [1, 3]),
        ({"min_p": 1.0}, [1]),
        ({"top_k": 3, "top_p": 0.78}, [1, 3, 0]),
        ({"top_k": 9, "min_p": 0.0}, [0, 1, 2, 3]),
    ],
)
def test_filters_keep_the_likely_ones(filters, expected):
    assert kept([0.2, 0.4, 0.1, 0.3], **filters) == sorted(expected)


@given(
    st.lists(st.floats(0.001, 1), min_size=1, max_size=30),
    st.integers(0, 40),
    st.floats(0.01, 1),
    st.floats(0, 1),
)
def test_filters_never_drop_the_most_likely(weights, top_k, top_p, min_p):
    assert weights[int(np.argmax(weights))] in [
        weights[i] for i in kept(weights, top_k=top_k, top_p=top_p, min_p=min_p)
    ]


def test_random_numbers_are_uniform_and_depend_on_seed_and_position_only():
    seeds = np.arange(200, dtype=np.uint64).repeat(200)
    positions = np.tile(np.arange(200), 200)
    numbers = uniform(seeds, positions)
    assert len(np.unique(numbers)) == len(numbers)
    histogram = np.histogram(numbers, 20, (0, 1))[0]
    assert ((histogram - 2000) ** 2 / 2000).sum() < 50  # chi-squared of 19 degrees: 50 is beyond .0001
    neighbours = np.corrcoef(numbers.reshape(200, 200)[:, :-1].ravel(), numbers.reshape(200, 200)[:, 1:].ravel())
    assert abs(neighbours[0, 1]) < 0.02
    order = np.random.default_rng(0).permutation(len(numbers))
    np.testing.assert_array_equal(uniform(seeds[order], positions[order]), numbers[order])


def test_a_repetition_penalty_moves_the_seen_tokens_only():
    table, logits = SamplingTable(1, 4), np.array([[2.0, 1.9, -1.0, 0.1]], np.float32)
    params = SamplingParams(max_tokens=9, temperature=0, repetition_penalty=1.5)
    table.set(0, params, 0, np.array([0], np.int32), [])
    assert table.choose(np.array([0]), logits, np.array([1])).tolist() == [1]  # 0 was in the prompt
    assert table.choose(np.array([0]), logits, np.array([2])).tolist() == [
        0
    ]  # now 1 has been seen, too: 1.33 against 1.27
    assert logits[0, 0] == 2.0


def sequences(*texts):
    params = SamplingParams(max_tokens=1)
    return [Sequence(i, np.array([ord(c) for c in t], np.int32), params, 0, Recorder()) for i, t in enumerate(texts)]


@given(st.lists(st.text("ab", min_size=1, max_size=6), max_size=12))
def test_riders_ride_on_a_longer_text_of_which_theirs_is_the_beginning(texts):
    pools = carpool(sequences(*texts))
    everyone = [s.index for pool in pools for s in (pool.carrier, *pool.riders)]
    assert sorted(everyone) == list(range(len(texts)))
    assert all(texts[p.carrier.index].startswith(texts[r.index]) for p in pools for r in p.riders)
    carriers = [texts[p.carrier.index] for p in pools]
    assert not any(a.startswith(b) for i, a in enumerate(carriers) for j, b in enumerate(carriers) if i != j)
    arrivals = [min(s.index for s in (p.carrier, *p.riders)) for p in pools]
    assert arrivals == sorted(arrivals)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return load_checkpoint(write_checkpoint(tmp_path_factory.mktemp("cache") / "model")).config


def test_the_cache_gives_back_what_was_stored_and_forgets_the_oldest_first(config):
    kv = KVPages(config, rows=3, positions=128)
    cache = PrefixCache(kv, capacity=6)
    rng = np.random.default_rng(0)
    for row in (1, 0):
        kv.reserve(row, 9 * BLOCK)
    kv.keys[...], kv.values[...] = rng.random(kv.keys.shape), rng.random(kv.values.shape)
    text = token_bytes(np.arange(4 * BLOCK + 3))
    cache.store(text, 0)
    match = cache.match(text + token_bytes(np.array([99])))
    assert (match.tokens, match.missing is None) == (4 * BLOCK, True)
    cache.load(match.blocks, 2)
    stored, loaded = kv.tables[0, 0], kv.tables[2, 0]
    np.testing.assert_array_equal(kv.keys[:, loaded], kv.keys[:, stored])
    np.testing.assert_array_equal(kv.values[:, loaded], kv.values[:, stored])
    cache.store(token_bytes(np.arange(1000, 1000 + 4 * BLOCK)), 1)  # two blocks too many: the ends of the first text go
    assert len(cache) == 6
    assert cache.match(text).tokens == 2 * BLOCK
    cache.store(token_bytes(np.arange(5000, 5000 + 9 * BLOCK)), 1)  # more than there is room for
    assert len(cache) == 6
    assert cache.match(text).tokens == 0


def test_rows_take_the_lowest_free_page_and_give_back_what_nobody_shares(config):
    kv = KVPages(config, rows=3, positions=4 * PAGE)
    kv.reserve(0, PAGE + 1)
    kv.reserve(2, 1)
    kv.reserve(0, 2 * PAGE)
    assert (kv.tables[0, :2].tolist(), kv.tables[2, 0]) == ([0, 1], 2)
    assert kv.share(0, 1, PAGE + 5)  # the second page is not whole
    assert kv.tables[1, :2].tolist() == [0, 3]
    assert (kv.seats[0, 0], kv.seats[1, 0]) == (0, 1)
    kv.release(0)
    kv.reserve(2, 2 * PAGE)
    assert kv.tables[2, :2].tolist() == [2, 1]
    kv.release(1)
    kv.reserve(2, 4 * PAGE)
    assert kv.tables[2].tolist() == [2, 1, 0, 3]


def test_pages_become_more_without_losing_anything(config):
    kv = KVPages(config, rows=2, positions=256)
    kv.reserve(0, 100)
    held = kv.tables[0, :4]
    kv.keys[:, held], kv.values[:, held] = 1.5, 2.5
    pages = kv.keys.shape[1]
    for row in (0, 1):
        kv.reserve(row, 256)
    assert pages < kv.keys.shape[1] == 16
    assert sorted(kv.tables.ravel().tolist()) == list(range(16))
    assert (kv.keys[:, held] == 1.5).all()
    assert (kv.values[:, held] == 2.5).all()
    key_block, _ = kv.block(0, 5)
    assert np.shares_memory(key_block, kv.keys)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = write_checkpoint(tmp_path_factory.mktemp("tokenizer") / "model")
    return Tokenizer(folder, load_checkpoint(folder).config.vocab_size)


@given(
    text=st.lists(st.sampled_from(["a", "b", "\n", "\n\n", "Therefore", "<|pad|>", " the "]), min_size=1, max_size=12),
    stop=st.lists(
        st.sampled_from(["a", "ab", "\n\n", "\na", "ere", "e\n", "eb", "aaab", "e the T"]), min_size=1, max_size=3
    ),
)
def test_stop_strings_are_found_when_their_last_token_comes(tokenizer, text, stop):
    """Against a search of the whole text after every token."""
    ids, stop = token_ids("".join(text)), tuple(stop)
    for end in range(1, len(ids) + 1):
        before, now = tokenizer.decode(ids[: end - 1]), tokenizer.decode(ids[:end])
        places = {s: now.find(s, max(len(before) - len(s) + 1, 0)) for s in stop}
        expected = next(((s, len(now) - places[s] - len(s)) for s in stop if places[s] >= 0), None)
        assert find_stop(tokenizer, ids[:end], stop) == expected
        if expected is not None:
            assert tokenizer.may_complete(stop)[ids[end - 1]]
