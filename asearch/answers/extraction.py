r"""Find the answer in a solution: the last `\boxed{}`, else what follows "the final answer is".

Everything here is linear in the length of the text, however hostile.
"""

from __future__ import annotations

import re
from collections import deque
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
_VERB = re.compile(r"\b(?:is|are|equals)\b\s*:?")
_LINK = re.compile(r"\s*(?:,|and|or|,\s*and|,\s*or)\s*")
_PHRASE_REACH = 1_000  # characters after the phrase; more is not an answer
_UNCLOSED_REACH = 200
MAX_TEXT = 40_000  # characters, from the end: the answer stands there, and a longer text would hold up the event loop


def extract(text: str, pattern: str | re.Pattern[str] | Callable[[str], str | None] | None = None) -> str | None:
    r"""The answer that a solution states, or None if it states none.

    The last `\boxed{}` (or `\fbox{}`) counts; without one, what follows "the final answer is". An empty box is no answer.

        >>> extract(r"so $x = \boxed{\frac{1}{2}}$.")
        '\\frac{1}{2}'

    Args:
        text: a solution; only its last 40,000 characters are read.
        pattern: another way to find the answer: a regular expression, of which the last match counts (its first
            group, if it has one), or a function.
    """
    if callable(pattern):
        found = pattern(text)
        return found.strip() or None if found else None
    text = text[-MAX_TEXT:]
    if pattern is not None:
        found = _last_match(re.compile(pattern), text)
    else:
        found = _last_box(text) or _after_phrase(text) or _broken_box(text)
    found = found.strip() if found else None
    return found or None


def _last(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    return next(iter(deque(pattern.finditer(text), maxlen=1)), None)


def _last_match(pattern: re.Pattern[str], text: str) -> str | None:
    last = _last(pattern, text)
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
            if (
                start is not None
                and start > best_start
                and not text[begin : token.start()].isspace()
                and begin < token.start()
            ):
                best_start, best = start, text[begin : token.start()]
    return best


def _after_phrase(text: str) -> str | None:
    for phrase in _PHRASES:
        last = _last(phrase, text)
        if last is not None:
            answer = _statement(text[last.end() : last.end() + _PHRASE_REACH])
            if answer:
                return answer
    return None


def _statement(rest: str) -> str:
    """The answer at the start of what follows the phrase: the formula if there is one, else the words.

    Of "Final answer: the largest $n$ is 34" it is what follows the last "is".
    """
    rest = rest.lstrip(" \t\r\n*:")
    formulas = list(_MATH.finditer(rest))
    end = next((stop.start() for stop in _END.finditer(rest) if _outside(stop, formulas)), len(rest))
    verbs = [verb.end() for verb in _VERB.finditer(rest, 0, end) if _outside(verb, formulas)]
    begin = verbs[-1] if verbs else 0
    inside = [formula for formula in formulas if begin <= formula.start() < end]
    # "5 or $6$" and "$5$ or $6$" are one statement; "the ratio $6$" is the formula alone
    if inside and not re.search(r"\d", rest[begin : inside[0].start()]) and not _linked(inside, rest):
        return next(group for group in inside[0].groups() if group is not None).strip()
    return rest[begin:end].strip().strip("*").rstrip(".").strip(" \"'`")


def _outside(mark: re.Match[str], formulas: list[re.Match[str]]) -> bool:
    return not any(formula.start() < mark.start() < formula.end() for formula in formulas)


def _linked(formulas: list[re.Match[str]], text: str) -> bool:
    return len(formulas) > 1 and _LINK.fullmatch(text[formulas[0].end() : formulas[1].start()]) is not None


def _broken_box(text: str) -> str | None:
    r"""A box whose brace never closes although its formula or line does: `$\boxed{5$`. A cut-off box is no answer."""
    start = max(text.rfind("\\boxed{"), text.rfind("\\fbox{"))
    if start < 0:
        return None
    begin = text.index("{", start) + 1
    rest = re.match(r"([^$\n]*)[$\n]", text[begin : begin + _UNCLOSED_REACH])
    return rest.group(1).strip().rstrip(".") if rest else None
