r"""Tidy LaTeX: one spelling for what people and models write in many, without changing what it means.

Every rule is a linear pass over a text of bounded length. What comes out is still LaTeX, with one name for each relation
and fraction, braces around every argument, and no spacing, sizing or dollar signs.
"""

from __future__ import annotations

import re

# Longer, or more deeply nested, is not an answer; it stays text. The longest answer of MATH has under 200 characters.
MAX_LENGTH = 2_000
MAX_DEPTH = 40
AND, OR = "\ue000", "\ue001"  # one character each for the separators that are words

_SYMBOLS = str.maketrans(
    {
        "\u2212": "-", "\u2013": "-", "\u2014": "-", "\u2010": "-", "\u2011": "-",
        "\u00d7": r"\times ", "\u00b7": r"\cdot ", "\u22c5": r"\cdot ", "\u2217": "*", "\u00f7": "/", "\u2044": "/",
        "\u03c0": r"\pi ", "\u03b8": r"\theta ", "\u03b1": r"\alpha ", "\u03b2": r"\beta ", "\u221e": r"\infty ",
        "\u00b0": r"^\circ ", "\u00ba": r"^\circ ", "\u2264": r"\le ", "\u2265": r"\ge ", "\u2260": r"\ne ",
        "\u2248": r"\approx ", "\u00b1": r"\pm ", "\u2213": r"\mp ", "\u222a": r"\cup ", "\u2229": r"\cap ",
        "\u2208": r"\in ", "\u2205": r"\emptyset ", "\u211d": r"\mathbb{R}", "\u221a": r"\sqrt ",
        "\u00b2": "^{2}", "\u00b3": "^{3}", "\u00b9": "^{1}", "\u2074": "^{4}", "\u2075": "^{5}", "\u2076": "^{6}",
        "\u00bd": r"\frac{1}{2}", "\u00bc": r"\frac{1}{4}", "\u00be": r"\frac{3}{4}", "\u2153": r"\frac{1}{3}",
        "\u2154": r"\frac{2}{3}", "\u00a0": " ", "\u2009": " ", "\u202f": " ", "\u200b": "", "\ufeff": "",
        "\u20ac": "", "\u00a3": "", "\u00a5": "", "\u20b9": "", "\u2019": "'", "\u2018": "'", "\u201c": '"',
        "\u201d": '"', "\u27e8": r"\langle ", "\u27e9": r"\rangle ", "\u2016": "|", "\t": " ", "\n": " ", "\r": " ",
        AND: " ", OR: " ",
    }
)  # fmt: skip

