"""Exact numbers as people write them, without a computer algebra system.

Decimals are exact: 0.5 is 1/2, and 0.333 is not 1/3.
"""

from __future__ import annotations

import re
import zlib
from decimal import Context, Decimal
from fractions import Fraction
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_DIGITS = 1_000
MAX_EXPONENT = 400

_PLAIN = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d*)?|\d{1,3}(?: \d{3})+(?:\.\d*)?|\d+(?:\.\d*)?|\.\d+")
_REPEATING = re.compile(r"(\d*)\.(\d*)\\(?:overline|bar|dot)\s*\{\s*(\d+)\s*\}")
_FRACTION = re.compile(r"\\frac\{\s*([-+]?)\s*([^{}]+?)\s*\}\{\s*([-+]?)\s*([^{}]+?)\s*\}|([^/\s]+?)\s*/\s*([^/\s]+)")
_MIXED = re.compile(r"(\d+)\s*(?:\\frac\{\s*(\d+)\s*\}\{\s*(\d+)\s*\}|(?<=\s)(\d+)\s*/\s*(\d+))")
_SCIENTIFIC = re.compile(r"(?:(.+?)\s*\\cdot\s*)?10\s*\^\s*\{\s*([-+]?\d{1,4})\s*\}|([\d.,]+)[eE]([-+]?\d{1,4})")
_BASED = re.compile(r"[({]?([0-9A-Za-z ]+?)[)}]?\s*_\s*(?:\{\s*(?:\\text\s*\{\s*)?(\w+)\s*\}?\s*\}|(\d))")
_BASE_NAMES = {
    "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10, "eleven": 11,
    "twelve": 12, "sixteen": 16,
}  # fmt: skip
_PROBE = Context(prec=40)
PROBE_SALTS = (b"first", b"second")


def exact(text: str) -> Fraction | None:
    """The number that a tidy text without units spells out, or None."""
    text = text.strip()
    if len(text) > MAX_DIGITS:
        return None
    sign = 1
    while text[:1] in ("-", "+"):
        sign = -sign if text[0] == "-" else sign
        text = text[1:].lstrip()
    value = _unsigned(text)
    return None if value is None else sign * value


def _unsigned(text: str) -> Fraction | None:
    if text.endswith("%"):
        value = _unsigned(text[:-1].rstrip())
        return None if value is None else value / 100
    if _PLAIN.fullmatch(text):
        return plain(text)
    return next((read(match) for pattern, read in _FORMS if (match := pattern.fullmatch(text))), None)


def plain(text: str) -> Fraction:
    """Digits with an optional point and thousands separators."""
    return Fraction(text.replace(",", "").replace(" ", "").rstrip("."))


def _mixed(match: re.Match[str]) -> Fraction | None:
    r"""A mixed number has a proper fraction; 2\frac{3}{2} is a product."""
    whole, top, bottom = (int(group) for group in match.groups() if group is not None)
    return whole + Fraction(top, bottom) if 0 < top < bottom else None


def _repeating(match: re.Match[str]) -> Fraction:
    """A repeating decimal such as 0.1(6) = 1/6."""
    whole, fixed, period = match.groups()
    scale = 10 ** len(fixed)
    head = int((whole or "0") + fixed)
    return Fraction(head, scale) + Fraction(int(period), scale * (10 ** len(period) - 1))


def _quotient(match: re.Match[str]) -> Fraction | None:
    sign_a, a, sign_b, b, c, d = match.groups()
    top, bottom = (a, b) if a is not None else (_unbraced(c), _unbraced(d))
    if not (_PLAIN.fullmatch(top) and _PLAIN.fullmatch(bottom)):
        return None
    divisor = plain(bottom)
    if divisor == 0:
        return None
    return plain(top) / divisor * (-1 if (sign_a == "-") != (sign_b == "-") else 1)


def _unbraced(text: str) -> str:
    return text[1:-1].strip() if text[:1] in "{(" and text[-1:] in "})" else text


def _scientific(match: re.Match[str]) -> Fraction | None:
    mantissa = match.group(1) or match.group(3) or "1"
    exponent = int(match.group(2) or match.group(4))
    if not _PLAIN.fullmatch(mantissa) or abs(exponent) > MAX_EXPONENT:
        return None
    return plain(mantissa) * Fraction(10) ** exponent


_FORMS: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], Fraction | None]], ...] = (
    (_MIXED, _mixed),
    (_REPEATING, _repeating),
    (_FRACTION, _quotient),
    (_SCIENTIFIC, _scientific),
)


def based(text: str) -> tuple[str, int] | None:
    """The digits and the base of 11_2, (11)_{2} or 2F_{16}, or None."""
    match = _BASED.fullmatch(text)
    if match is None:
        return None
    name = match.group(2) or match.group(3)
    base = int(name) if name.isdigit() else _BASE_NAMES.get(name.lower(), 0)
    digits = match.group(1).replace(" ", "").upper()
    try:
        int(digits, base if 2 <= base <= 36 else -1)
    except ValueError:
        return None
    if not digits[0].isdigit() and base <= 10:
        return None
    return digits.lstrip("0") or "0", base


def point_of(name: str, salt: bytes) -> Fraction:
    """The positive value that stands for a symbol when an expression is probed; two salts give two points."""
    return Fraction(zlib.crc32(salt + name.encode()) % 9973 + 1009, 7919)


def fingerprint(value: Fraction) -> str:
    """The value to 15 digits, spelled like `fingerprint_decimal` spells the value of an expression."""
    return fingerprint_decimal(_PROBE.divide(Decimal(value.numerator), Decimal(value.denominator)))


def fingerprint_decimal(value: Decimal) -> str:
    """15 significant digits; rounding errors below 1e-25 are zero."""
    if abs(value) < Decimal("1e-25"):
        return "0"
    return f"{value:.14e}"
