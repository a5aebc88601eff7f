"""The engine, step by step: nobody's text depends on company, work is shared, and who leaves is gone."""

from __future__ import annotations

import numpy as np
import pytest
from embedded_models import Recorder, SteppedEngine

from asearch_backends.embedded.engine import STEP_TOKENS
from asearch_backends.embedded.kv import BLOCK

TEMPERATURE = {"temperature": 1.0}


def prompt(n, seed=0):
    return np.random.default_rng(seed).integers(10, 100, n).tolist()


@pytest.fixture
def stepped(tiny):
    return SteppedEngine(tiny)


def test_greedy_in_pieces_equals_greedy_in_one_go(stepped):
    whole = stepped.run([prompt(21)], temperature=0, max_tokens=60)[0]
    for piece in (1, 7, 25):
        ids = prompt(21)
        while len(ids) < 21 + 60:
            ids += stepped.run([ids], temperature=0, max_tokens=min(piece, 81 - len(ids)))[0]
        assert ids[21:] == whole


def test_a_seed_gives_the_same_text_alone_in_a_crowd_and_after_cache_hits(tiny):
    crowd = [prompt(5 + i, seed=i) for i in range(24)]
    alone = [SteppedEngine(tiny).run([p], seed=100 + i, **TEMPERATURE)[0] for i, p in enumerate(crowd)]
    together = SteppedEngine(tiny)
    assert together.run(crowd, seed=100, **TEMPERATURE) == alone
    hits = together.engine.counters.cache_hits
    assert together.run(crowd, seed=100, **TEMPERATURE) == alone
    assert together.engine.counters.cache_hits > hits


def test_sequences_that_join_late_change_nothing(tiny):
    alone = SteppedEngine(tiny).run([prompt(9)], seed=7, max_tokens=30, **TEMPERATURE)[0]
    busy = SteppedEngine(tiny, max_num_seqs=8)
    recorder, _ = busy.submit([prompt(9)], seed=7, max_tokens=30, **TEMPERATURE)
    for i in range(20):  # more than there are rows, of all lengths: rows are freed, moved and filled again
        busy.step()
        busy.submit([prompt(4 + 3 * i, seed=i)], seed=i, max_tokens=1 + i % 5, **TEMPERATURE)
    busy.drain()
    assert recorder.completions[0].token_ids == alone


def test_siblings_draw_what_each_would_draw_alone_and_all_pages_come_back(tiny):
    alone = [SteppedEngine(tiny).run([prompt(70)], seed=i, max_tokens=5 + 9 * i, **TEMPERATURE)[0] for i in range(9)]
    together = SteppedEngine(tiny)
    kv = together.engine._batch.kv
    # Of one prompt, and each ends at another time.
    found = [together.submit([prompt(70)], seed=i, max_tokens=5 + 9 * i, **TEMPERATURE)[0] for i in range(9)]
    together.step()
    assert len(set(kv.tables[:9, 0].tolist())) == 3  # nine rows, four at a page
    together.drain()
    assert [recorder.completions[0].token_ids for recorder in found] == alone
    assert not any(kv._taken)


def test_different_seeds_differ_and_sampling_continues_where_it_stopped(stepped):
    first, second = stepped.run([prompt(9)] * 2, seed=1, max_tokens=40, **TEMPERATURE)
    assert first != second
    head = stepped.run([prompt(9)], seed=1, max_tokens=15, **TEMPERATURE)[0]
    tail = stepped.run([prompt(9) + head], seed=1, max_tokens=25, **TEMPERATURE)[0]
    assert head + tail == first


def test_siblings_share_one_prefill(stepped):
    stepped.run([prompt(40)] * 16, **TEMPERATURE)
    assert stepped.computed == 40 + 15  # each but the first is counted with the one token whose logits it needed


def test_prefixes_of_one_text_go_on_as_they_would_alone(tiny):
    text, cuts = prompt(100), (20, 47, 81, 100)
    expected = [SteppedEngine(tiny).run([text[:k]], temperature=0)[0] for k in cuts]
    assert SteppedEngine(tiny).run([text[:k] for k in cuts], temperature=0) == expected