# In order; each pattern is linear. (?![a-zA-Z]) ends a command name.
_RULES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        # a doubled backslash before a command, outside matrices (models copy JSON escapes); handled only there
        (r"\\(?:left|right|[bB]igg?[lrm]?|middle)(?![a-zA-Z])\s*\.?(?=[\s()\[\]{}|\\.<>]|$)", ""),
        (r"\\(?:displaystyle|textstyle|scriptstyle|limits|nolimits|strut|mathstrut|bf|rm|it|tt|sf)(?![a-zA-Z])", " "),
        (r"\\(?:boxed|fbox|framebox|ensuremath|mathstrut)\s*(?=\{)", ""),
        (r"\\(?:hspace|vspace|phantom|hphantom|vphantom|label|tag)\*?\s*\{[^{}]{0,40}\}", " "),
        # thousands: 10,\!080  1{,}000  1\,000 (the last only before exactly three digits)
        (r"(?<=\d)\s*(?:\{\s*,\s*\}|,\s*\\!|\{,\\!\})\s*(?=\d)", ""),
        (r"(?<=\d)\\[,;: ](?=\d{3}(?!\d))", ""),
        (r"(?<!\\)((?:\\\\)*)\\[()\[\]](?!\s*\d+(?:pt|em|ex))", r"\1 "),
        (r"(?<!\\)((?:\\\\)*)\\\$", r"\1"),
        (r"\$", " "),
        (r"(?<!\\)((?:\\\\)*)\\[,;:!> ]", r"\1 "),
        (r"~|\\(?:quad|qquad|enspace|enskip|thinspace|negthinspace|space|newline|hfill|nobreakspace)(?![a-zA-Z])", " "),
        (r"\\[dtc]frac(?![a-zA-Z])", r"\\frac"),
        (r"\\(?:text(?:bf|it|rm|normal|sc|sf|tt|up|md|sl)|mathrm|mathsf|mathtt|mathnormal|mbox|hbox|emph)\s*(?=\{)", r"\\text"),
        (r"\\(?:mathbf|mathit|mathcal|mathscr|mathfrak|boldsymbol|bm|vec|overrightarrow|hat|widehat|bold|unit|underline)\s*(?=\{)", ""),
        (r"\\(?:mathbf|mathit|mathcal|vec|boldsymbol|hat)\s+(?=[a-zA-Z])", ""),
        (r"\\operatorname\*?\s*\{\s*(arc)?(sin|cos|tan|cot|sec|csc)\s*\}", r"\\\1\2 "),
        (r"\\operatorname\*?\s*\{\s*(ln|log|exp|det|max|min|gcd)\s*\}", r"\\\1 "),
        (r"\\(?:leqslant|leqq|leq)(?![a-zA-Z])|<=|=<|&le;", r"\\le "),
        (r"\\(?:geqslant|geqq|geq)(?![a-zA-Z])|>=|&ge;", r"\\ge "),
        (r"\\neq(?![a-zA-Z])|!=|\\not\s*=", r"\\ne "),
        (r"\\lt(?![a-zA-Z])|&lt;", "<"),
        (r"\\gt(?![a-zA-Z])|&gt;", ">"),
        (r"\\(?:approxeq|simeq|doteq)(?![a-zA-Z])|~=", r"\\approx "),
        (r"\\(?:lbrace|lgroup)(?![a-zA-Z])", r"\\{"),
        (r"\\(?:rbrace|rgroup)(?![a-zA-Z])", r"\\}"),
        (r"\\lbrack(?![a-zA-Z])", "["),
        (r"\\rbrack(?![a-zA-Z])", "]"),
        (r"\\lparen(?![a-zA-Z])", "("),
        (r"\\rparen(?![a-zA-Z])", ")"),
        (r"\\(?:lvert|rvert|vert|mid)(?![a-zA-Z])", "|"),
        (r"\\(?:varnothing|empty)(?![a-zA-Z])", r"\\emptyset"),
        (r"\\Reals(?![a-zA-Z])|\\R(?![a-zA-Z])", r"\\mathbb{R}"),
        (r"\\bigcup(?![a-zA-Z])", r"\\cup "),
        (r"\\(?:bigcap)(?![a-zA-Z])", r"\\cap "),
        (r"\\(?:backslash|smallsetminus)(?![a-zA-Z])", r"\\setminus "),
        (r"\\infin(?![a-zA-Z])|(?<![\\a-zA-Z])(?:infinity|infty|inf)(?![a-zA-Z])", r"\\infty "),
        (r"(?<![\\a-zA-Z])pi(?![a-zA-Z])", r"\\pi "),
        (r"\^\s*\{?\s*\\(?:circ|degree)(?![a-zA-Z])\s*\}?|\\(?:degree|deg|textdegree)(?![a-zA-Z])", "\u00b0"),
        (r"(?<=[\d}])\s*\\circ(?![a-zA-Z])", "\u00b0"),
        (r"\\%|\\text\s*\{\s*(?:percent(?:age)?|pct|\\?%)\s*\.?\}|(?<![a-zA-Z\\{])(?:percent(?:age)?|pct)(?![a-zA-Z])", "%"),
        (r"\\(?:times|cdot|ast|star)(?![a-zA-Z])", r"\\cdot "),
        (r"\\div(?![a-zA-Z])", "/"),
        (r"\*\*", "^"),
        (r"(?<!\\)\*", r"\\cdot "),
        (r"\\(?:colon|ratio)(?![a-zA-Z])", ":"),
        (r"\\text\s*\{\s*,?\s*(?:and|&)\s*,?\s*\}|\\(?:land|wedge)(?![a-zA-Z])", AND),
        (r"\\text\s*\{\s*,?\s*or\s*,?\s*\}|\\(?:lor|vee)(?![a-zA-Z])", OR),
        (r"\{\s*([^{}]{1,200}?)\s*\\over(?![a-zA-Z])\s*([^{}]{1,200}?)\s*\}", r"\\frac{\1}{\2}"),
        (r"\{\s*([^{}]{1,200}?)\s*\\choose(?![a-zA-Z])\s*([^{}]{1,200}?)\s*\}", r"\\binom{\1}{\2}"),
        (r"\\[dt]binom(?![a-zA-Z])", r"\\binom"),
        (r"(?:\{\s*\})?[_^]\s*\{?\s*(\w+)\s*\}?\s*C\s*_\s*\{?\s*(\w+)\s*\}?", r"\\binom{\1}{\2}"),
        (r"(?<![a-zA-Z\\])C_\s*\{?(\d+)\}?\s*\^\s*\{?(\d+)\}?", r"\\binom{\1}{\2}"),
        (r"\\text\s*\{\s*([ie])\s*\}", r"\1"),
        (r"\\lg(?![a-zA-Z])", r"\\log "),
        (r"(?<![\\a-zA-Z])(sqrt|arcsin|arccos|arctan|sin|cos|tan|cot|sec|csc|ln|log|exp)(?![a-zA-Z])", r"\\\1"),
        (r"\\sqrt\s*\(([^()]{1,200})\)", r"\\sqrt{\1}"),
        (r"\^\s*\(([^()]{1,200})\)", r"^{\1}"),
        (r"\s+", " "),
    )
)  # fmt: skip
_WORD_SEPARATORS = (
    (re.compile(r"(?<=[\d)}\]|a-z])\s*,?\s+and\s+(?=[-+\d(\[\\a-z|])"), AND),
    (re.compile(r"(?<=[\d)}\]|a-z])\s*,?\s+or\s+(?=[-+\d(\[\\a-z|])"), OR),
)
_TOKEN = re.compile(r"\\begin\s*\{[^{}]*\}|\\end\s*\{[^{}]*\}|\\[a-zA-Z]+|\\.|.", re.DOTALL)
_OPENERS = {
    "(": ")",
    "[": "]",
    "{": "}",
    r"\{": r"\}",
    r"\langle": r"\rangle",
    r"\lfloor": r"\rfloor",
    r"\lceil": r"\rceil",
}
_CLOSERS = frozenset(_OPENERS.values())
_ARGUMENTS = {r"\frac": 2, r"\binom": 2, r"\sqrt": 1, "^": 1}
_TRAILING = re.compile(r"[\s.,;:*\\]+$")
_LEADING = re.compile(r"^(?:\s|[=:;,*]|\\approx(?![a-zA-Z])|\\text\s*\{\s*\}|\\Rightarrow|\\implies|\\therefore)+")


