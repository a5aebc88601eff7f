"""Attention of a batch over its rows of keys and values: one new token for each row (decode), or several (prefill)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from asearch_backends.embedded.numerics import PANEL, round_up

if TYPE_CHECKING:
    import numpy.typing as npt

    from asearch_backends.embedded.kv import KVRows

    Floats = npt.NDArray[np.float32]
    Ints = npt.NDArray[np.int64]

LENGTHS = 32  # keys are read in multiples of this
_SUM = 128  # np.sum adds up to this many numbers in an order that zeros behind the end do not change


class Heads(NamedTuple):
    """Query heads for each key head, key heads, and half the dimension of a head."""

    group: int
    kv: int
    half: int


class Projection(NamedTuple):
    """Queries, keys and values of n tokens; the two halves of rotated heads lie apart ([n, heads * half] each)."""

    query_low: Floats
    query_high: Floats
    key_low: Floats
    key_high: Floats
    value: Floats


class Attention(Protocol):
    """One step's attention: the same places in every layer."""

    def __call__(self, layer: int, p: Projection, out: Floats) -> None:
        """Store the new keys and values, and write the mix of values, [n, heads * dim]."""


class _Writer:
    """Where the new keys and values of a step go, as flat indices, worked out once for all layers."""

    def __init__(self, kv: KVRows, heads: Heads, rows: Ints, positions: Ints) -> None:
        self._kv, self._n = kv, len(rows)
        planes = rows[:, None] * heads.kv + np.arange(heads.kv)
        low = planes[:, :, None] * kv.dim + np.arange(heads.half)
        self._low = (low * kv.positions + positions[:, None, None]).ravel()
        self._high = self._low + heads.half * kv.positions
        self._value = (planes * kv.positions + positions[:, None]).ravel()

    def __call__(self, layer: int, p: Projection) -> None:
        keys = self._kv.keys[layer].reshape(-1)
        keys[self._low] = p.key_low[: self._n].reshape(-1)
        keys[self._high] = p.key_high[: self._n].reshape(-1)
        self._kv.values[layer].reshape(-1, self._kv.dim)[self._value] = p.value[: self._n].reshape(-1, self._kv.dim)


