"""The forward pass: equal to the oracle, and equal to itself to the last bit in any company."""

from __future__ import annotations

import llama_oracle
import numpy as np
import pytest
from embedded_models import write_checkpoint

from asearch_backends.embedded.attention import Piece
from asearch_backends.embedded.cache import PrefixCache, token_bytes
from asearch_backends.embedded.checkpoint import load_checkpoint
from asearch_backends.embedded.kv import PAGE
from asearch_backends.embedded.model import Llama
from asearch_backends.embedded.numerics import PANEL, Linear, round_up

SHAPES = {
    "grouped-query, tied": {},
    "multi-head, untied": {"num_key_value_heads": 4, "tie_word_embeddings": False},
    "one key head, wide": {"num_key_value_heads": 1, "intermediate_size": 400, "hidden_size": 288, "head_dim": 32},
    "the shipped policy": {"num_attention_heads": 2, "head_dim": 32, "intermediate_size": 176, "num_hidden_layers": 4},
    "a long context": {"max_position_embeddings": 640},
}


@pytest.fixture(scope="module", params=SHAPES)
def checkpoint(request, tmp_path_factory):
    return load_checkpoint(write_checkpoint(tmp_path_factory.mktemp("shapes") / "model", **SHAPES[request.param]))


@pytest.fixture
def model(checkpoint):
    return Llama(checkpoint, rows=24, positions=checkpoint.config.max_position_embeddings)


def tokens_of(checkpoint, n, seed=1):
    return np.random.default_rng(seed).integers(0, checkpoint.config.vocab_size, n)


def prefill(model, parts, wanted=None):
    """Logits at the end of each (row, start, tokens), or at these packed places."""
    pieces = [Piece(row, start, len(tokens)) for row, start, tokens in parts]
    ends = np.cumsum([p.count for p in pieces]) - 1 if wanted is None else wanted
    return model.forward(np.concatenate([t for *_, t in parts]), pieces=pieces, wanted=ends)


def decode(model, tokens, positions, rows=None):
    """Logits after one more token in each of these rows, or in the first ones."""
    rows = np.arange(len(tokens)) if rows is None else rows
    return model.forward(np.array(tokens), rows=rows, positions=np.array(positions), wanted=np.arange(len(rows)))


def assert_same(model, got, expected):
    """To the last bit where this machine's BLAS allows it, else as near as float32 comes."""
    if model.batch_invariant:
        np.testing.assert_array_equal(got, expected)
    else:
        np.testing.assert_allclose(got, expected, atol=1e-4)


def test_logits_equal_the_oracle_at_every_position(checkpoint, model):
    n = checkpoint.config.max_position_embeddings
    tokens = tokens_of(checkpoint, n)
    got = prefill(model, [(0, 0, tokens)], np.arange(n))
    np.testing.assert_allclose(got, llama_oracle.logits(checkpoint, tokens), atol=1e-4)


def test_decoding_equals_prefill_to_the_last_bit(checkpoint, model):
    n = checkpoint.config.max_position_embeddings
    tokens = tokens_of(checkpoint, n)
    whole = prefill(model, [(0, 0, tokens)], np.arange(n))
    prefill(model, [(0, 0, tokens[:5])])
    for at in range(5, n):
        assert_same(model, decode(model, tokens[at : at + 1], [at])[0], whole[at])


@pytest.mark.parametrize("size", [1, 2, 7, 13, 24])
def test_neighbours_change_no_bit_of_decoding(checkpoint, model, size):
    tokens = tokens_of(checkpoint, 40)
    alone = prefill(model, [(0, 0, tokens)])[0]
    next_alone = decode(model, [3], [40])[0]
    others = [(row, 0, tokens_of(checkpoint, 10 + 9 * row, row)) for row in range(size - 1)]
    logits = prefill(model, [*others, (size - 1, 0, tokens)])
    assert_same(model, logits[-1], alone)
    positions = [len(t) for *_, t in others] + [40]
    assert_same(model, decode(model, [3] * size, positions)[-1], next_alone)