class Unreadable(ValueError):
    """The text cannot be read as mathematics; it stands for itself."""


def tidy(text: str) -> str:
    """The same answer in the one spelling that the reader understands.

    Raises:
        Unreadable: the text is too long or too deeply nested to be an answer.
    """
    if len(text) > MAX_LENGTH:
        raise Unreadable(f"{len(text)} characters are no answer")
    if r"\begin" not in text:  # a doubled backslash before a command comes from escaping twice
        text = re.sub(r"\\\\(?=[a-zA-Z({\[])", r"\\", text)
    text = _LEADING.sub("", text).rstrip("* ").translate(_SYMBOLS)
    if len(text) > MAX_LENGTH:
        raise Unreadable("too long, spelled out")
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    text = _TRAILING.sub("", _LEADING.sub("", text))
    for pattern, separator in _WORD_SEPARATORS:
        text = pattern.sub(separator, text)
    return braced("".join(balanced(tokens(text)))).strip()


def tokens(text: str) -> list[str]:
    """Commands, escaped characters, environments' begin and end, and single characters."""
    return _TOKEN.findall(text)


def depth_change(token: str) -> int:
    """+1 for what opens, -1 for what closes; brackets need not match in kind, as in the interval (3, 4]."""
    if token in _OPENERS or token.startswith(r"\begin"):
        return 1
    return -1 if token in _CLOSERS or token.startswith(r"\end") else 0