class DecodeAttention:
    """Each of the rows 0..n-1 has one new token, at its own position."""

    def __init__(self, kv: KVRows, heads: Heads, positions: Ints, quantum: int) -> None:
        n = len(positions)
        self._kv, self._heads, self._n = kv, heads, n
        self._write = _Writer(kv, heads, np.arange(n), positions)
        self._length = round_up(int(positions.max()) + 1, LENGTHS)
        self._queries = np.zeros((n, heads.kv, round_up(heads.group, quantum), 2 * heads.half), np.float32)
        self._mask = _mask(np.arange(self._length) > positions[:, None])[:, None, None]

    def __call__(self, layer: int, p: Projection, out: Floats) -> None:
        n, (group, kv_heads, half) = self._n, self._heads
        self._write(layer, p)
        self._queries[:, :, :group, :half] = p.query_low[:n].reshape(n, kv_heads, group, half)
        self._queries[:, :, :group, half:] = p.query_high[:n].reshape(n, kv_heads, group, half)
        scores = score(self._queries, self._kv.keys[layer, :n], self._length)
        live = scores[:, :, :group]
        live += self._mask
        mixed = mix(scores, live, self._kv.values[layer, :n, :, : self._length])[:, :, :group]
        out[:n].reshape(n, kv_heads, group, 2 * half)[...] = mixed


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a prompt to be computed: `count` tokens from position `start` on, into a row."""

    row: int
    start: int
    count: int


class PrefillAttention:
    """Pieces of prompts, one for each of several consecutive rows; tokens lie packed one piece after the other."""

    def __init__(self, kv: KVRows, heads: Heads, pieces: list[Piece], quantum: int) -> None:
        rows = np.repeat([p.row for p in pieces], [p.count for p in pieces])
        positions = np.concatenate([np.arange(p.start, p.start + p.count) for p in pieces])
        self._write = _Writer(kv, heads, rows, positions)
        self._groups: list[_Group] = []
        first = 0
        for members in _similar(pieces):
            self._groups.append(_Group(kv, heads, members, first, quantum))
            first += sum(p.count for p in members)

    def __call__(self, layer: int, p: Projection, out: Floats) -> None:
        self._write(layer, p)
        for group in self._groups:
            group.attend(layer, p, out)


class _Group:
    """Pieces of similar length in consecutive rows, attended as one rectangle."""

    def __init__(self, kv: KVRows, heads: Heads, pieces: list[Piece], first: int, quantum: int) -> None:
        self._kv, self._heads = kv, heads
        self._rows = slice(pieces[0].row, pieces[0].row + len(pieces))
        self._tokens = slice(first, first + sum(p.count for p in pieces))
        starts, counts = np.array([p.start for p in pieces]), np.array([p.count for p in pieces])
        self._longest = round_up(int(counts.max()), quantum)
        self._length = round_up(int((starts + counts).max()), LENGTHS)
        self._member = np.repeat(np.arange(len(pieces)), counts)
        self._place = np.arange(len(self._member)) - np.repeat(np.cumsum(counts) - counts, counts)
        last = starts[:, None] + np.minimum(np.arange(self._longest), counts[:, None] - 1)
        self._mask = _mask(np.arange(self._length) > last[:, :, None])[:, None, None]
        self._queries = np.zeros((len(pieces), heads.kv, heads.group, self._longest, 2 * heads.half), np.float32)

    def attend(self, layer: int, p: Projection, out: Floats) -> None:
        group, kv_heads, half = self._heads
        n, longest, length = len(self._queries), self._longest, self._length
        count = len(self._member)
        for columns, part in ((slice(half), p.query_low), (slice(half, None), p.query_high)):
            self._queries[self._member, :, :, self._place, columns] = part[self._tokens].reshape(
                count, kv_heads, group, half
            )
        queries = self._queries.reshape(n, kv_heads, group * longest, 2 * half)
        scores = score(queries, self._kv.keys[layer, self._rows], length)
        masked = scores.reshape(n, kv_heads, group, longest, length)
        masked += self._mask
        mixed = mix(scores, scores, self._kv.values[layer, self._rows, :, :length])
        mixed = mixed.reshape(n, kv_heads, group, longest, 2 * half)
        out[self._tokens] = mixed[self._member, :, :, self._place].reshape(count, -1)


def score(queries: Floats, keys: Floats, length: int) -> Floats:
    """Queries x keys for the first `length` positions, in panels at fixed places."""
    if length <= PANEL:
        return queries @ keys[..., :length]
    panels = [slice(start, min(start + PANEL, length)) for start in range(0, length, PANEL)]
    scores = np.empty((*queries.shape[:-1], length), np.float32)
    for panel in panels:
        np.matmul(queries, keys[..., panel], out=scores[..., panel])
    return scores


def mix(scores: Floats, live: Floats, values: Floats) -> Floats:
    """Softmax over the last axis of the live part of the scores (in place), then the weighted values.

    The sums are cut at fixed places, so that the number of masked positions behind the end changes no bit.
    """
    length = scores.shape[-1]
    live -= live.max(axis=-1, keepdims=True)
    np.exp(live, out=live)
    total = live[..., :_SUM].sum(axis=-1, keepdims=True)
    for start in range(_SUM, length, _SUM):
        total += live[..., start : start + _SUM].sum(axis=-1, keepdims=True)
    mixed: Floats = scores[..., :PANEL] @ values[..., :PANEL, :]
    for start in range(PANEL, length, PANEL):
        mixed += scores[..., start : start + PANEL] @ values[..., start : start + PANEL, :]
    mixed[..., : live.shape[-2], :] /= total
    return mixed


def _mask(hidden: npt.NDArray[np.bool_]) -> Floats:
    return np.where(hidden, np.float32(-np.inf), np.float32(0))


def _similar(pieces: list[Piece]) -> list[list[Piece]]:
    """Cut the pieces, in their order, where rows are not neighbours or padding to one rectangle would cost too much."""
    groups: list[list[Piece]] = []
    shortest = longest = 0
    for piece in pieces:
        low, high = min(shortest, piece.count), max(longest, piece.count)
        if groups and piece.row == groups[-1][-1].row + 1 and high <= 2 * low + 16:
            groups[-1].append(piece)
            shortest, longest = low, high
        else:
            groups.append([piece])
            shortest = longest = piece.count
    return groups
