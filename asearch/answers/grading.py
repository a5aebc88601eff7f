"""Compare an answer with a reference, for evaluation: our canonical forms first, then math-verify's comparison.

Of math-verify only `verify` is used, on expressions that our own reader made. Its parser is left alone: for plain
expressions it runs text as Python, and its timeouts use signals. Grade in a worker process where a deadline is wanted.
"""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from fractions import Fraction
from typing import Any

import sympy
from latex2sympy2_extended.latex2sympy2 import ConversionConfig
from latex2sympy2_extended.math_normalization import NormalizationConfig, normalize_latex
from math_verify.grader import should_treat_as_complex, verify
from math_verify.parser import get_last_eq

from asearch.answers import meaning, same
from asearch.answers.extraction import extract
from asearch.answers.latex import MAX_LENGTH, Unreadable, tidy
from asearch.answers.symbolic import Latex, evaluated

logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that its timeouts are off
_NORMAL = NormalizationConfig(units=True, malformed_operators=True, nits=True, boxed="none")
_UPSTREAM = ConversionConfig()
_ROUNDING = 6  # decimal places at which a decimal stands for an exact number, as in math-verify
_RELATIVE = Fraction(1, 10_000)

_FORMULA = re.compile(r"\$\$(.+?)\$\$|(?<!\\)\$((?:\\.|[^$\\])+)\$|\\\[(.+?)\\\]|\\\((.+?)\\\)", re.DOTALL)
_COMMANDS = re.compile(r"\\text[a-z]*\s*\{[^{}]*\}|\\mbox\s*\{[^{}]*\}|\\[a-zA-Z]+")
_SENTENCE = re.compile(r"[A-Za-z]{2,}[ ,:]+[A-Za-z]{2,}|^\s*[A-Za-z]{3,}\s+[-\d$]|[A-Za-z]{2,}\s+\\?[$(\[]")
_MIXED = re.compile(r"[A-Za-z]{2,}:?\s*(?:\$|\\\(|\\\[)")  # words before a formula
_LAST_NUMBER = re.compile(r"(?<![\w.,])[-+]?\$?\d[\d,]*(?:\.\d+)?(?:/\d+)?(?:\s*(?:\\?%|percent|pct))?(?![\d]|\.\d)")
_DECIMAL_COMMA = re.compile(r"\s*(-?\d+),(\d+)\s*")
_NAMED = re.compile(r"\s*([a-zA-Z])\s*=\s*(.+)", re.DOTALL)
_UNITS = {
    **dict.fromkeys(("mm", "millimeter", "millimeters"), "mm"),
    **dict.fromkeys(("cm", "centimeter", "centimeters", "centimetre", "centimetres"), "cm"),
    **dict.fromkeys(("m", "meter", "meters", "metre", "metres"), "m"),
    **dict.fromkeys(("km", "kilometer", "kilometers", "kilometre", "kilometres"), "km"),
    **dict.fromkeys(("in", "inch", "inches"), "in"),
    **dict.fromkeys(("ft", "foot", "feet"), "ft"),
    **dict.fromkeys(("yd", "yard", "yards"), "yd"),
    **dict.fromkeys(("mi", "mile", "miles"), "mi"),
    **dict.fromkeys(("g", "gram", "grams"), "g"),
    **dict.fromkeys(("kg", "kilogram", "kilograms"), "kg"),
    **dict.fromkeys(("s", "sec", "second", "seconds"), "s"),
    **dict.fromkeys(("min", "minute", "minutes"), "min"),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), "h"),
    **dict.fromkeys(("day", "days"), "day"),
    **dict.fromkeys(("week", "weeks"), "week"),
    **dict.fromkeys(("month", "months"), "month"),
    **dict.fromkeys(("year", "years"), "year"),
    **dict.fromkeys(("cent", "cents"), "cent"),
    **dict.fromkeys(("dollar", "dollars"), "dollar"),
    **dict.fromkeys(("degree", "degrees"), "degree"),
    **dict.fromkeys(("radian", "radians", "rad"), "radian"),
}  # fmt: skip
_UNIT_AFTER = re.compile(
    r"[\d}]\s*(?:\\(?:text|mbox|mathrm|textrm|textnormal)\s*\{\s*)?([A-Za-z]+)\s*\.?\}?(?:\^\{?\d\}?)?\s*\$?\s*$"
)


def is_right(answer: str | None, reference: str) -> bool:
    """Whether the answer, or the answer that a solution states, equals the reference."""
    if answer is None or not answer.strip() or not reference.strip():
        return False
    reference = extract(reference) or reference
    return any(_equal(candidate, reference) for candidate in _stated(answer))


