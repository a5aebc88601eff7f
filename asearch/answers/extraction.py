r"""Find the answer in a solution: the last `\boxed{}`, else what follows "the final answer is".

Everything here is linear in the length of the text, however hostile.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

# A box command, an escaped character (so that \{ is not a brace), or a brace.
_TOKENS = re.compile(r"\\(?:boxed|fbox|framebox)(?![a-zA-Z])|\\.|[{}]", re.DOTALL)
_BOX = re.compile(r"\\(?:boxed|fbox|framebox)$")
_SPACES = re.compile(r"\s*")
# What a box without braces holds: `\boxed 5`, `\boxed12`, `\boxed\pi`.
_BARE = re.compile(r"\s*(\\[a-zA-Z]+|-?\d+(?:[.,/]\d+)*|[a-zA-Z])")
# The stronger phrase first: within one kind, the last one counts.
_PHRASES = (
    re.compile(r"final\s+answer\s*(?:is\b|[:=])(?:\s*:)?", re.IGNORECASE),
    re.compile(r"\banswer\s*(?:is\b|[:=])(?:\s*:)?", re.IGNORECASE),
)
_MATH = re.compile(r"\$\$(?P<a>.+?)\$\$|\$(?P<b>[^$]+)\$|\\\[(?P<c>.+?)\\\]|\\\((?P<d>.+?)\\\)", re.DOTALL)
# Where a plain answer ends: the Minerva closing words, a full stop before a space, or the end of the line.
_END = re.compile(r"\.?\s*I hope|[.;!?](?=\s|$)|\n|$")
_PHRASE_REACH = 2_000  # characters after the phrase; more is not an answer
_UNCLOSED_REACH = 200


def extract(text: str, pattern: str | re.Pattern[str] | Callable[[str], str | None] | None = None) -> str | None:
    r"""The answer that a solution states, or None if it states none.

    The last `\boxed{}` (or `\fbox{}`) counts; without one, what follows "the final answer is". An empty box is no answer.

        >>> extract(r"so $x = \boxed{\frac{1}{2}}$.")
        '\\frac{1}{2}'

    Args:
        text: a solution.
        pattern: another way to find the answer: a regular expression, of which the last match counts (its first
            group, if it has one), or a function.
    """
    if callable(pattern):
        found = pattern(text)
    elif pattern is not None:
        found = _last_match(re.compile(pattern), text)
    else:
        found = _last_box(text) or _after_phrase(text) or _broken_box(text)
    found = found.strip() if found else None
    return found or None


def _last_match(pattern: re.Pattern[str], text: str) -> str | None:
    last = None
    for last in pattern.finditer(text):
        pass
    if last is None:
        return None
    groups = [group for group in last.groups() if group is not None]
    return groups[0] if groups else last.group()


def _last_box(text: str) -> str | None:
    """The content of the box that begins last and is complete and not blank."""
    best_start, best = -1, None
    braces: list[int | None] = []  # per open brace: where its box command begins, None for other braces
    inside: list[int] = []
    box_opens: dict[int, int] = {}  # position of an opening brace -> start of its box command
    for token in _TOKENS.finditer(text):
        mark = token.group()
        if _BOX.match(mark):
            opening = _SPACES.match(text, token.end()).end()  # type: ignore[union-attr]  # it matches anything
            if text[opening : opening + 1] == "{":
                box_opens[opening] = token.start()
            elif (bare := _BARE.match(text, token.end())) and token.start() > best_start:
                best_start, best = token.start(), bare.group(1)
        elif mark == "{":
            braces.append(box_opens.pop(token.start(), None))
            inside.append(token.end())
        elif mark == "}" and braces:
            start, begin = braces.pop(), inside.pop()
            if start is not None and start > best_start and not text[begin : token.start()].isspace() and begin < token.start():
                best_start, best = start, text[begin : token.start()]
    return best


def _after_phrase(text: str) -> str | None:
    for phrase in _PHRASES:
        last = None
        for last in phrase.finditer(text):
            pass
        if last is not None:
            answer = _statement(text[last.end() : last.end() + _PHRASE_REACH])
            if answer:
                return answer
    return None


def _statement(rest: str) -> str:
    """The answer at the start of what follows the phrase: the formula if there is one, else the words."""
    rest = rest.lstrip(" \t\r\n*:")
    end = _END.search(rest)
    sentence = rest[: end.start()] if end else rest
    math = _MATH.search(rest)
    if math and math.start() <= len(sentence):
        before = sentence[: math.start()].strip()
        if not re.search(r"\d", before):  # "5 or $6$" is one statement; "the ratio $6$" is the formula alone
            return next(group for group in math.groups() if group is not None).strip()
    return sentence.strip().strip("*").rstrip(".").strip(" \"'`")


def _broken_box(text: str) -> str | None:
    """A box whose brace never closes although its formula or line does: `$\\boxed{5$`. A cut-off box is no answer."""
    start = max(text.rfind("\\boxed{"), text.rfind("\\fbox{"))
    if start < 0:
        return None
    begin = text.index("{", start) + 1
    rest = re.match(r"([^$\n]*)[$\n]", text[begin : begin + _UNCLOSED_REACH])
    return rest.group(1).strip().rstrip(".") if rest else None
