"""Attention of a batch over its rows of keys and values: one new token for each row (decode), or several (prefill)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from asearch_backends.embedded.kv import PAGE
from asearch_backends.embedded.numerics import round_up

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from asearch_backends.embedded.kv import KVPages

    Floats = npt.NDArray[np.float32]
    Ints = npt.NDArray[np.int64]
_PADDING = 128  # queries x pages that nobody asked for and that cost about as much as the calls for one more rectangle


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


class _Writer:
    """Where the new keys and values of a step go, as flat indices, worked out once for all layers."""

    def __init__(self, kv: KVPages, heads: Heads, rows: Ints, positions: Ints) -> None:
        self._kv, self._n = kv, len(rows)
        page, place = kv.tables[rows, positions // PAGE], positions % PAGE
        planes = page[:, None] * heads.kv + np.arange(heads.kv)
        low = planes[:, :, None] * kv.dim + np.arange(heads.half)
        self._low = (low * PAGE + place[:, None, None]).ravel()
        self._high = self._low + heads.half * PAGE
        self._value = (planes * PAGE + place[:, None]).ravel()

    def __call__(self, layer: int, p: Projection) -> None:
        keys = self._kv.keys[layer].reshape(-1)
        keys[self._low] = p.key_low[: self._n].reshape(-1)
        keys[self._high] = p.key_high[: self._n].reshape(-1)
        self._kv.values[layer].reshape(-1, self._kv.dim)[self._value] = p.value[: self._n].reshape(-1, self._kv.dim)


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a prompt to be computed: `count` tokens from position `start` on, into a row."""

    row: int
    start: int
    count: int

    @property
    def pages(self) -> int:
        """How many pages its last token looks back on."""
        return (self.start + self.count - 1) // PAGE + 1


class Attention:
    """One step's attention, the same in every layer: rows that have one new token each, and behind them pieces of prompts.

    Whoever asks, scores are worked out page by page and everything over positions is added page after page, so that a
    sequence gets the same bits alone and in a crowd, in one piece and token by token.

    Args:
        rows: each with a new token at its position in `positions`.
        pieces: packed one after the other, behind the rows.
    """

    def __init__(self, kv: KVPages, seats: Seats, rows: Ints, positions: Ints, pieces: Sequence[Piece]) -> None:
        places = [rows, *(np.full(p.count, p.row) for p in pieces)]
        self.positions = np.concatenate([positions, *(np.arange(p.start, p.start + p.count) for p in pieces)])
        self._write = _Writer(kv, seats.heads, np.concatenate(places), self.positions)
        self._parts: list[_Tokens | _Rectangle] = [_Tokens(kv, seats, rows, positions)] if len(rows) else []
        first = len(rows)
        for members in _similar(pieces):
            self._parts.append(_Rectangle(kv, seats.heads, members, first, seats.quantum))
            first += sum(p.count for p in members)

    def __call__(self, layer: int, p: Projection, out: Floats) -> None:
        """Store the new keys and values, and write the mix of values, [n, heads * dim]."""
        self._write(layer, p)
        for part in self._parts:
            part.attend(layer, p, out)


class Seats:
    """Room for the queries, the scores and the mix of values at each page, kept because new memory costs as much as the work."""

    def __init__(self, heads: Heads, quantum: int) -> None:
        self.heads, self.quantum = (
            heads,
            quantum,
        )  # the number of queries of a head at a page is a multiple of the quantum
        self._lines = 0

    def at(self, pages: int, queries: int) -> tuple[Floats, Floats, Floats]:
        """Queries, scores and mix, [page, head, query, ...]; the last two have one page more, whose mix is zero."""
        dim, shape = 2 * self.heads.half, (pages + 1, self.heads.kv, queries)
        lines = shape[0] * shape[1] * shape[2]
        if lines > self._lines:
            self._lines = 2 * lines
            self._arrays = [np.zeros((self._lines, width), np.float32) for width in (dim, PAGE, dim)]
        asked, scores, mixed = (array[:lines].reshape(*shape, -1) for array in self._arrays)
        mixed[-1] = 0
        return asked[:-1], scores, mixed


