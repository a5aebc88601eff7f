r"""Read the structure of an answer: lists, sets, points, intervals, matrices, relations, units; scalars at the leaves.

The reader itself is plain Python. Scalars that are not simply numbers go to `scalar`, which either is the computer
algebra system (`asearch.answers.symbolic`) or refuses, so that the fast path and the full path are one reader and
agree by construction.
"""

from __future__ import annotations

import re
from itertools import product
from typing import TYPE_CHECKING, Protocol

from asearch.answers import nodes
from asearch.answers.latex import AND, OR, Unreadable, enclosed, split, tidy, tokens
from asearch.answers.nodes import Node
from asearch.answers.scalars import plain_scalar, without_unit
from asearch.answers.words import choice_with_value, in_words, is_prose, normal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_COMMAS = frozenset({",", ";", AND, OR})
_RELATIONS = frozenset({"=", "<", ">", r"\le", r"\ge", r"\ne", r"\in", r"\approx"})
_INEQUALITIES = frozenset({"<", ">", r"\le", r"\ge"})
_FLIPPED = {"<": ">", ">": "<", r"\le": r"\ge", r"\ge": r"\le"}
_UNIONS = frozenset({r"\cup"})
_INTERSECTIONS = frozenset({r"\cap"})
_DIFFERENCES = frozenset({r"\setminus"})
_SIGNS = frozenset({r"\pm", r"\mp"})
_OPPOSITE = {"+": "-", "-": "+"}

_WHOLE_TEXT = re.compile(r"\\text\s*\{([^{}]*)\}")
# A name on the left of "=": x, x_1, f(x), f^{-1}(x), |AB|, \angle ABC, m\angle B, \text{Area}, P(A \cap B), \overline{AB}.
_NAME = re.compile(
    r"(?:\\text\s*\{[^{}]*\}|m?\\angle\s*[A-Za-z]{1,3}|\|[A-Za-z]{1,3}\||\\(?:overline|bar|det)\s*\{?[A-Za-z]{1,3}\}?"
    r"|(?!\\(?:frac|sqrt|binom|infty|pi|pm|mp|sin|cos|tan|log|ln))\\?[A-Za-z]+)"
    r"(?:'|_\s*[A-Za-z0-9]|_\s*\{[^{}]*\}|\^\{-1\}|\^\{\\prime\})*(?:\s*\([^()=<>]{1,40}\))?(?:\s*\\text\s*\{[^{}]*\})?"
)
_VARIABLE = re.compile(r"\\?[A-Za-z]+(?:_\s*[A-Za-z0-9]|_\s*\{[^{}]*\})?")
_ELEMENT = re.compile(rf"{_VARIABLE.pattern}(?:\s*\\in\s*\\mathbb\s*\{{?R\}}?)?")
_FOR_ALL_INTEGERS = re.compile(
    r"(?:\s*,\s*|\s*\\text\s*\{[^{}]*\}\s*)+[a-z](?:\s*,\s*[a-z])?\s*\\in\s*\\mathbb\s*\{?[ZN]\}?\s*$"
)
_MATRIX = re.compile(
    r"\\begin\s*\{((?:[pbB]|small)?matrix|array)\}(?:\s*\{[clr|\s]*\})?(.*)\\end\s*\{\1\}(.*)", re.DOTALL
)
_ROW = frozenset({r"\\"})
_CELL = frozenset({"&"})
_TRANSPOSED = re.compile(r"\^\{\s*(?:T|\\top|\\text\s*\{\s*T\s*\}|\\intercal)\s*\}")
_THOUSANDS = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?!\d|,\d)")


class Scalar(Protocol):
    """What reads expressions and relations between them."""

    def expression(self, text: str) -> Node: ...

    def relation(self, parts: Sequence[str], operators: Sequence[str]) -> Node: ...

    def matrix(self, text: str) -> Node: ...


class NotPlain(Exception):
    """The text holds more than numbers and words. No failure: a note that the algebra system is needed."""


class Plain:
    """Refuses whatever needs the computer algebra system."""

    def expression(self, text: str) -> Node:
        raise NotPlain(text)

    def relation(self, parts: Sequence[str], operators: Sequence[str]) -> Node:
        raise NotPlain(str((parts, operators)))

    def matrix(self, text: str) -> Node:
        raise NotPlain(text)


