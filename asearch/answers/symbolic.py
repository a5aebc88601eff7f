r"""Scalars through sympy: parse, evaluate within bounds, one canonical form, numeric fingerprints, bounded proofs.

Only `Latex` reads model output, and it builds expressions node by node: nothing here (or below) hands a string to sympify
or parse_expr, which would run it as Python. This module is imported only where mathematics is done: in a worker process,
or when a synchronous caller asks for it.
"""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import sympy
from latex2sympy2_extended.latex2sympy2 import ConversionConfig, _Latex2Sympy, comma_number_regex
from sympy.core.function import AppliedUndef

from asearch.answers import nodes
from asearch.answers.latex import Unreadable
from asearch.answers.nodes import Node
from asearch.answers.numbers import MAX_DIGITS, PROBE_SALTS, fingerprint_decimal, point_of

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_BITS = 20_000  # of an integer that evaluation may produce
MAX_FACTORIAL = 500
MAX_OPERATIONS = 250  # beyond, an expression is only evaluated, not expanded
MAX_EXPANDED_POWER = 16
_CONFIG = ConversionConfig(lowercase_symbols=False, interpret_as_mixed_fractions=False)
_FUNCTION_NAMES = frozenset("fghFGHPpTLuvw")
_TO_DO = (
    sympy.Sum, sympy.Product, sympy.Integral, sympy.Derivative, sympy.Limit, sympy.MatAdd, sympy.MatMul, sympy.MatPow,
)  # fmt: skip
_LONE_I = re.compile(r"(?<![\\a-zA-Z])i(?![a-zA-Z])")
_MIXED_NUMBER = re.compile(r"(?<![\d.^_{}])(\d{1,9})\s*\\frac\{(\d{1,9})\}\{(\d{1,9})\}")
_NUMBER = re.compile(r"(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d{1,3})?", re.ASCII)
_RELATIONS = {"<": "<", r"\le": "<=", ">": ">", r"\ge": ">=", "=": "=", r"\ne": "!="}
_MIRRORED = {">": "<", ">=": "<="}


class Latex(_Latex2Sympy):  # type: ignore[misc]  # no stubs
    """latex2sympy2_extended's parser with numbers read as numbers: upstream hands them to sympify, which evaluates.

    A private class, because the public function has no way in; a test notices if it changes.
    """

    def parse(self, latex_str: str) -> Any:
        if comma_number_regex.match(latex_str):
            return self.parse_number(latex_str.strip())
        return super().parse(latex_str)

    def parse_number(self, text: str) -> Any:
        digits = text.replace(",", "")
        if not _NUMBER.fullmatch(digits) or len(digits) > MAX_DIGITS:
            raise Unreadable("not a number")
        return sympy.Integer(int(digits)) if digits.isdecimal() else sympy.Float(digits)


class Symbolic:
    """Reads scalars and relations by sympy (the `Scalar` of the full path)."""

    def expression(self, text: str) -> Node:
        return node_of(parse(text))

    def matrix(self, text: str) -> Node:
        return node_of(parse(text))

    def relation(self, parts: Sequence[str], operators: Sequence[str]) -> Node:
        if any(op not in _RELATIONS for op in operators):
            raise Unreadable(f"the relation {operators[0]}")
        sides = [parse(part) for part in parts]
        if any(not isinstance(side, sympy.Expr) for side in sides):
            raise Unreadable("a relation between things that are no scalars")
        signs = [_RELATIONS[op] for op in operators]
        if signs == ["="]:
            return equation(sides[0], sides[1])
        if any(sign == "=" for sign in signs):
            raise Unreadable("a chain of equations and inequalities")
        return inequalities(sides, signs)


@lru_cache(maxsize=512)
def parse(text: str) -> Any:
    """A sympy expression or matrix, evaluated within bounds.

    Raises:
        Unreadable: latex2sympy cannot parse it, or its value is out of bounds or undefined.
    """
    if r"\text" in text:
        raise Unreadable("words in the middle")
    if re.search(r"\\(?:sum|prod)_\{?\s*i\s*=", text):  # an index, no imaginary unit
        text = _LONE_I.sub(next((name for name in "kjmnpq" if name not in text), "k"), text)
    latex = _MIXED_NUMBER.sub(_improper, text.replace("\u00b0", r"^{\circ}").removeprefix("+"))
    try:
        value = evaluated(Latex(is_real=True, convert_degrees=True, config=_CONFIG).parse(latex))
    except (Unreadable, MemoryError):
        raise
    except Exception as failure:  # the parser raises bare Exceptions, and whatever sympy makes of bad trees
        raise Unreadable(f"not parsed: {type(failure).__name__}") from failure
    if not isinstance(value, (sympy.Expr, sympy.MatrixBase)) or value.has(sympy.nan, sympy.zoo):
        raise Unreadable("undefined")
    return value


def _improper(match: re.Match[str]) -> str:
    r"""2\frac{1}{3} as one fraction; with an improper fraction it is a product."""
    whole, top, bottom = (int(group) for group in match.groups())
    return (
        rf"\frac{{{whole * bottom + top}}}{{{bottom}}}"
        if 0 < top < bottom
        else rf"{whole}\cdot\frac{{{top}}}{{{bottom}}}"
    )