def balanced(marks: list[str]) -> list[str]:
    """Without closing brackets that nothing opened, and with what was left open closed at the end."""
    result: list[str] = []
    opened: list[str] = []
    for token in marks:
        change = depth_change(token)
        if change > 0:
            opened.append(_OPENERS.get(token, ""))
        elif change < 0:
            if not opened:
                continue
            opened.pop()
        if len(opened) > MAX_DEPTH:
            raise Unreadable("nested too deeply for an answer")
        result.append(token)
    if "" in opened:
        raise Unreadable("an environment is never closed")
    return result + opened[::-1]


def braced(text: str) -> str:
    r"""Braces around the arguments that TeX lets stand without: \frac12, \frac{1}2, \sqrt3, x^2."""
    marks = tokens(text)
    out: list[str] = []
    _copy(marks, 0, len(marks), out)
    return "".join(out)


def _copy(marks: list[str], i: int, end: int, out: list[str]) -> None:
    while i < end:
        command = marks[i]
        out.append(command)
        i += 1
        if command == r"\sqrt" and (after := _skip_spaces(marks, i)) < end and marks[after] == "[":
            close = _matching(marks, after)
            out.extend(marks[after : close + 1])
            i = close + 1
        for _ in range(_ARGUMENTS.get(command, 0)):
            i = _argument(marks, i, end, out)
        if command[0] == "\\" and command[-1].isalpha() and i < end and marks[i][0].isalpha():
            out.append(" ")


def _argument(marks: list[str], i: int, end: int, out: list[str]) -> int:
    """Copy one argument with braces around it and return where it ends."""
    i = _skip_spaces(marks, i)
    if i >= end:
        raise Unreadable("an argument is missing")
    if marks[i] == "{":
        stop = min(_matching(marks, i) + 1, end)
        begin, last = i + 1, stop - 1
    else:
        begin, last = i, _bare_end(marks, i, end, 3)
        stop = last
    out.append("{")
    _copy(marks, begin, last, out)
    out.append("}")
    return stop


def _bare_end(marks: list[str], i: int, end: int, depth: int) -> int:
    """Where an argument without braces ends: one token, with its own arguments, and a sign before it."""
    if depth == 0:
        raise Unreadable("arguments without braces, nested too deeply")
    if marks[i] in "+-" and i + 1 < end:
        i += 1
    first = marks[i]
    i += 1
    if first == r"\sqrt" and i < end and marks[i] == "[":
        i = _matching(marks, i) + 1
    wanted = _ARGUMENTS.get(first, 1 if first == r"\text" else 0)
    for _ in range(wanted):
        i = _skip_spaces(marks, i)
        if i < end:
            i = _matching(marks, i) + 1 if marks[i] == "{" else _bare_end(marks, i, end, depth - 1)
    return min(i, end)


def _skip_spaces(marks: list[str], i: int) -> int:
    while i < len(marks) and marks[i].isspace():
        i += 1
    return i


def _matching(marks: list[str], i: int) -> int:
    """The index of the token that closes the bracket at i."""
    depth = 0
    for j in range(i, len(marks)):
        depth += depth_change(marks[j])
        if depth == 0:
            return j
    raise Unreadable("a bracket is never closed")


def split(text: str, separators: frozenset[str]) -> tuple[list[str], list[str]]:
    """The parts between separators outside all brackets, and the separators themselves."""
    parts: list[list[str]] = [[]]
    found: list[str] = []
    depth = 0
    for token in tokens(text):
        depth += depth_change(token)
        if depth == 0 and token in separators:
            found.append(token)
            parts.append([])
        else:
            parts[-1].append(token)
    return ["".join(part).strip() for part in parts], found


def enclosed(text: str) -> tuple[str, str, str] | None:
    """(opener, inside, closer) if one pair of brackets encloses the whole text."""
    marks = tokens(text)
    if len(marks) < 2 or marks[0] not in _OPENERS or marks[-1] not in _CLOSERS:
        return None
    if _matching(marks, 0) != len(marks) - 1:
        return None
    return marks[0], "".join(marks[1:-1]).strip(), marks[-1]