def test_riders_that_leave_their_carrier_in_the_same_page_go_on_as_they_would_alone(tiny):
    text, cuts = prompt(100), (70, 70, 70, 70, 70, 90, 90, 100)
    expected = [SteppedEngine(tiny).run([text[:k]], temperature=0)[0] for k in cuts]
    assert SteppedEngine(tiny).run([text[:k] for k in cuts], temperature=0) == expected


def test_prefix_lists_need_one_step_and_compute_each_token_once(tiny):
    fresh, text = SteppedEngine(tiny), prompt(100)
    fresh.run([text[:k] for k in range(10, 101, 10)], temperature=0, max_tokens=1)
    assert fresh.engine.counters.steps == 1
    assert fresh.computed == 100 + 9


def test_a_common_beginning_is_computed_once_even_if_all_come_at_once(tiny):
    fresh, stem = SteppedEngine(tiny), prompt(64)
    fresh.run([stem + prompt(10, seed=i) for i in range(1, 9)], temperature=0, max_tokens=1)
    assert fresh.computed == 64 + 8 * 10


def test_generated_tokens_are_cached(stepped):
    ids = prompt(40)
    ids += stepped.run([ids], temperature=0, max_tokens=41)[0]
    before = stepped.engine.counters.cache_hits
    stepped.run([ids], temperature=0, max_tokens=1)
    assert stepped.engine.counters.cache_hits - before == 80 // BLOCK * BLOCK


def test_an_exact_repeat_computes_at_least_one_token(stepped):
    ids = prompt(8 * BLOCK)
    recorder, _ = stepped.submit([ids], temperature=0, max_tokens=1)
    stepped.drain()
    again, _ = stepped.submit([ids], temperature=0, max_tokens=1)
    stepped.drain()
    assert again.completions[0].cached_tokens == 7 * BLOCK
    assert again.completions[0].token_ids == recorder.completions[0].token_ids


def test_a_tiny_cache_forgets_and_stays_right(tiny):
    prompts = [prompt(100, seed=i) for i in range(12)]
    expected = [SteppedEngine(tiny).run([p], temperature=0)[0] for p in prompts]
    small = SteppedEngine(tiny, cache_mb=0)
    for _ in range(2):
        assert [small.run([p], temperature=0)[0] for p in prompts] == expected
    assert len(small.engine._cache) <= small.engine._cache.capacity == 256 // BLOCK + 1


def test_long_prompts_are_computed_in_pieces_while_others_go_on(tiny):
    count = 2 * STEP_TOKENS // 200 + 2
    prompts = [prompt(200, seed=i) for i in range(count)]
    expected = [SteppedEngine(tiny).run([p], temperature=0, max_tokens=3)[0] for p in prompts]
    stepped = SteppedEngine(tiny)
    runner, _ = stepped.submit([prompt(3)], streaming=True, temperature=0, max_tokens=50)
    stepped.step()
    recorder, _ = stepped.submit(prompts, temperature=0, max_tokens=3)
    stepped.step()
    assert not recorder.completions
    assert len(runner.tokens) == 2  # one in each step, though prompts were computed in both
    stepped.drain()
    assert [recorder.completions[i].token_ids for i in range(count)] == expected


def test_an_abort_frees_rows_at_the_next_step_and_says_nothing(stepped):
    leaving, gone = stepped.submit([prompt(9)] * 5, max_tokens=200, **TEMPERATURE)
    staying, _ = stepped.submit([prompt(11)], seed=3, max_tokens=30, **TEMPERATURE)
    stepped.step()
    assert stepped.engine.running == 6
    stepped.engine.abort(gone)
    stepped.step()
    assert stepped.engine.running == 1
    stepped.drain()
    assert not leaving.completions
    assert leaving.error is None
    alone = stepped.run([prompt(11)], seed=3, max_tokens=30, **TEMPERATURE)[0]
    assert staying.completions[0].token_ids == alone


