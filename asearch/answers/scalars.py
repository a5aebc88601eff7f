r"""Scalars that need no algebra: numbers, letters, bases, clock times, residues, ratios; and units, which are dropped."""

from __future__ import annotations

import re
from math import gcd
from typing import TYPE_CHECKING

from asearch.answers import nodes
from asearch.answers.latex import Unreadable
from asearch.answers.nodes import Node
from asearch.answers.numbers import PROBE_SALTS, based, exact, fingerprint, point_of

if TYPE_CHECKING:
    from collections.abc import Callable

_INFINITIES = {
    r"\infty": nodes.INFINITY,
    r"+\infty": nodes.INFINITY,
    r"-\infty": nodes.MINUS_INFINITY,
}
_CONSTANTS = "iIeEjdD"  # letters that may be numbers or differentials are left to the algebra system
_RATIO = re.compile(r"\d+(?:\s*:\s*\d+)+")
_CLOCK = re.compile(
    r"(\d{1,2})\s*:\s*(\d{2})\s*(?:\\text\s*\{\s*([ap])\.?\s*m\.?\s*\}|([ap])\.?\s*m\.?)?", re.IGNORECASE
)
_RESIDUE = re.compile(
    r"(?:[a-z]\s*\\equiv\s*)?(-?\d+)\s*\(?\s*(?:\\p?(?:mod|bmod|pmod)|\\text\s*\{\s*\(?mod\s*\}|mod)"
    r"\s*[{(]?\s*(\d{1,9})\s*[)}]?\s*\)?"
)
_SCALED = re.compile(
    r"([-\d.,]+)\s*(?:\\text\s*\{)?\s*(thousand|million|billion|trillion)\s*(?:dollars|people)?\s*\}?", re.IGNORECASE
)
_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
# 3 5, 1.2.3, 1e9999, ---5, \triangle ABC: products to a parser, but not to a reader
_BROKEN = re.compile(
    r"(?:^|[^_\d.])[\d.]*\d\s+[\d.]*\d(?!\s*/\s*\d)|\.\d+\.|\d[eE][-+]?\d|[-+]\s*[-+]\s*[-+]"
    r"|\\(?:angle|triangle|square|parallel|perp|overset|underset|to|implies)(?![a-zA-Z])"
)

_UNIT_WORDS = (
    "degrees?|radians?|rad|cm|mm|km|dm|nm|meters?|metres?|feet|foot|ft|inch(?:es)?|in|yards?|yd|miles?|mi|mph|kph|kmph|"
    "kg|mg|grams?|gm|lbs?|pounds?|oz|ounces?|tons?|liters?|litres?|ml|mL|gal|gallons?|sec|secs|seconds?|mins?|minutes?|"
    "hrs?|hours?|days?|weeks?|months?|years?|yrs?|cents?|dollars?|usd|USD|rupees?|rs|Rs|euros?|sq|square|cubic|cu|units?|"
    "people|students?|ways?|times|points?|per|hz|Hz|joules?|watts?|volts?|mol|moles?"
)
# Words that change what a number says, so that they are no unit.
_MEANING = r"(?:[^{}]*[\s(])?(?:or|and|if|not|more|less|than|least|most|when|mod|remainder|R)[\s)}]"
_UNIT = (
    rf"\s*(?:\\text\s*\{{(?!{_MEANING})[^{{}}]*\}}|(?<![a-zA-Z\\])(?:{_UNIT_WORDS})(?![a-zA-Z])\.?)"
    r"\s*(?:\^\s*\{\s*-?\d\s*\})?(?:\s*[/\u00b7]|\s*\\cdot)?"
)
_UNITS_AFTER = re.compile(rf"(?:{_UNIT})+\s*$")
_NOUN_AFTER = re.compile(r"([-+]?[\d.,]+(?:\\frac\{\d+\}\{\d+\}|/\d+)?%?)\s+((?:[A-Za-z]{3,}[\s-]*)+)")
_TRIGONOMETRY = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)")
_DEGREES = re.compile(r"\s*\u00b0[\u00b0\s]*[CF]?$")
_TEXT_BEFORE = re.compile(r"^\s*\\text\s*\{[^{}]*\}\s*:?\s*(?=[-\d\\(\[])(?!\\text)")


def plain_scalar(text: str) -> Node | None:
    """The node of a scalar that needs no algebra, or None.

    Raises:
        Unreadable: the text would be misread as a product.
    """
    if (value := exact(text)) is not None:
        return nodes.number(value)
    if _BROKEN.search(text):
        raise Unreadable("numbers side by side, or a figure")
    return next((node for reader in _READERS if (node := reader(text)) is not None), None)


def without_unit(text: str) -> str | None:
    """What is left of a quantity without its unit, noun or label; None if it has none."""
    bare = _UNITS_AFTER.sub("", _TEXT_BEFORE.sub("", text, count=1)).rstrip()
    if not _TRIGONOMETRY.search(bare):  # sin 30 degrees is not sin 30
        bare = _DEGREES.sub("", bare)
    if match := _NOUN_AFTER.fullmatch(bare):
        bare = match.group(1)
    bare = bare.removesuffix("^")
    return bare if bare and bare != text and re.search(r"[\d\\a-zA-Z]", bare) else None


def _infinity(text: str) -> Node | None:
    return _INFINITIES.get(text.replace(" ", ""))


def letter(text: str) -> Node | None:
    """A variable, with the fingerprint that the algebra system would find for it."""
    if not re.fullmatch(r"[a-zA-Z]", text) or text in _CONSTANTS:
        return None
    probe = "@" + ",".join(fingerprint(point_of(text, salt)) for salt in PROBE_SALTS)
    return Node("expression", text, fingerprint=probe)


def _in_base(text: str) -> Node | None:
    found = based(text)
    if found is None:
        return None
    digits, base = found
    return plain_scalar(digits) if base == 10 else Node("base", f"{digits}_{base}")


def _clock(text: str) -> Node | None:
    match = _CLOCK.fullmatch(text)
    if match is None:
        return None
    half = (match.group(3) or match.group(4) or "").lower()
    return nodes.text(f"{int(match.group(1))}:{match.group(2)}{half}")


def _residue(text: str) -> Node | None:
    match = _RESIDUE.fullmatch(text)
    if match is None:
        return None
    number, modulus = exact(match.group(1)), int(match.group(2))
    if number is None or not modulus:
        raise Unreadable("a residue")
    return Node("residue", f"{number.numerator % modulus} mod {modulus}")


def _scaled(text: str) -> Node | None:
    match = _SCALED.fullmatch(text)
    value = exact(match.group(1)) if match else None
    return None if match is None or value is None else nodes.number(value * _SCALES[match.group(2).lower()])


def _ratio(text: str) -> Node | None:
    if not _RATIO.fullmatch(text):
        return None
    terms = [int(term) for term in re.findall(r"\d+", text)]
    return Node("ratio", ":".join(str(term // (gcd(*terms) or 1)) for term in terms))


_READERS: tuple[Callable[[str], Node | None], ...] = (_infinity, letter, _in_base, _clock, _residue, _scaled, _ratio)
