"""The prefix cache: whole blocks of keys and values, found again by the tokens that lead to them."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from asearch_backends.embedded.kv import BLOCK, BLOCK_KEYS

if TYPE_CHECKING:
    import numpy.typing as npt

    from asearch_backends.embedded.kv import KVPages

_BYTES = 4 * BLOCK  # of one block of int32 token ids

# A block is named by the serial number of its parent and its own tokens: an exact trie, where a hash could collide.
Key = tuple[int, bytes]


class _Node(NamedTuple):
    serial: int
    block: int


class Match(NamedTuple):
    """What the cache holds of a prompt, and the name of the first block that it lacks."""

    blocks: list[int]
    missing: Key | None

    @property
    def tokens(self) -> int:
        return len(self.blocks) * BLOCK


class PrefixCache:
    """At most `capacity` blocks in two pools; the least recently used go first, and leaves before their parents."""

    def __init__(self, kv: KVPages, capacity: int) -> None:
        layers, _, heads, dim, _ = kv.keys.shape
        self._kv = kv
        self.capacity = capacity
        self._keys = np.empty((capacity, layers, heads, dim), BLOCK_KEYS)
        self._values = np.empty((capacity, layers, heads, BLOCK, dim), np.float32)
        self._nodes: OrderedDict[Key, _Node] = OrderedDict()
        self._free = list(range(capacity - 1, -1, -1))
        self._serial = 0

    def __len__(self) -> int:
        return len(self._nodes)

    def match(self, tokens: bytes) -> Match:
        """The cached blocks of a prompt, of which at least the last token stays to be computed."""
        path, missing = self._walk(tokens, (len(tokens) // 4 - 1) // BLOCK)
        self._touch([key for key, _ in path])
        return Match([node.block for _, node in path], missing)

    def load(self, blocks: list[int], row: int) -> None:
        """Copy blocks to the beginning of a row."""
        self._kv.reserve(row, len(blocks) * BLOCK)
        for i, block in enumerate(blocks):
            keys, values = self._kv.block(row, i)
            keys[...], values[...] = self._keys[block], self._values[block]

    def store(self, tokens: bytes, row: int) -> None:
        """Keep the whole blocks of a row, whose keys and values are computed for all these tokens."""
        wanted = min(len(tokens) // _BYTES, self.capacity)
        path, missing = self._walk(tokens, wanted)
        keys = [key for key, _ in path]
        self._touch(keys)
        if missing is None:
            return
        first, parent = len(path), missing[0]
        blocks = [self._take_block() for _ in range(first, wanted)]
        for i, block in enumerate(blocks, first):
            self._serial += 1
            key = (parent, tokens[i * _BYTES : (i + 1) * _BYTES])
            self._nodes[key] = _Node(self._serial, block)
            keys.append(key)
            parent = self._serial
        self._touch(keys)
        for i, block in enumerate(blocks, first):
            self._keys[block], self._values[block] = self._kv.block(row, i)

    def _walk(self, tokens: bytes, blocks: int) -> tuple[list[tuple[Key, _Node]], Key | None]:
        path: list[tuple[Key, _Node]] = []
        parent = 0
        for start in range(0, blocks * _BYTES, _BYTES):
            key = (parent, tokens[start : start + _BYTES])
            node = self._nodes.get(key)
            if node is None:
                return path, key
            path.append((key, node))
            parent = node.serial
        return path, None

    def _touch(self, keys: list[Key]) -> None:
        # Deepest first, so that a parent is always younger than its children and never leaves before them.
        for key in reversed(keys):
            if key in self._nodes:
                self._nodes.move_to_end(key)

    def _take_block(self) -> int:
        if self._free:
            return self._free.pop()
        return self._nodes.popitem(last=False)[1].block


def token_bytes(tokens: npt.NDArray[np.int32]) -> bytes:
    """Token ids in the form that the cache compares."""
    return tokens.astype(np.int32, copy=False).tobytes()