def read(text: str, scalar: Scalar) -> Node:
    """The meaning of an answer.

    Raises:
        Unreadable: it has no mathematical structure that is known here.
        NotPlain: by a `Plain` scalar, when more is needed.
    """
    return Reader(scalar).answer(tidy(text))


class Reader:
    """One level of structure per method, from the outside in."""

    def __init__(self, scalar: Scalar) -> None:
        self.scalar = scalar

    def answer(self, text: str) -> Node:
        """An answer: words, a choice, a list, or a statement."""
        if not text:
            raise Unreadable("blank")
        text = _FOR_ALL_INTEGERS.sub("", text) or text
        if whole := _WHOLE_TEXT.fullmatch(text):
            return self._all_text(whole.group(1))
        if named := in_words(text) or self._choice(text):
            return named
        parts, commas = split(_without_thousands(text), _COMMAS)
        return self._list(parts, commas) if commas else self.statement(parts[0])

    def _all_text(self, inside: str) -> Node:
        r"""What stands in one \text{}: words, or mathematics in disguise."""
        content = tidy(inside.replace(AND, " and ").replace(OR, " or "))
        if re.fullmatch(r"\(?[A-Z]\)?(?:\s*,\s*\(?[A-Z]\)?)+", content):  # several choices
            return self.answer(content)
        if re.search(r"\d", content) and not re.search(r"[A-Za-z]{2,}.*\d.*[A-Za-z]{2,}", content):
            return self.answer(content)
        return in_words(content) or nodes.text(normal(content))

    def _choice(self, text: str) -> Node | None:
        """A choice with its value is known under both."""
        found = choice_with_value(text)
        if found is None:
            return None
        try:
            also: tuple[str, ...] = (self.answer(found[1]).key,)
        except Unreadable:
            also = ()
        return Node("expression", found[0], also=also)

    def _list(self, parts: Sequence[str], commas: Sequence[str]) -> Node:
        parts = [part for part in parts if part]
        if len(parts) == 1:
            return self.answer(parts[0])
        named = [self._assignment(part) for part in parts]
        if all(named):
            return self._assignments([item for item in named if item])
        found = [self.answer(part) for part in parts]
        if OR in commas and any(self._is_inequality(part) for part in parts):
            return nodes.region([piece for node in found for piece in nodes.pieces_of(node)])
        if AND in commas and any(self._is_inequality(part) for part in parts):
            return self._intersection(found)
        return nodes.collection(found, repeats=True)

    def _intersection(self, sets: Sequence[Node]) -> Node:
        """By complements: what is outside no set."""
        outside = [nodes.complement(nodes.pieces_of(node)) for node in sets]
        inside = None if None in outside else nodes.complement([piece for rest in outside if rest for piece in rest])
        if inside is None:
            raise Unreadable("an intersection of sets whose ends cannot be compared")
        return nodes.region(inside)

    def _is_inequality(self, text: str) -> bool:
        return not _INEQUALITIES.isdisjoint(tokens(text))

    def _assignment(self, text: str) -> tuple[str, str] | None:
        parts, operators = split(text, _RELATIONS)
        if operators and set(operators) == {"="} and _VARIABLE.fullmatch(parts[0]):
            return parts[0], parts[-1]
        return None

    def _assignments(self, named: Sequence[tuple[str, str]]) -> Node:
        """Of one name, two solutions; of two names one solution, which is also a point, in alphabetical order."""
        names = [name for name, _ in named]
        values = [self.value(value) for _, value in named]
        if len(set(names)) == 1:
            return nodes.collection(values)
        if len(set(names)) < len(names):
            raise Unreadable("some names twice")
        values = [value for _, value in sorted(zip(names, values, strict=True), key=lambda item: item[0])]
        return nodes.sequence(values)

    def statement(self, text: str) -> Node:
        """A value, or a relation that says what the value is."""
        parts, operators = split(text, _RELATIONS)
        if not operators:
            return self.value(text)
        if r"\approx" in operators:
            return self._approximation(parts, operators)
        if operators == [r"\in"]:
            return self.answer(parts[1])
        if set(operators) == {"="}:
            return self._equation([part for part in parts if part])
        if operators == [r"\ne"] and _VARIABLE.fullmatch(parts[0]):
            rest = nodes.complement(nodes.pieces_of(self.value(parts[1])))
            if rest is not None:
                return nodes.region(rest)
        return self._interval(parts, operators) or self.scalar.relation(parts, operators)

    def _approximation(self, parts: list[str], operators: list[str]) -> Node:
        """The exact side counts, unless it is only a name."""
        at = operators.index(r"\approx")
        exact_side = parts[: at + 1]
        if at == 0 and _NAME.fullmatch(exact_side[0]):
            return self.value(parts[1])
        return self._equation(exact_side) if len(exact_side) > 1 else self.value(exact_side[0])

    def _equation(self, sides: list[str]) -> Node:
        """Names do not count: x = 5 is 5, whatever the name; a chain ends with its result; other equations are relations."""
        if len(sides) == 1:
            return self.answer(sides[0])
        first, last = sides[0], sides[-1]
        named = _NAME.fullmatch(first) or (self._is_tuple_of_names(first) and enclosed(last))
        if named or (len(sides) > 2 and not _NAME.fullmatch(last)) or not re.search(r"[a-zA-Z]", first + last):
            return self._with_line(self.answer(last), first, last)
        if _NAME.fullmatch(last) and len(sides) == 2:
            return self.answer(first)
        return self.scalar.relation(sides[:1] + sides[-1:], ["="])

    def _with_line(self, value: Node, name: str, text: str) -> Node:
        """The line y = 2x + 3 is known as 2x + 3 and as y - 2x - 3 = 0."""
        if value.kind != "expression" or not _VARIABLE.fullmatch(name):
            return value
        try:
            line = self.scalar.relation([name, text], ["="])
        except (Unreadable, NotPlain):
            return value
        return Node(value.kind, value.key, value.value, fingerprint=value.fingerprint, also=(*value.also, line.key))

    def _is_tuple_of_names(self, text: str) -> bool:
        found = enclosed(text)
        return found is not None and all(_VARIABLE.fullmatch(p) for p in split(found[1], _COMMAS)[0])

    def _interval(self, parts: list[str], operators: list[str]) -> Node | None:
        """From x < 5, 5 > x, or 1 < x <= 5 with plain bounds; None where there is more to solve."""
        if len(parts) == 2 and _VARIABLE.fullmatch(parts[1]) and operators[0] in _FLIPPED:
            parts, operators = parts[::-1], [_FLIPPED[operators[0]]]
        if len(parts) == 2 and _VARIABLE.fullmatch(parts[0]) and operators[0] in _FLIPPED:
            bound, open_end = self._bound(parts[1]), operators[0] in "<>"
            if bound is None:
                return None
            if operators[0] in ("<", r"\le"):
                return nodes.region([nodes.Piece(nodes.MINUS_INFINITY, bound, low_open=True, high_open=open_end)])
            return nodes.region([nodes.Piece(bound, nodes.INFINITY, open_end, high_open=True)])
        if len(parts) == 3 and all(op in (">", r"\ge") for op in operators):
            parts, operators = parts[::-1], [_FLIPPED[op] for op in reversed(operators)]
        if len(parts) == 3 and _VARIABLE.fullmatch(parts[1]) and all(op in ("<", r"\le") for op in operators):
            low, high = self._bound(parts[0]), self._bound(parts[2])
            if low is not None and high is not None:
                return nodes.region([nodes.Piece(low, high, operators[0] == "<", operators[1] == "<")])
        return None

    def _bound(self, text: str) -> Node | None:
        node = self.value(text)
        return node if nodes.size(node) is not None else None

    def value(self, text: str) -> Node:
        """A set, a point, an interval, a matrix, or a scalar."""
        text = text.strip()
        if not text:
            raise Unreadable("blank")
        parts, operators = split(text, _UNIONS | _DIFFERENCES | _INTERSECTIONS)
        if set(operators) == _INTERSECTIONS:
            return self._intersection([self.answer(part) for part in parts])
        if operators:
            return self._union(parts, operators)
        brackets = enclosed(text)
        if brackets:
            return self._bracketed(*brackets)
        if match := _MATRIX.fullmatch(text):
            return self._matrix(text, match)
        if not _SIGNS.isdisjoint(tokens(text)):
            return self._both_signs(text)
        return self.scalar_value(text)

    def _union(self, parts: list[str], operators: list[str]) -> Node:
        pieces = nodes.pieces_of(self.answer(parts[0]))
        for operator, part in zip(operators, parts[1:], strict=True):
            more = nodes.pieces_of(self.answer(part))
            if operator in _UNIONS:
                pieces = pieces + more
            elif pieces == nodes.pieces_of(self.answer(r"\mathbb{R}")) and (rest := nodes.complement(more)) is not None:
                pieces = rest
            else:
                raise Unreadable("a difference of sets")
        return nodes.region(pieces)

    def _bracketed(self, opener: str, inside: str, closer: str) -> Node:
        if opener == "{":
            return self.answer(inside)
        if opener == r"\{":
            return self._braces(inside)
        if opener in (r"\lfloor", r"\lceil"):
            return self.scalar.expression(opener + inside + closer)
        parts, commas = split(inside, frozenset({",", ";"}))
        if not commas:
            if (opener, closer) not in (("(", ")"), ("[", "]"), (r"\langle", r"\rangle")):
                raise Unreadable("a bracket without a partner")
            return self.answer(inside)
        found = [self.value(part) if not is_prose(part) else self.answer(part) for part in parts]
        if len(found) == 2 and (opener, closer) in (("[", "]"), ("(", "]"), ("[", ")")):
            return nodes.region([nodes.Piece(found[0], found[1], opener == "(", closer == ")")])
        return nodes.sequence(found)

    def _braces(self, inside: str) -> Node:
        if not inside:
            return nodes.EMPTY
        parts, bars = split(inside, frozenset({"|", ":"}))
        if len(bars) == 1:
            if not _ELEMENT.fullmatch(parts[0]):
                raise Unreadable("a set given by a condition")
            return self.answer(parts[1])
        parts, _ = split(inside, frozenset({",", ";"}))
        return nodes.collection(self.answer(part) for part in parts if part)

    def _matrix(self, text: str, match: re.Match[str]) -> Node:
        _, body, after = match.groups()
        transposed = _TRANSPOSED.fullmatch(after.strip())
        if after.strip() and not transposed:
            return self.scalar.matrix(text)
        rows = [split(row, _CELL)[0] for row in split(re.sub(r"\\\\\s*\[[^\]]*\]", r"\\\\", body), _ROW)[0]]
        rows = [row for row in rows if any(row)]
        if not rows or len({len(row) for row in rows}) != 1:
            raise Unreadable("rows of different length")
        cells = [[self.value(re.sub(r"\\hline|\\cr", "", cell)) for cell in row] for row in rows]
        return nodes.matrix(list(zip(*cells, strict=True)) if transposed else cells)

    def _both_signs(self, text: str) -> Node:
        r"""The set of 3 and -1 from 1 \pm 2; with \mp the signs are linked, several \\pm are independent."""
        marks = tokens(text)
        places = [i for i, token in enumerate(marks) if token in _SIGNS]
        if len(places) > 3:
            raise Unreadable("too many signs")
        linked = any(marks[i] == r"\mp" for i in places)
        choices = [("+",) * len(places), ("-",) * len(places)] if linked else product("+-", repeat=len(places))
        return nodes.collection(self._signed(marks, dict(zip(places, choice, strict=True))) for choice in choices)

    def _signed(self, marks: Sequence[str], signs: Mapping[int, str]) -> Node:
        chosen = list(marks)
        for i, sign in signs.items():
            chosen[i] = _OPPOSITE[sign] if marks[i] == r"\mp" else sign
        return self.value("".join(chosen).strip().removeprefix("+"))

    def scalar_value(self, text: str) -> Node:
        """A number with or without unit, or an expression."""
        plain = plain_scalar(text)
        if plain is not None:
            return plain
        bare = without_unit(text)
        return self.scalar.expression(text) if bare is None else self.value(bare)


def _without_thousands(text: str) -> str:
    """1,234, 5,678 is a list of two numbers; inside brackets a comma always separates."""
    if not _THOUSANDS.search(text) or any(mark in text for mark in ("(", "[", r"\{")):
        return text
    return _THOUSANDS.sub(lambda match: match.group().replace(",", ""), text)