def _stated(answer: str) -> list[str]:
    """What the text may give as its answer: what it boxes or announces, else itself; and if that is a sentence, its last
    formula or else its last number.
    """
    stated = extract(answer) or answer
    if not _SENTENCE.search(_COMMANDS.sub(" ", stated)) and not _MIXED.search(stated):
        return [stated]
    formulas = [next(group for group in found.groups() if group) for found in _FORMULA.finditer(stated)]
    return [stated, *(formulas[-1:] or _LAST_NUMBER.findall(stated)[-1:])]


def _equal(answer: str, reference: str) -> bool:
    if _clash(answer, reference):
        return False
    if same(answer, reference):
        return True
    decided = _numbers(answer, reference)
    if decided is None:
        decided = _words(answer, reference)
    return _verified(answer, reference) if decided is None else decided


def _clash(answer: str, reference: str) -> bool:
    """Whether both say something different beside the value: another unknown, or another unit."""
    named = _NAMED.fullmatch(answer.strip(" $")), _NAMED.fullmatch(reference.strip(" $"))
    if named[0] and named[1] and named[0].group(1).lower() != named[1].group(1).lower():
        value = meaning(named[1].group(2))
        return value is not None and value.kind == "number"
    units = [_UNITS.get(found.group(1)) for text in (answer, reference) if (found := _UNIT_AFTER.search(text))]
    return len(units) == 2 and None not in units and units[0] != units[1]


def _numbers(answer: str, reference: str) -> bool | None:
    """The verdict on two exact numbers; None if they are not."""
    given, wanted = _exact(answer, reference), _exact(reference, answer)
    if given is None or wanted is None:
        return None
    if given == wanted:
        return True
    if _is_percent(answer) != _is_percent(reference):  # 28 for 28%: the question said which
        return _close(
            given * (100 if _is_percent(answer) else 1),
            wanted * (100 if _is_percent(reference) else 1),
            answer,
            reference,
        )
    return _close(given, wanted, answer, reference)


def _exact(text: str, other: str) -> Fraction | None:
    node = meaning(text)
    if node is not None and node.kind == "number":
        return Fraction(node.value)
    if node is not None and node.kind == "base":  # the question names the base, as it names a unit
        digits = node.key.split("_")[0]
        return Fraction(digits) if digits.isdecimal() and "_" not in other else None
    comma = _DECIMAL_COMMA.fullmatch(text.strip(" $"))
    if comma and "." in other:  # a decimal comma, where the other side writes a point
        return Fraction(".".join(comma.groups()))
    return None


def _is_percent(text: str) -> bool:
    return re.search(r"%|percent|\bpct\b", text) is not None


def _close(a: Fraction, b: Fraction, *texts: str) -> bool:
    """A decimal may stand for an exact number: equal to six places, and to four digits if it is small."""
    if a == b:
        return True
    if not any("." in text for text in texts):
        return False
    return round(a, _ROUNDING) == round(b, _ROUNDING) and abs(a - b) <= _RELATIVE * max(abs(a), abs(b))


def _words(answer: str, reference: str) -> bool | None:
    """The verdict where words or choices are compared with anything; None if it takes mathematics."""
    given, wanted = meaning(answer), meaning(reference)
    if given is None or wanted is None:
        return None
    if given.kind == wanted.kind == "text":
        return given.key == wanted.key
    if "base" in (given.kind, wanted.kind):
        return False
    if re.fullmatch(r"\(?[A-Z]\)?", re.sub(r"\\text\s*\{([^{}]*)\}", r"\1", reference.strip(" $."))):
        letter = re.sub(r"[^A-Za-z]", "", re.sub(r"\\text[a-z]*", "", answer))
        return len(letter) == 1 and letter.upper() == wanted.key
    return None


def _verified(answer: str, reference: str) -> bool:
    if max(len(answer), len(reference)) > MAX_LENGTH:
        return False
    given, wanted = _upstream(answer), _upstream(reference)
    if given is None or wanted is None:
        return False
    return bool(verify(wanted, given, float_rounding=_ROUNDING, timeout_seconds=None))


def _upstream(text: str) -> Any:
    """The expression as math-verify's parser would make it (unevaluated, lower case), or None."""
    try:
        tidy(text)  # refuses what is too long or too deep
        latex = normalize_latex(re.sub(r"(?<!\\)\$", "", text), replace(_NORMAL))
        try:
            return _parsed(latex)
        except Unreadable:
            raise
        except Exception:  # noqa: BLE001 - bare Exceptions are how that parser says no
            return _parsed(get_last_eq(latex))
    except (MemoryError, KeyboardInterrupt):
        raise
    except Exception:  # noqa: BLE001 - as above
        return None


def _parsed(latex: str) -> Any:
    parsed = Latex(is_real=not should_treat_as_complex(latex), config=_UPSTREAM).parse(latex)
    if isinstance(parsed, (sympy.Expr, sympy.MatrixBase)) and evaluated(parsed).has(sympy.nan, sympy.zoo):
        raise Unreadable("undefined")
    return parsed