def evaluated(tree: Any) -> Any:
    """The tree with every node evaluated, from the leaves up; refuses values that would not fit."""
    if isinstance(tree, sympy.MatrixBase):
        return tree.applyfunc(evaluated)
    if isinstance(tree, sympy.Float):
        return sympy.Rational(str(tree))
    if isinstance(tree, sympy.Symbol):
        return sympy.I if tree.name == "i" else tree
    if not isinstance(tree, sympy.Basic) or not tree.args:
        return tree
    return _rebuilt(tree, [evaluated(arg) for arg in tree.args])


def _rebuilt(tree: Any, args: list[Any]) -> Any:
    """A node of the same kind with evaluated arguments."""
    if isinstance(tree, sympy.UnevaluatedExpr):
        return args[0]
    if isinstance(tree, sympy.Pow):
        return power(*args)
    if (
        isinstance(tree, sympy.factorial)
        and args[0].is_number
        and not (args[0].is_Integer and args[0] <= MAX_FACTORIAL)
    ):
        raise Unreadable("a factorial that is too large")
    if isinstance(tree, AppliedUndef) and len(args) == 1 and _is_product(tree.func.__name__):
        return sympy.Symbol(tree.func.__name__, real=True) * args[0]
    rebuilt = tree.func(*args)
    return rebuilt.doit() if isinstance(tree, _TO_DO) else rebuilt


def power(base: Any, exponent: Any) -> Any:
    """The power, unless the digits would not fit."""
    if getattr(base, "is_number", False) and getattr(exponent, "is_number", False):
        if base.is_Rational and exponent.is_Rational:
            bits = max(abs(int(base.p)).bit_length(), int(base.q).bit_length())
            if bits > 1 and abs(exponent) * bits > MAX_BITS:
                raise Unreadable("a power that is too large")
        elif exponent.is_Integer and abs(exponent) > MAX_BITS:
            raise Unreadable("a power that is too large")
    return base**exponent


def _is_product(name: str) -> bool:
    return len(name) == 1 and name not in _FUNCTION_NAMES


def node_of(value: Any) -> Node:
    """The node of an evaluated expression or matrix."""
    if isinstance(value, sympy.MatrixBase):
        rows, columns = value.shape
        return nodes.matrix([[node_of(value[i, j]) for j in range(columns)] for i in range(rows)])
    form = canonical_expression(value)
    if form.is_Rational:
        return nodes.number(Fraction(int(form.p), int(form.q)))
    if form in (sympy.oo, -sympy.oo):
        return nodes.INFINITY if form is sympy.oo else nodes.MINUS_INFINITY
    if form.has(sympy.nan, sympy.zoo, sympy.oo):
        raise Unreadable("undefined")
    return Node("expression", str(form), value, fingerprint=fingerprint_of(value))


def canonical_expression(value: Any) -> Any:
    """One form for what elementary algebra makes equal: denominators rationalised, products expanded, cancelled."""
    if value.is_Atom or sympy.count_ops(value) > MAX_OPERATIONS or _has_large_power(value):
        return value
    try:
        if value.free_symbols:
            top, bottom = sympy.fraction(sympy.cancel(sympy.together(value)))
            return sympy.expand(top) / sympy.expand(bottom)
        return sympy.expand(sympy.radsimp(value))
    except (ArithmeticError, AttributeError, NotImplementedError, TypeError, ValueError, sympy.PolynomialError):
        return value


def _has_large_power(value: Any) -> bool:
    return any(
        p.exp.is_Integer and abs(p.exp) > MAX_EXPANDED_POWER and not p.base.is_Atom for p in value.atoms(sympy.Pow)
    )


def fingerprint_of(value: Any) -> str:
    """The value at fixed positive points of its symbols, to 15 digits; "" where it has none.

    A constant has one value, spelled as for plain numbers, so that sin^2 x + cos^2 x can meet 1.
    """
    try:
        values = [_spelled(_at_point(value, salt)) for salt in (PROBE_SALTS if value.free_symbols else PROBE_SALTS[:1])]
    except (ArithmeticError, AttributeError, InvalidOperation, NotImplementedError, TypeError, ValueError):
        return ""
    return values[0] if len(set(values)) == 1 else "@" + ",".join(values)


def _at_point(value: Any, salt: bytes) -> Any:
    points = {}
    for symbol in value.free_symbols:
        at = point_of(symbol.name, salt)
        points[symbol] = sympy.Rational(at.numerator, at.denominator)
    return value.subs(points).evalf(30)


def _spelled(value: Any) -> str:
    real, imaginary = value.as_real_imag()
    parts = []
    for part in (real, imaginary):
        if not part.is_Number or not part.is_finite:
            raise ValueError("no numeric value")
        parts.append(fingerprint_decimal(Decimal(str(part))))
    return parts[0] if parts[1] == "0" else f"{parts[0]}+{parts[1]}i"


