"""Answers in words: names, choices, and the sets that have names."""

from __future__ import annotations

import re

from asearch.answers import nodes
from asearch.answers.latex import AND, OR
from asearch.answers.nodes import Node

_TEXT = re.compile(r"\\text\s*\{([^{}]*)\}")
_WORD = re.compile(r"[A-Za-z]{2,}")
_PROSE = re.compile(r"[A-Za-z\s.,;:'\"!?&-]+")
_SHORT_WORDS = frozenset(["yes", "no", "odd", "red", "one", "two", "six", "ten", "may", "sum", "all"])
_CHOICE = re.compile(r"\(([A-Z])\)|([A-Z])[.)]|\[([A-Z])\]|\{([A-Z])\}|([A-Z])")
_CHOICE_WITH_VALUE = re.compile(r"(?:\(([A-J])\)|([A-J])[.):])\s*(?=[-\d\\$a-zA-Z.])(.+)")
_ALL_REALS = re.compile(r"\\mathbb\s*\{?r\}?|all real numbers|all reals|the real numbers|real numbers")
_NO_SOLUTION = re.compile(r"\\emptyset|\\\{\s*\\\}|the empty set|empty set|no (?:real )?solutions?|none")


def unmarked(text: str) -> str:
    r"""Without \text{} around words."""
    return _TEXT.sub(r"\1", text).replace(AND, " and ").replace(OR, " or ").strip()


def in_words(text: str) -> Node | None:
    """The node of a choice, a named set or plain words; None for anything else."""
    plain = unmarked(text)
    if match := _CHOICE.fullmatch(plain):
        return Node("expression", next(group for group in match.groups() if group))
    if _ALL_REALS.fullmatch(plain.lower()):
        return nodes.region([nodes.Piece(nodes.MINUS_INFINITY, nodes.INFINITY, low_open=True, high_open=True)])
    if _NO_SOLUTION.fullmatch(plain.lower()):
        return nodes.EMPTY
    return nodes.text(normal(plain)) if is_prose(plain, marked="\\text" in text) else None


def choice_with_value(text: str) -> tuple[str, str] | None:
    """The letter and the value of "(B) 12", or None."""
    plain = unmarked(text)
    match = _CHOICE_WITH_VALUE.fullmatch(plain)
    if match is None or is_prose(plain):
        return None
    return match.group(1) or match.group(2), match.group(3).strip()


def is_prose(text: str, *, marked: bool = False) -> bool:
    r"""Whether a text is words: letters only, and a word of four letters or a known shorter one.

    Inside \text{} (marked), two letters are a word.
    """
    if not _PROSE.fullmatch(text):
        return False
    if any(part.strip() and not _WORD.search(part) for part in re.split(r"[,;]", text)):  # Yes, x
        return marked
    return any(len(word) >= (2 if marked else 4) for word in _WORD.findall(text)) or text.lower() in _SHORT_WORDS


def normal(text: str) -> str:
    """Words without case, punctuation and article."""
    words = re.sub(r"[\s\-_]+", " ", re.sub(r"[.,;:!?'\"`{}()\\]", " ", text)).strip().casefold()
    return re.sub(r"^(?:the|an?) (?=\w)", "", words)