class _Tokens:
    """Rows that have one new token each: every page that they hold is read once, whoever shares it."""

    def __init__(self, kv: KVPages, seats: Seats, rows: Ints, positions: Ints) -> None:
        self._kv, heads = kv, seats.heads
        n, held, asking = len(rows), positions // PAGE + 1, heads.kv * heads.group
        most = int(held.max())
        row, nth = np.nonzero(np.arange(most) < held[:, None])  # every row with each of its pages
        pages, seat = kv.tables[rows[row], nth], kv.seats[rows[row], nth]
        size = int(pages.max()) + 1
        self._pages: slice | Ints = slice(size)
        if size > 2 * len(pages):  # a copy of the few is cheaper than a view of them with all that lie between
            self._pages, pages = np.unique(pages, return_inverse=True)
            size = len(self._pages)
        queries = round_up(heads.group * (int(seat.max()) + 1), seats.quantum)
        self._queries, self._scores, self._mixed = seats.at(size, queries)
        # A line is a query of a head at a page. Each row's lines, [row, page, head, query]; what it does not have is at the
        # page beyond the last.
        line = np.arange(heads.kv)[:, None] * queries + np.arange(heads.group)
        lines = (pages * heads.kv * queries + seat * heads.group)[:, None, None] + line
        self._lines = np.full((n, most, heads.kv, heads.group), size * heads.kv * queries)
        self._lines[row, nth] = lines
        # And the way back, for each line: the query that it has, the last one where it has none, and its place in the weights.
        query = np.arange(asking).reshape(heads.kv, heads.group)
        self._query = np.full((size, heads.kv, queries), n * asking)
        self._query.reshape(-1)[lines] = row[:, None, None] * asking + query
        self._place = np.zeros((size, heads.kv, queries), np.int64)
        self._place.reshape(-1)[lines] = (row * most + nth)[:, None, None] * asking + query
        self._mask = _mask(np.arange(most * PAGE) > positions[:, None]).reshape(n, most, 1, 1, PAGE)
        self._asked = np.zeros((n * asking + 1, kv.dim), np.float32)
        self._weights = np.empty((*self._lines.shape, PAGE), np.float32)

    def attend(self, layer: int, p: Projection, out: Floats) -> None:
        n, weights, half = len(self._weights), self._weights, self._kv.dim // 2
        self._asked[:-1, :half] = p.query_low[:n].reshape(-1, half)
        self._asked[:-1, half:] = p.query_high[:n].reshape(-1, half)
        _take(self._asked, self._query, self._queries)
        np.matmul(self._queries, self._kv.keys[layer, self._pages], out=self._scores[:-1])
        _take(self._scores.reshape(-1, PAGE), self._lines, weights)
        weights += self._mask
        weights -= _fold(np.maximum, weights.max(axis=1))[:, None, ..., None]
        np.exp(weights, out=weights)
        _take(weights.reshape(-1, PAGE), self._place, self._scores[:-1])
        np.matmul(self._scores[:-1], self._kv.values[layer, self._pages], out=self._mixed[:-1])
        mixed = in_order(self._mixed.reshape(-1, 2 * half).take(self._lines, axis=0))
        mixed /= _fold(np.add, in_order(weights))[..., None]
        out[:n] = mixed.reshape(n, -1)


class _Rectangle:
    """Pieces of similar length, padded to one rectangle."""

    def __init__(self, kv: KVPages, heads: Heads, pieces: list[Piece], first: int, quantum: int) -> None:
        self._kv, self._heads = kv, heads
        starts, counts = np.array([p.start for p in pieces]), np.array([p.count for p in pieces])
        self._tokens = slice(first, first + int(counts.sum()))
        self._longest = round_up(int(counts.max()), quantum)
        self._held = (int((starts + counts).max()) - 1) // PAGE + 1
        self._pages = kv.tables[[p.row for p in pieces], : self._held]
        self._member = np.repeat(np.arange(len(pieces)), counts)
        self._place = np.arange(len(self._member)) - np.repeat(np.cumsum(counts) - counts, counts)
        last = starts[:, None] + np.minimum(np.arange(self._longest), counts[:, None] - 1)
        self._mask = _mask(np.arange(self._held * PAGE) > last[:, :, None])[:, None, None]
        self._queries = np.zeros((len(pieces), heads.kv, heads.group, self._longest, kv.dim), np.float32)

    def attend(self, layer: int, p: Projection, out: Floats) -> None:
        group, kv_heads, half = self._heads
        n, longest, held, count = len(self._queries), self._longest, self._held, len(self._member)
        for columns, part in ((slice(half), p.query_low), (slice(half, None), p.query_high)):
            self._queries[self._member, :, :, self._place, columns] = part[self._tokens].reshape(
                count, kv_heads, group, half
            )
        queries = self._queries.reshape(n, 1, kv_heads, group * longest, 2 * half)
        weights = np.empty((n, kv_heads, group * longest, held, PAGE), np.float32)
        by_page = weights.transpose(0, 3, 1, 2, 4)
        np.matmul(queries, self._kv.keys[layer, self._pages], out=by_page)
        flat = weights.reshape(n, kv_heads, group, longest, held * PAGE)
        flat += self._mask
        flat -= flat.max(axis=-1, keepdims=True)
        np.exp(flat, out=flat)
        mixed = in_order(by_page @ self._kv.values[layer, self._pages])
        mixed /= _fold(np.add, in_order(by_page))[..., None]
        mixed = mixed.reshape(n, kv_heads, group, longest, 2 * half)
        out[self._tokens] = mixed[self._member, :, :, self._place].reshape(count, -1)


def in_order(parts: Floats) -> Floats:
    """The sum over the second axis, whose parts are added one after the other: zeros at the end change no bit."""
    total = parts[:, 0].copy()
    for i in range(1, parts.shape[1]):
        total += parts[:, i]
    return total


def _fold(combine: np.ufunc, x: Floats) -> Floats:
    """Combine the last axis, whose length is a power of two, half by half: the same order for every array."""
    while x.shape[-1] > 1:
        half = x.shape[-1] // 2
        x = combine(x[..., :half], x[..., half:])
    return x[..., 0]


def _take(source: Floats, places: Ints, out: Floats) -> None:
    # With "raise", the default, numpy makes a copy of `out` first.
    np.take(source, places, axis=0, out=out, mode="clip")


def _mask(hidden: npt.NDArray[np.bool_]) -> Floats:
    return np.where(hidden, np.float32(-np.inf), np.float32(0))


def _similar(pieces: Sequence[Piece]) -> list[list[Piece]]:
    """Cut the pieces, in their order, where padding to one rectangle would cost more than another rectangle."""
    groups: list[list[Piece]] = []
    area = 0
    for piece in pieces:
        group = [*groups[-1], piece] if groups else [piece]
        padded = len(group) * max(p.count for p in group) * max(p.pages for p in group)
        own = piece.count * piece.pages
        if groups and padded - area - own <= _PADDING:
            groups[-1] = group
            area = padded
        else:
            groups.append([piece])
            area = own
    return groups
