"""The meaning of an answer as a small tree, with one canonical key per meaning."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from asearch.answers.forms import Form
from asearch.answers.numbers import fingerprint

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


@dataclass(frozen=True, slots=True)
class Node:
    """A number, an expression, a text, or something built of nodes.

    Args:
        kind: see `Form`.
        key: canonical; equal keys mean equal answers.
        value: a Fraction for numbers, a sympy expression for expressions.
        children: parts whose equality makes the whole equal, in canonical order.
        shape: what else must be the same (brackets of intervals, rows and columns, the relation).
        fingerprint: numeric values of an expression at fixed points; "" where they cannot be had.
        also: further keys of the same answer.
    """

    kind: str
    key: str
    value: Any = None
    children: tuple[Node, ...] = ()
    shape: str = ""
    fingerprint: str = ""
    also: tuple[str, ...] = ()

    @property
    def probe(self) -> str:
        """What equal nodes have in common, whatever their keys are."""
        if self.kind == "number":
            return fingerprint(self.value)
        if self.kind == "expression":
            return self.fingerprint or self.key
        if not self.children:
            return self.key
        parts = [child.probe for child in self.children]
        return f"{self.shape or self.kind}<{';'.join(sorted(parts) if self.kind == 'set' else parts)}>"

    def form(self) -> Form:
        probe = self.probe
        return Form(self.kind, self.key, self.also, None if probe == self.key else probe)


INFINITY = Node("infinity", "oo")
MINUS_INFINITY = Node("infinity", "-oo")
EMPTY = Node("set", "{}", shape="set0")


def number(value: Fraction) -> Node:
    return Node("number", str(value), value)


def text(words: str) -> Node:
    return Node("text", f"'{words}'")


def sequence(parts: Sequence[Node]) -> Node:
    """An ordered tuple; of two parts it is also the open interval, which is written alike."""
    return Node("tuple", f"({';'.join(p.key for p in parts)})", children=tuple(parts), shape=f"tuple{len(parts)}")


def collection(parts: Iterable[Node], *, repeats: bool = False) -> Node:
    """A set: order-free, and one element in braces is that element. A list keeps repeats and is order-free, too."""
    flat = [leaf for part in parts for leaf in (part.children if part.kind == "set" else (part,))]
    found = sorted(flat if repeats else {p.key: p for p in flat}.values(), key=lambda p: p.key)
    if len(found) == 1:
        return found[0]
    if not found:
        return EMPTY
    return Node("set", f"{{{';'.join(p.key for p in found)}}}", children=tuple(found), shape=f"set{len(found)}")


def matrix(rows: Sequence[Sequence[Node]]) -> Node:
    shape = f"matrix{len(rows)}x{len(rows[0])}"
    cells = tuple(cell for row in rows for cell in row)
    return Node("matrix", f"{shape}[{';'.join(c.key for c in cells)}]", children=cells, shape=shape)


@dataclass(frozen=True, slots=True)
class Piece:
    """An interval of the real line; a point if both ends are the same."""

    low: Node
    high: Node
    low_open: bool
    high_open: bool


def point(node: Node) -> Piece:
    return Piece(node, node, low_open=False, high_open=False)


def region(pieces: Sequence[Piece]) -> Node:
    """A union of intervals and points, merged and in order where the ends can be compared."""
    merged = _merged([_tidied(piece) for piece in pieces if not _is_empty(piece)])
    if not merged:
        return EMPTY
    if all(p.low.key == p.high.key for p in merged):
        return collection(p.low for p in merged)
    if len(merged) == 1 and merged[0].low_open and merged[0].high_open:
        return sequence((merged[0].low, merged[0].high))
    ends = tuple(end for p in merged for end in (p.low, p.high))
    shape = "region" + "".join(("(" if p.low_open else "[") + (")" if p.high_open else "]") for p in merged)
    return Node("region", " | ".join(_piece_key(p) for p in merged), children=ends, shape=shape)


def pieces_of(node: Node) -> list[Piece]:
    """The pieces of a region, or of what can be one: a pair is an open interval, elements are points."""
    if node.kind == "region":
        marks = node.shape.removeprefix("region")
        ends = list(zip(node.children[::2], node.children[1::2], strict=True))
        return [
            Piece(low, high, low_open=marks[2 * i] == "(", high_open=marks[2 * i + 1] == ")")
            for i, (low, high) in enumerate(ends)
        ]
    if node.kind == "tuple" and len(node.children) == 2:
        return [Piece(*node.children, low_open=True, high_open=True)]
    return [point(element) for element in (node.children if node.kind == "set" else (node,))]


def complement(pieces: Sequence[Piece]) -> list[Piece] | None:
    """The rest of the real line; None where the ends cannot be compared."""
    ordered = _merged([piece for piece in pieces if not _is_empty(piece)])
    if any(size(end) is None for p in ordered for end in (p.low, p.high)):
        return None
    rest, low, low_open = [], MINUS_INFINITY, True
    for piece in ordered:
        rest.append(Piece(low, piece.low, low_open, not piece.low_open))
        low, low_open = piece.high, not piece.high_open
    rest.append(Piece(low, INFINITY, low_open, high_open=True))
    return [piece for piece in rest if not _is_empty(piece)]


def size(node: Node) -> Fraction | float | None:
    """A real value to order ends by, or None."""
    if node.kind == "number":
        return Fraction(node.value)
    if node.kind == "infinity":
        return float("inf") if node is INFINITY or node.key == "oo" else float("-inf")
    try:
        return Fraction(Decimal(node.fingerprint))
    except (ArithmeticError, ValueError):
        return None


def _tidied(piece: Piece) -> Piece:
    """An infinite end is always open."""
    return Piece(
        piece.low,
        piece.high,
        piece.low_open or piece.low.kind == "infinity",
        piece.high_open or piece.high.kind == "infinity",
    )


def _is_empty(piece: Piece) -> bool:
    if piece.low.key == piece.high.key:
        return piece.low_open or piece.high_open
    return False


def _piece_key(p: Piece) -> str:
    if p.low.key == p.high.key:
        return f"{{{p.low.key}}}"
    return f"{'(' if p.low_open else '['}{p.low.key};{p.high.key}{')' if p.high_open else ']'}"


def _merged(pieces: list[Piece]) -> list[Piece]:
    sizes = [(size(p.low), size(p.high)) for p in pieces]
    if any(low is None or high is None for low, high in sizes):
        return pieces
    order = sorted(range(len(pieces)), key=lambda i: (sizes[i][0], pieces[i].low_open))
    merged: list[Piece] = []
    for piece in (pieces[i] for i in order):
        if merged and _touch(merged[-1], piece):
            merged[-1] = _joined(merged[-1], piece)
        else:
            merged.append(piece)
    return merged


def _touch(a: Piece, b: Piece) -> bool:
    end, start = size(a.high), size(b.low)
    if end is None or start is None or start > end:
        return False
    return start < end or not (a.high_open and b.low_open)


def _joined(a: Piece, b: Piece) -> Piece:
    a_high, b_high = size(a.high), size(b.high)
    low_open = a.low_open and (b.low_open or a.low.key != b.low.key)
    if a_high == b_high:
        return Piece(a.low, a.high, low_open, a.high_open and b.high_open)
    later = a if a_high is not None and b_high is not None and a_high > b_high else b
    return Piece(a.low, later.high, low_open, later.high_open)