def test_an_abort_takes_sequences_out_of_the_queue(tiny):
    stepped = SteppedEngine(tiny, max_num_seqs=2)
    recorder, _ = stepped.submit([prompt(9)] * 2, max_tokens=5)
    queued, sequences = stepped.submit([prompt(9, seed=1)] * 30, max_tokens=5)
    stepped.step()
    assert (stepped.engine.running, stepped.engine.waiting) == (2, 30)
    stepped.engine.abort(sequences)
    stepped.step()
    assert stepped.engine.waiting == 0
    stepped.drain()
    assert len(recorder.completions) == 2
    assert not queued.completions


@pytest.mark.parametrize("leaver", [0, 1])
def test_an_abort_during_a_long_prefill_leaves_the_others_their_answers(tiny, leaver):
    """One carries the other, and what comes before them leaves only 40 tokens of the step to them."""
    stepped = SteppedEngine(tiny)
    stepped.submit([prompt((STEP_TOKENS - 40) // 2, seed=s) for s in (1, 2)], max_tokens=1)
    pair = [prompt(240, seed=9), prompt(240, seed=9)[:230]]
    expected = SteppedEngine(tiny).run([pair[1 - leaver]], temperature=0, max_tokens=4)[0]
    recorder, sequences = stepped.submit(pair, temperature=0, max_tokens=4)
    stepped.step()
    assert [s.row >= 0 for s in sequences] == [True, True]
    assert sequences[1].carrier is sequences[0]
    stepped.engine.abort([sequences[leaver]])
    stepped.drain()
    assert list(recorder.completions) == [1 - leaver]
    assert recorder.completions[1 - leaver].token_ids == expected


def test_streaming_reports_every_token_once(stepped):
    recorder, _ = stepped.submit([prompt(9)], streaming=True, max_tokens=10, temperature=0)
    stepped.drain()
    assert [*recorder.tokens, recorder.completions[0].token_ids[-1]] == recorder.completions[0].token_ids


def test_logprobs_are_of_the_raw_distribution(stepped):
    hot, _ = stepped.submit(
        [prompt(9)], temperature=2.0, logprobs=0, logprob_token_ids=tuple(range(stepped.vocabulary))
    )
    stepped.drain()
    for entry in hot.completions[0].logprobs:
        values = dict(entry.others)
        assert np.exp(list(values.values())).sum() == pytest.approx(1, abs=1e-5)
        assert values[entry.token] == entry.logprob
    cold, _ = stepped.submit([prompt(9)], temperature=0, logprobs=5)
    stepped.drain()
    first = dict(hot.completions[0].logprobs[0].others)
    ranked = sorted(first.items(), key=lambda pair: -pair[1])[:5]
    assert [t for t, _ in cold.completions[0].logprobs[0].others] == [t for t, _ in ranked]


def test_sampling_follows_the_distribution(stepped):
    """4,000 first tokens against the softmax, within four standard errors each."""
    temperature, draws = 1.5, 4000
    recorder, _ = stepped.submit(
        [prompt(9)], max_tokens=1, logprobs=0, logprob_token_ids=tuple(range(stepped.vocabulary))
    )
    stepped.drain()
    logprobs = np.array([lp for _, lp in recorder.completions[0].logprobs[0].others])
    expected = np.exp(logprobs / temperature)
    expected /= expected.sum()
    tokens = stepped.run([prompt(9)] * draws, max_tokens=1, temperature=temperature)
    observed = np.bincount(np.concatenate(tokens), minlength=stepped.vocabulary) / draws
    assert (np.abs(observed - expected) <= 4 * np.sqrt(expected * (1 - expected) / draws) + 1e-9).all()


def test_a_failure_reaches_everyone_and_later_callers(stepped):
    recorder, _ = stepped.submit([prompt(9)])
    stepped.step()
    other, waiting = Recorder(), Recorder()
    stepped.submit([prompt(9)], recorder=other)
    stepped.engine._model.forward = None
    stepped.engine.start()
    stepped.engine._thread.join()
    assert "TypeError" in str(recorder.error)
    assert other.error is recorder.error
    with pytest.raises(type(recorder.error)):
        stepped.submit([prompt(9)], recorder=waiting)


def test_stopping_fails_what_still_runs(stepped):
    recorder, _ = stepped.submit([prompt(9)], max_tokens=200)
    stepped.engine.stop()
    stepped.engine.start()
    stepped.engine._thread.join()
    assert "shutting down" in str(recorder.error)
