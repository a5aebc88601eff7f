"""Keys and values of the running sequences: a row for each, whose positions lie in pages."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from asearch_backends.embedded.checkpoint import Config

    Floats = npt.NDArray[np.float32]
    Ints = npt.NDArray[np.int64]

PAGE = 32  # positions of a page
BLOCK = 8  # tokens of a cached block: a prompt is recomputed from its last whole block on, half a block on average
SHARERS = 4  # rows that may hold one page
_FULL = (1 << SHARERS) - 1
_FIRST_POSITIONS = 128  # of each row; more pages are made when these are used up
_BLOCKS = PAGE // BLOCK
# Copied as a whole: numpy moves few large elements much faster than many short runs of small ones.
BLOCK_KEYS = np.dtype((np.void, 4 * BLOCK))


class KVPages:
    """Two arrays: keys [layer, page, head, dim, position in page], values [layer, page, head, position in page, dim].

    A step reads all that its sequences hold, and memory is what limits it: so a sequence has as many pages as it needs,
    siblings share the whole pages of their prompt, and the lowest free page is the next one, which keeps those in use together.
    Each of the rows that hold a page has a seat of its own at it, 0..SHARERS-1.
    Keys lie with the position last, so that queries x keys and weights x values are both plain products.
    """

    def __init__(self, config: Config, rows: int, positions: int) -> None:
        self._layers, self.heads, self.dim = config.num_hidden_layers, config.num_key_value_heads, config.head_dim
        self.rows, self.limit = rows, positions
        self.tables: Ints = np.zeros((rows, _pages(positions)), np.int64)  # the pages of each row
        self.seats: Ints = np.zeros_like(self.tables)  # where the row sits at each of them
        self._held = [0] * rows  # how many a row has
        self._taken: list[int] = []  # the seats at a page that are taken, a bit for each
        self._free: list[int] = []
        self._allocate(rows * _pages(min(positions, _FIRST_POSITIONS)))

    def _allocate(self, pages: int) -> None:
        self.keys: Floats = np.zeros((self._layers, pages, self.heads, self.dim, PAGE), np.float32)
        self.values: Floats = np.zeros((self._layers, pages, self.heads, PAGE, self.dim), np.float32)
        self._key_blocks = self.keys.view(BLOCK_KEYS)
        self._value_blocks = self.values.reshape(self._layers, pages, self.heads, _BLOCKS, BLOCK, self.dim)
        known = len(self._taken)
        self._taken += [0] * (pages - known)
        for page in range(known, pages):
            heapq.heappush(self._free, page)

    def reserve(self, row: int, length: int) -> None:
        """Give a row pages for this many positions."""
        while self._held[row] * PAGE < length:
            self._sit(row, self._take())

    def release(self, row: int) -> None:
        """Take a row's pages back."""
        held = self._held[row]
        for page, seat in zip(self.tables[row, :held].tolist(), self.seats[row, :held].tolist(), strict=True):
            self._taken[page] ^= 1 << seat
            if not self._taken[page]:
                heapq.heappush(self._free, page)
        self._held[row] = 0

    def share(self, source: int, target: int, length: int) -> bool:
        """Let an empty row begin with the first `length` positions of another one, which has at least as many.

        Whole pages are shared as long as there are seats, the rest is copied. False if a whole page had to be copied.
        """
        shared = True
        for i, page in enumerate(self.tables[source, : -(-length // PAGE)].tolist()):
            whole = (i + 1) * PAGE <= length
            if whole and self._taken[page] != _FULL:
                self._sit(target, page)
            else:
                shared = shared and not whole
                copy = self._take()
                self.keys[:, copy], self.values[:, copy] = self.keys[:, page], self.values[:, page]
                self._sit(target, copy)
        return shared

    def _take(self) -> int:
        """The lowest free page, of more if there is none."""
        if not self._free:
            keys, values, known = self.keys, self.values, len(self._taken)
            self._allocate(min(2 * known, self.tables.size))
            self.keys[:, :known], self.values[:, :known] = keys, values
        return heapq.heappop(self._free)

    def _sit(self, row: int, page: int) -> None:
        taken, held = self._taken[page], self._held[row]
        seat = next(i for i in range(SHARERS) if not taken >> i & 1)
        self._taken[page] = taken | 1 << seat
        self.tables[row, held], self.seats[row, held] = page, seat
        self._held[row] = held + 1

    def block(self, row: int, i: int) -> tuple[npt.NDArray[np.void], Floats]:
        """A block of a row, to be read or written.

        Keys are [layer, head, dim], all positions of the block as one element; values are [layer, head, position, dim].
        """
        page, place = self.tables[row, i // _BLOCKS], i % _BLOCKS
        return self._key_blocks[:, page, :, :, place], self._value_blocks[:, page, :, place]


def _pages(positions: int) -> int:
    return -(-positions // PAGE)
