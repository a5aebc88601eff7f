"""Paged KV memory with a prefix cache, in pieces: a prompt is a chain of pieces (steps), each with a name of its own.

The name of a piece stands for all before it, too (it is a hash of the chain), so one look-up finds how much of a prompt is
there. Pieces leave as vLLM's blocks do, least recently used first and ends before beginnings. Blocks matter for what is
found again: of a prefix only whole blocks.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

# A piece of a prompt: its name, and the length of the prompt up to its end.
Piece = tuple[int, int]


@dataclass(slots=True, eq=False)
class Node:
    """A piece in memory."""

    name: int
    parent: Node | None
    length: int  # of the prompt up to its end
    own: int  # tokens that it holds itself
    children: int = 0
    pins: int = 0
    touched: int = 0


class PrefixCache:
    """Memory for `capacity` tokens. Running sequences pin the pieces they stand on; the rest may be evicted.

    Args:
        capacity: tokens.
        block: tokens per block.
    """

    def __init__(self, capacity: int, block: int) -> None:
        self.capacity = capacity
        self.block = block
        self.used = 0
        self.evictions = 0
        self._nodes: dict[int, Node] = {}
        self._evictable: list[tuple[int, int, Node]] = []
        self._clock = 0

    def __len__(self) -> int:
        return len(self._nodes)

    def cached(self, pieces: Sequence[Piece]) -> int:
        """How many tokens of a prompt need not be computed: whole blocks, and never the last token."""
        return whole_blocks(self._deepest(pieces)[1], pieces[-1][1], self.block)

    def hold(self, pieces: Sequence[Piece], private: int) -> Node | None:
        """Make room for a prompt and `private` tokens to be generated, and pin them; None if there is no room now."""
        found, length = self._deepest(pieces)
        if found is not None:
            found.pins += 1
        room = self._make_room(pieces[-1][1] - length + private)
        if found is not None:
            found.pins -= 1
        if not room:
            if found is not None:
                self._offer(found)
            return None
        node = self._insert(pieces, found)
        node.pins += 1
        self.used += private
        return node

    def release(self, node: Node, private: int, kept: Sequence[Piece] = ()) -> None:
        """Let go of a prompt; what was generated stays as further pieces, if they are given names."""
        self.used -= private
        node.pins -= 1
        self._touch(self._insert(kept, node))

    def _deepest(self, pieces: Sequence[Piece]) -> tuple[Node | None, int]:
        for name, length in reversed(pieces):
            node = self._nodes.get(name)
            if node is not None:
                return node, length
        return None, 0

    def _insert(self, pieces: Sequence[Piece], parent: Node | None) -> Node:
        before = 0 if parent is None else parent.length
        for name, length in pieces:
            node = self._nodes.get(name)
            if node is None and length > before:
                node = self._nodes[name] = Node(name, parent, length, length - before)
                self.used += node.own
                if parent is not None:
                    parent.children += 1
            if node is not None and length > before:
                parent, before = node, length
        if parent is None:
            raise ValueError("a prompt has at least one piece")
        return parent

    def _touch(self, node: Node) -> None:
        self._clock += 1
        end: Node | None = node
        while end is not None:
            end.touched = self._clock
            end = end.parent
        self._offer(node)

    def _offer(self, node: Node) -> None:
        if not node.pins and not node.children:
            heapq.heappush(self._evictable, (node.touched, node.name, node))

    def _make_room(self, tokens: int) -> bool:
        while self.used + tokens > self.capacity and self._evictable:
            touched, name, node = heapq.heappop(self._evictable)
            if node.pins or node.children or node.touched != touched or self._nodes.get(name) is not node:
                continue
            del self._nodes[name]
            self.used -= node.own
            self.evictions += 1
            if node.parent is not None:
                node.parent.children -= 1
                self._offer(node.parent)
        return self.used + tokens <= self.capacity


def whole_blocks(found: int, length: int, block: int) -> int:
    """Tokens of a prefix that can be used again: whole blocks; one token at least is always computed."""
    return min(found // block * block, (length - 1) // block * block)