@pytest.mark.parametrize("cut", [1, 8, 33, 99])
def test_where_a_prompt_is_cut_changes_no_bit(checkpoint, model, cut):
    tokens = tokens_of(checkpoint, 100)
    whole = prefill(model, [(0, 0, tokens)])[0]
    prefill(model, [(1, 0, tokens[:cut])])
    assert_same(model, prefill(model, [(1, cut, tokens[cut:])])[0], whole)


def test_a_cached_prefix_changes_no_bit(checkpoint, model):
    tokens = tokens_of(checkpoint, 100).astype(np.int32)
    cache = PrefixCache(model.kv, 64)
    cold = prefill(model, [(0, 0, tokens)])[0]
    cache.store(token_bytes(tokens), 0)
    match = cache.match(token_bytes(tokens))
    cache.load(match.blocks, 5)
    assert match.tokens == 96
    assert_same(model, prefill(model, [(5, 96, tokens[96:])])[0], cold)


def test_one_step_for_rows_and_prompts_gives_the_bits_of_a_step_for_each(checkpoint, model):
    """Long and short rows, and pieces of prompts that do not fit into one rectangle."""
    lengths, cuts = (90, 3, 40, 64, 31), ((5, 0, 70), (9, 33, 99), (7, 0, 2), (8, 20, 24), (6, 64, 65))
    texts = [tokens_of(checkpoint, 100, seed) for seed in range(10)]
    for row, length in enumerate(lengths):
        prefill(model, [(row, 0, texts[row][:length])])
    for row, start, _ in cuts:
        if start:
            prefill(model, [(row, 0, texts[row][:start])])
    alone = [decode(model, [texts[row][n]], [n], np.array([row]))[0] for row, n in enumerate(lengths)]
    alone += [prefill(model, [(row, start, texts[row][start:end])])[0] for row, start, end in cuts]
    pieces = [Piece(row, start, end - start) for row, start, end in cuts]
    packed = np.concatenate([[texts[row][n] for row, n in enumerate(lengths)], *(texts[r][a:b] for r, a, b in cuts)])
    together = model.forward(
        packed.astype(np.int64),
        rows=np.arange(5),
        positions=np.array(lengths),
        pieces=pieces,
        wanted=np.concatenate([np.arange(5), 5 + np.cumsum([p.count for p in pieces]) - 1]),
    )
    assert_same(model, together, np.array(alone))


@pytest.mark.parametrize("length", [1, 32, 37, 96])
def test_siblings_share_whole_pages_and_go_on_as_they_would_alone(checkpoint, model, length):
    tokens, host = tokens_of(checkpoint, length), 0
    prefill(model, [(0, 0, tokens)])
    for row in range(1, 6):
        if not model.kv.share(host, row, length):
            host = row
    whole = length // PAGE
    assert [len(set(model.kv.tables[:6, i])) for i in range(whole)] == [2] * whole  # four rows at each, and two
    # They begin alike, then each writes its own text.
    texts = [tokens_of(checkpoint, 40, seed) for seed in range(6)]
    for at in range(40):
        together = decode(model, [t[at] for t in texts], [length + at] * 6)
    prefill(model, [(7, 0, tokens)])
    for at in range(40):
        alone = decode(model, [texts[4][at]], [length + at], np.array([7]))
    assert_same(model, together[4], alone[0])


@pytest.mark.parametrize("shape", [(PANEL + 1, 5), (3, 16), (2 * PANEL, 33)])
def test_linear_is_the_product_in_panels(shape):
    rng = np.random.default_rng(0)
    weight, x = rng.standard_normal(shape), rng.standard_normal((6, shape[0]))
    linear = Linear(weight.astype(np.float32))
    out = linear(x.astype(np.float32), np.empty((6, linear.width), np.float32))
    assert linear.width == round_up(shape[1], 16)
    np.testing.assert_allclose(out[:, : shape[1]], x @ weight, atol=1e-3)
    assert not out[:, shape[1] :].any()
