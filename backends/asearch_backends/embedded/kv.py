"""Keys and values of the running sequences: one row for each, rows 0..n-1 in use, so that a batch is a slice."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from asearch_backends.embedded.numerics import round_up

if TYPE_CHECKING:
    import numpy.typing as npt

    from asearch_backends.embedded.checkpoint import Config

    Floats = npt.NDArray[np.float32]

BLOCK = 8  # tokens of a cached block: a prompt is recomputed from its last whole block on, half a block on average
_FIRST_POSITIONS = 128
_MORE_POSITIONS = 64


class KVRows:
    """Two arrays: keys [layer, row, head, dim, position], values [layer, row, head, position, dim].

    Keys lie with the position last, so that queries x keys and weights x values are both plain products. A step reads all
    of it, and memory is what limits it: so rows are no longer than the longest sequence so far has needed.
    """

    def __init__(self, config: Config, rows: int, positions: int) -> None:
        self._shape = (config.num_hidden_layers, rows, config.num_key_value_heads, config.head_dim)
        self.rows, self.heads, self.dim = self._shape[1:]
        self.limit = positions
        self.in_use = rows  # rows that hold anything worth keeping
        self._allocate(min(positions, _FIRST_POSITIONS))

    def _allocate(self, positions: int) -> None:
        # Sixteen more than needed keeps the stride off a power of two, whose lines would fight over the same cache sets.
        self.positions = round_up(positions, 32) + 16
        layers, rows, heads, dim = self._shape
        self.keys: Floats = np.zeros((layers, rows, heads, dim, self.positions), np.float32)
        self.values: Floats = np.zeros((layers, rows, heads, self.positions, dim), np.float32)

    def reserve(self, length: int) -> None:
        """Make room for sequences of this length, keeping what is there."""
        if length <= self.positions - 16:
            return
        keys, values = self.keys, self.values
        self._allocate(min(round_up(length, _MORE_POSITIONS), self.limit))
        self.keys[:, : self.in_use, :, :, : keys.shape[-1]] = keys[:, : self.in_use]
        self.values[:, : self.in_use, :, : values.shape[-2]] = values[:, : self.in_use]

    def copy(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` positions of one row to another."""
        end = round_up(length, BLOCK)
        self.keys[:, target, :, :, :end] = self.keys[:, source, :, :, :end]
        self.values[:, target, :, :end] = self.values[:, source, :, :end]

    def key_blocks(self, row: int) -> npt.NDArray[np.void]:
        """The keys of a row, a block of positions as one element: [layer, head, dim, block]."""
        return self.keys[:, row].view(BLOCK_KEYS)

    def value_blocks(self, row: int) -> Floats:
        """The values of a row: [layer, head, block, position in block, dim]."""
        layers, _, heads, dim = self._shape
        return self.values[:, row].reshape(layers, heads, self.positions // BLOCK, BLOCK, dim)


# Copied as a whole: numpy moves few large elements much faster than many short runs of small ones.
BLOCK_KEYS = np.dtype((np.void, 4 * BLOCK))