def equation(left: Any, right: Any) -> Node:
    """An equation up to scale and side; a linear one in a single unknown is its solution."""
    difference = left - right
    unknowns = sorted(difference.free_symbols, key=str)
    if not unknowns:
        return node_of(right)
    polynomial = _polynomial(sympy.numer(sympy.together(difference)), unknowns)
    if polynomial is None:
        key = min(str(sympy.expand(difference)), str(sympy.expand(-difference)))
        return Node("relation", f"{key}=0")
    if len(unknowns) == 1 and polynomial.degree() == 1:
        a, b = polynomial.all_coeffs()
        return node_of(sympy.radsimp(-b / a))
    _, primitive = polynomial.primitive()
    if primitive.LC().could_extract_minus_sign():
        primitive = -primitive
    return Node("relation", f"{primitive.as_expr()}=0")


def _polynomial(expression: Any, unknowns: Sequence[Any]) -> Any:
    try:
        return sympy.Poly(sympy.expand(expression), *unknowns)
    except (sympy.PolynomialError, ArithmeticError, TypeError, ValueError):
        return None


def inequalities(sides: Sequence[Any], signs: Sequence[str]) -> Node:
    """A chain of inequalities; in one unknown it is the set of its solutions."""
    links = [_link(a, b, sign) for (a, b), sign in zip(pairwise(sides), signs, strict=True)]
    key = "&".join(sorted(link for link, _ in links))
    unknowns = set().union(*(side.free_symbols for side in sides))
    if len(unknowns) == 1:
        solved = _solved([relation for _, relation in links], unknowns.pop())
        if solved is not None:
            return solved
    return Node("relation", key)


def _link(left: Any, right: Any, sign: str) -> tuple[str, Any]:
    """A canonical key `expression < 0` and sympy's relation."""
    if sign in _MIRRORED:
        left, right, sign = right, left, _MIRRORED[sign]
    difference = sympy.expand(left - right)
    polynomial = _polynomial(difference, sorted(difference.free_symbols, key=str)) if difference.free_symbols else None
    if polynomial is not None:
        difference = polynomial.primitive()[1].as_expr()
    kinds = {"<": sympy.StrictLessThan, "<=": sympy.LessThan, "!=": sympy.Unequality}
    if sign == "!=":
        difference = min(difference, -difference, key=str)
    return f"{difference}{sign}0", kinds[sign](left, right)


def _solved(relations: Sequence[Any], unknown: Any) -> Node | None:
    try:
        found = sympy.S.Reals
        for relation in relations:
            if relation in (True, False, sympy.true, sympy.false):
                return None
            found = found.intersect(sympy.solve_univariate_inequality(relation, unknown, relational=False))
        return _region_of(found)
    except (NotImplementedError, AttributeError, TypeError, ValueError, sympy.PolynomialError):
        return None


def _region_of(found: Any) -> Node | None:
    pieces = []
    for part in found.args if isinstance(found, sympy.Union) else (found,):
        if isinstance(part, sympy.Interval):
            ends = node_of(part.start), node_of(part.end)
            pieces.append(nodes.Piece(*ends, low_open=bool(part.left_open), high_open=bool(part.right_open)))
        elif isinstance(part, sympy.FiniteSet):
            pieces.extend(nodes.point(node_of(element)) for element in part)
        elif part is not sympy.S.EmptySet:
            return None
    return nodes.region(pieces)


def proved_equal(a: Node, b: Node) -> bool:
    """Whether two nodes are equal, by proof. False means: not proved."""
    if a.key == b.key:
        return True
    scalars = ("number", "expression")
    if a.kind in scalars and b.kind in scalars:
        return a.probe == b.probe and _is_zero(_value(a) - _value(b))
    if not a.children or len(a.children) != len(b.children) or a.shape != b.shape:
        return False
    left, right = a.children, b.children
    if a.kind == "set":
        left, right = sorted(left, key=lambda n: n.probe), sorted(right, key=lambda n: n.probe)  # type: ignore[assignment]
    return all(proved_equal(x, y) for x, y in zip(left, right, strict=True))


def _value(node: Node) -> Any:
    if node.kind == "number":
        return sympy.Rational(node.value.numerator, node.value.denominator)
    return sympy.Symbol(node.key, real=True) if node.value is None else node.value


def _is_zero(difference: Any) -> bool:
    """Cheap proofs first; each is sound, none is complete."""
    for attempt in (sympy.expand, sympy.simplify, sympy.combsimp, _trigonometric, _by_minimal_polynomial):
        try:
            if attempt(difference) == 0:
                return True
        except (ArithmeticError, AttributeError, NotImplementedError, TypeError, ValueError, sympy.PolynomialError):
            continue
    return False


def _trigonometric(difference: Any) -> Any:
    return sympy.simplify(sympy.expand_trig(sympy.expand_log(difference)).rewrite(sympy.exp))


def _by_minimal_polynomial(difference: Any) -> Any:
    """An algebraic number is zero if and only if its minimal polynomial is x."""
    if difference.free_symbols or not difference.is_algebraic:
        return difference
    unknown = sympy.Dummy("x")
    return 0 if sympy.minimal_polynomial(difference, unknown) == unknown else difference
