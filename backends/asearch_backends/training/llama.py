"""A small Llama in PyTorch: the trained form of what the embedded server runs in numpy.

Weights of one kind are stacked over the layers, so that the optimizer can treat them in one batched operation; the
export unstacks them under their Hugging Face names.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

HEAD_SIZE: Final = 32
CONTEXT: Final = 512
ROPE_BASE: Final = 10000.0
NORM_EPSILON: Final = 1e-5


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes of a model; the head size is always 32."""

    vocabulary: int
    width: int
    layers: int
    inner: int
    tied: bool = True

    @property
    def heads(self) -> int:
        """The number of attention heads."""
        return self.width // HEAD_SIZE


class Cache:
    """Keys and values of a batch of sequences that all stand at the same position, with room for `room` tokens."""

    def __init__(self, shape: Shape, batch: int, room: int) -> None:
        size = (shape.layers, batch, shape.heads, room, HEAD_SIZE)
        self.keys = torch.zeros(size)
        self.values = torch.zeros(size)
        self.rows = torch.arange(batch)
        self.length = 0

    def keep(self, rows: Tensor) -> None:
        """Goes on with these rows only; memory is tidied once half of the rows are gone."""
        self.rows = self.rows[rows]
        if 2 * len(self.rows) <= self.keys.shape[1]:
            self.keys, self.values = self.keys[:, self.rows], self.values[:, self.rows]
            self.rows = torch.arange(len(self.rows))

    def add(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Stores keys and values of new tokens, [rows, heads, tokens, size]; returns all so far."""
        end = self.length + key.shape[2]
        everything = len(self.rows) == self.keys.shape[1]
        if everything:
            self.keys[layer, :, :, self.length : end] = key
            self.values[layer, :, :, self.length : end] = value
            return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]
        self.keys[layer, self.rows, :, self.length : end] = key
        self.values[layer, self.rows, :, self.length : end] = value
        return self.keys[layer, self.rows, :, :end], self.values[layer, self.rows, :, :end]


class Llama(nn.Module):  # type: ignore[misc, unused-ignore]  # torch may be absent
    """Decoder-only transformer: RMSNorm, rotary positions (half-split as in Hugging Face), SwiGLU, no biases."""

    def __init__(self, shape: Shape, seed: int = 0) -> None:
        super().__init__()
        self.shape = shape
        generator = torch.Generator().manual_seed(seed)
        depth, width, inner = shape.layers, shape.width, shape.inner

        def matrix(*size: int, scale: float) -> nn.Parameter:
            return nn.Parameter(torch.randn(*size, generator=generator) * scale)

        # Zero output projections: every layer starts as the identity.
        self.embedding = matrix(shape.vocabulary, width, scale=0.05)
        self.attend_in = matrix(depth, 3, width, width, scale=1 / math.sqrt(width))
        self.attend_out = nn.Parameter(torch.zeros(depth, width, width))
        self.inner_in = matrix(depth, 2, inner, width, scale=1 / math.sqrt(width))
        self.inner_out = nn.Parameter(torch.zeros(depth, width, inner))
        self.attend_norm = nn.Parameter(torch.ones(depth, width))
        self.inner_norm = nn.Parameter(torch.ones(depth, width))
        self.final_norm = nn.Parameter(torch.ones(width))
        self.head = None if shape.tied else matrix(shape.vocabulary, width, scale=0.05)
        frequencies = ROPE_BASE ** (-torch.arange(0, HEAD_SIZE, 2) / HEAD_SIZE)
        angles = torch.outer(torch.arange(CONTEXT), frequencies).repeat(1, 2)
        self.cosine, self.sine = angles.cos(), angles.sin()  # [positions, head size]

    def hidden(self, ids: Tensor, cache: Cache | None = None, *, taps: tuple[int, ...] = ()) -> list[Tensor]:
        """The residual stream after each of the layers in `taps` (counted from 1), and after the last one.

        `ids` is [batch, tokens]. With a cache the tokens follow those already in it.
        """
        states = []
        x = F.embedding(ids, self.embedding)
        for layer in range(self.shape.layers):
            x = x + self._attention(layer, norm(x, self.attend_norm[layer]), cache)
            x = x + self._perceptron(layer, norm(x, self.inner_norm[layer]))
            if layer + 1 in taps:
                states.append(x)
        if cache is not None:
            cache.length += ids.shape[1]
        return [*states, x]

    def logits(self, state: Tensor) -> Tensor:
        """Next-token logits from the last residual stream."""
        return F.linear(norm(state, self.final_norm), self.embedding if self.head is None else self.head)

    def forward(self, ids: Tensor, cache: Cache | None = None) -> Tensor:
        """Next-token logits, [batch, tokens, vocabulary]."""
        return self.logits(self.hidden(ids, cache)[-1])

    def _attention(self, layer: int, x: Tensor, cache: Cache | None) -> Tensor:
        batch, tokens, width = x.shape
        start = cache.length if cache is not None else 0
        mixed = F.linear(x, self.attend_in[layer].view(3 * width, width))
        query, key, value = mixed.view(batch, tokens, 3, self.shape.heads, HEAD_SIZE).permute(2, 0, 3, 1, 4)
        cosine = self.cosine[start : start + tokens]
        sine = self.sine[start : start + tokens]
        query, key = rotate(query, cosine, sine), rotate(key, cosine, sine)
        if cache is not None:
            key, value = cache.add(layer, key, value)
        seen = F.scaled_dot_product_attention(query, key, value, is_causal=tokens > 1)
        return F.linear(seen.transpose(1, 2).reshape(batch, tokens, width), self.attend_out[layer])

    def _perceptron(self, layer: int, x: Tensor) -> Tensor:
        inner = self.shape.inner
        gate, up = F.linear(x, self.inner_in[layer].view(2 * inner, -1)).split(inner, dim=-1)
        return F.linear(F.silu(gate) * up, self.inner_out[layer])


def norm(x: Tensor, weight: Tensor) -> Tensor:
    """Root-mean-square normalization."""
    return F.rms_norm(x, (x.shape[-1],), weight, NORM_EPSILON)


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotary position embedding; the halves of a head are the two coordinates."""
    first, second = x.chunk(2, dim=-1)
    return x * cosine + torch.cat((-second, first), dim=-1) * sine


def deepen(model: Llama, added: int, seed: int = 0) -> Llama:
    """The same model with untied head and further layers on top that change nothing yet."""
    old = model.shape
    shape = Shape(old.vocabulary, old.width, old.layers + added, old.inner, tied=False)
    deeper = Llama(shape, seed)
    state = deeper.state_dict()
    for name, tensor in model.state_dict().items():
        stacked = name in {"attend_in", "attend_out", "inner_in", "inner_out", "attend_norm", "inner_norm"}
        if stacked:
            state[name][: old.layers] = tensor
        else:
            state[name].copy_(tensor)
    deeper.load_state_dict(state)
    return deeper


def parameter_count(model: Llama) -> int:
    """The number of trained numbers."""
    return sum(parameter.numel() for parameter in model.parameters())
