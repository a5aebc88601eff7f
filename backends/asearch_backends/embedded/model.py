"""A Llama model in numpy: RMSNorm, rotary positions, grouped-query attention, SwiGLU. float32 throughout."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from asearch_backends.embedded.attention import Attention, Heads, Projection, Seats
from asearch_backends.embedded.kv import PAGE, KVPages
from asearch_backends.embedded.numerics import Linear, query_quantum, round_up, row_quantum

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from asearch_backends.embedded.attention import Piece
    from asearch_backends.embedded.checkpoint import Checkpoint, Config

    Floats = npt.NDArray[np.float32]
    Ints = npt.NDArray[np.int64]

_NONE = np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True)
class _Layer:
    qkv: Linear
    output: Linear
    gate_up: Linear
    down: Linear


class Llama:
    """The weights, the rows of keys and values, and the way forward."""

    def __init__(self, checkpoint: Checkpoint, *, rows: int, positions: int) -> None:
        config, arrays = checkpoint.config, checkpoint.arrays
        self.config = config
        group = config.num_attention_heads // config.num_key_value_heads
        self.heads = Heads(group, config.num_key_value_heads, config.head_dim // 2)
        self.kv = KVPages(config, rows, positions)
        self._embedding = arrays["model.embed_tokens.weight"]
        self._layers = [_prepare_layer(config, arrays, i) for i in range(config.num_hidden_layers)]
        head = self._embedding if config.tie_word_embeddings else arrays["lm_head.weight"]
        self._head = Linear((head * arrays["model.norm.weight"]).T)
        self._cos, self._sin = _rotations(config, positions)
        # Rows and queries are padded to these, so that a sequence gets the same bits in any company.
        layer = self._layers[0]
        rows_quantum = row_quantum((layer.qkv, layer.output, layer.gate_up, layer.down, self._head))
        queries_quantum = query_quantum(config.head_dim, PAGE)
        self.batch_invariant = rows_quantum is not None and queries_quantum is not None
        self._row_quantum, self._seats = rows_quantum or 1, Seats(self.heads, queries_quantum or 1)

    def forward(
        self, tokens: Ints, *, rows: Ints = _NONE, positions: Ints = _NONE, pieces: Sequence[Piece] = (), wanted: Ints
    ) -> Floats:
        """One step: append a token to each of these rows, and compute pieces of prompts in others.

        Args:
            tokens: packed, one for each row and then those of the pieces.
            rows: in ascending order.
            positions: of the rows' new tokens.
            pieces: parts of prompts.
            wanted: the packed places whose logits are returned, [wanted, vocabulary].
        """
        for i in np.flatnonzero(positions % PAGE == 0).tolist():  # the first of a page
            self.kv.reserve(int(rows[i]), int(positions[i]) + 1)
        for piece in pieces:
            self.kv.reserve(piece.row, piece.start + piece.count)
        attention = Attention(self.kv, self._seats, rows, positions, pieces)
        hidden = self._hidden(tokens, attention)
        ends = np.zeros((round_up(max(len(wanted), 1), self._row_quantum), hidden.shape[1]), np.float32)
        ends[: len(wanted)] = hidden[wanted]
        return self._logits(ends, len(wanted))

    def _hidden(self, tokens: Ints, attention: Attention) -> Floats:
        """The residual stream after the last layer, padded rows included."""
        n, d = len(tokens), self.config.hidden_size
        padded = round_up(n, self._row_quantum)
        x = np.zeros((padded, d), np.float32)
        x[:n] = self._embedding[tokens]
        cos, sin = np.zeros((2, padded, self._cos.shape[1]), np.float32)
        cos[:n], sin[:n] = self._cos[attention.positions], self._sin[attention.positions]
        work = _Workspace(self.config, self._layers[0], padded)
        for i, layer in enumerate(self._layers):
            qkv = layer.qkv(self._normalize(x, work.normed), work.qkv)
            attention(i, self._rotate(qkv, cos, sin), work.mixed)
            x += layer.output(work.mixed, work.hidden)[:, :d]
            gate_up = layer.gate_up(self._normalize(x, work.normed), work.gate_up)
            x += layer.down(_swiglu(gate_up, self.config.intermediate_size), work.hidden)[:, :d]
        return x

    def _logits(self, hidden: Floats, n: int) -> Floats:
        logits = np.empty((len(hidden), self._head.width), np.float32)
        self._head(self._normalize(hidden, np.empty_like(hidden)), logits)
        return logits[:n, : self.config.vocab_size]

    def _normalize(self, x: Floats, out: Floats) -> Floats:
        """RMSNorm; its weight is part of the matrix that follows."""
        square = np.einsum("ij,ij->i", x, x)
        square *= np.float32(1 / x.shape[1])
        square += np.float32(self.config.rms_norm_eps)
        np.divide(x, np.sqrt(square, out=square)[:, None], out=out)
        return out

    def _rotate(self, qkv: Floats, cos: Floats, sin: Floats) -> Projection:
        """Turn queries and keys to their positions; low halves of all heads come first, then the high halves."""
        queries = self.heads.group * self.heads.kv * self.heads.half
        both = cos.shape[1]
        low, high, value = qkv[:, :both], qkv[:, both : 2 * both], qkv[:, 2 * both :]
        low_turned, high_turned = low * cos, high * cos
        low_turned -= high * sin
        high_turned += low * sin
        return Projection(
            query_low=low_turned[:, :queries],
            query_high=high_turned[:, :queries],
            key_low=low_turned[:, queries:],
            key_high=high_turned[:, queries:],
            value=value[:, : self.heads.kv * self.heads.half * 2],
        )


class _Workspace:
    """The intermediate arrays of one forward pass, shared by its layers."""

    def __init__(self, config: Config, layer: _Layer, rows: int) -> None:
        self.normed = np.empty((rows, config.hidden_size), np.float32)
        self.qkv = np.empty((rows, layer.qkv.width), np.float32)
        self.mixed = np.zeros((rows, config.num_attention_heads * config.head_dim), np.float32)
        self.hidden = np.empty((rows, layer.output.width), np.float32)
        self.gate_up = np.empty((rows, layer.gate_up.width), np.float32)


def _swiglu(gate_up: Floats, size: int) -> Floats:
    """silu(gate) * up, where both come with their signs turned: (-g)(-u) / (1 + exp(-g))."""
    gate, up = gate_up[:, :size], gate_up[:, size : 2 * size]
    with np.errstate(over="ignore"):
        bottom = np.exp(gate)
    bottom += np.float32(1)
    top = gate * up
    top /= bottom
    return top


def _prepare_layer(config: Config, arrays: dict[str, Floats], i: int) -> _Layer:
    """Fuse and reorder the matrices of a layer: norms and the attention scale go in, rotated halves come apart."""

    def array(name: str) -> Floats:
        return arrays[f"model.layers.{i}.{name}.weight"]

    half = config.head_dim // 2
    query = array("self_attn.q_proj").reshape(-1, 2, half, config.hidden_size) * np.float32(config.head_dim**-0.5)
    key = array("self_attn.k_proj").reshape(-1, 2, half, config.hidden_size)
    parts = [query[:, 0], key[:, 0], query[:, 1], key[:, 1], array("self_attn.v_proj")]
    qkv = np.concatenate([part.reshape(-1, config.hidden_size) for part in parts]) * array("input_layernorm")
    gate_up = np.concatenate([-array("mlp.gate_proj"), -array("mlp.up_proj")]) * array("post_attention_layernorm")
    return _Layer(
        qkv=Linear(qkv.T),
        output=Linear(array("self_attn.o_proj").T),
        gate_up=Linear(gate_up.T),
        down=Linear(array("mlp.down_proj").T),
    )


def _rotations(config: Config, positions: int) -> tuple[Floats, Floats]:
    """Cos and sin for every position, repeated for all query and key heads: [position, heads * half]."""
    half = config.head_dim // 2
    # transformers computes these in float32, so do we: an angle of position 500 differs in its last digits.
    frequency = 1 / config.rope_theta ** (np.arange(half, dtype=np.float32) / np.float32(half))
    angle = np.arange(positions, dtype=np.float32)[:, None] * frequency.astype(np.float32)
    copies = config.num_attention_heads + config.num_key_value_heads
    return np.tile(np.cos(angle), (1, copies)), np.tile(np.sin(angle), (1, copies))
