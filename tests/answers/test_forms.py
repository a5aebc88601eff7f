"""What answers mean: canonical forms, against MATH-500 and case by case."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asearch.answers import canonical, fast_form, group, same


def together(*answers):
    return len(group(answers)) == 1


def wrappings(answer):
    yield answer.replace(r"\frac", r"\dfrac")
    yield answer.replace("(", r"\left(").replace(")", r"\right)") if r"\left" not in answer else answer
    yield f"  {answer}  "
    yield f"${answer}$"
    yield f"{answer}."
    yield rf"\({answer}\)"


def test_math500_has_forms(math500):
    forms = [canonical(row["answer"]) for row in math500]
    assert sum(form.kind != "unread" for form in forms) >= 0.97 * len(forms)


def test_math500_under_rewrites(math500):
    for row in math500:
        assert together(row["answer"], *wrappings(row["answer"])), row["answer"]


def test_math500_answers_that_differ_stay_apart(math500):
    """Different numbers among the answers never share a group: compared through floats, an independent reading."""
    answers = sorted({row["answer"] for row in math500})
    for found in group(answers):
        values = {float(answers[i]) for i in found.members if answers[i].lstrip("-").replace(".", "", 1).isdigit()}
        assert len(values) <= 1


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("a+b", "b+a"),
        (r"(3,\pi/2)", r"(3,\frac{\pi}{2})"),
        (r"\{1,2\}", r"\{2,1\}"),
        (r"10\%", "0.1"),
        ("6/8", "3/4"),
        ("x=5", "5"),
        (r"\frac{1}{\sqrt3}", r"\frac{\sqrt3}{3}"),
        (r"\sin^2 x+\cos^2 x", "1"),
        (r"\sqrt{3+2\sqrt2}", r"1+\sqrt2"),
        (r"\pm 2", r"\{2,-2\}"),
        (r"(1,\sqrt{4+2\sqrt3})", r"(1,1+\sqrt3)"),
        (r"x\in(2,\infty)", "x>2"),
        ("5 million", "5,000,000"),
        (r"\log_2 8", "3"),
        (r"\frac{\pi}{3}+2k\pi, k \in \mathbb{Z}", r"2k\pi+\frac{\pi}{3}"),
        ("1,234.5", "1234.5"),
        (r"100,200; 3", r"3, 100200"),
        (r"2\frac13\pi", r"\frac{7\pi}{3}"),
        (r"3 \pmod 7", r"n \equiv 10 \pmod{7}"),
        (r"\{x \mid x > 2\}", r"(2,\infty)"),
        (r"(-\infty,2)\cap(0,5)", "(0,2)"),
        (r"x>1\text{ and }x<3", "(1,3)"),
    ],
)
def test_equal(a, b):
    assert together(a, b)
    assert together(b, a)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (r"\pm 2", "2"),
        ("(1,2)", "(2,1)"),
        ("(3,4]", "(3,4)"),
        ("11_2", "11_3"),
        ("11_2", "3"),
        ("11_2", "11"),
        ("1,1,2", "1,2"),
        ("A", "a"),
        (r"\angle ABC", r"\angle CAB"),
        (r"6\text{ ft }2\text{ in}", "62"),
        (r"4\text{ or more}", "4"),
        ("3 5", "8"),
        ("3 5", "15"),
        ("1.2.3", "0.36"),
        (r"2\frac32", r"\frac72"),
        (r"\sqrt{x^2}", "x"),
        ("0.333", r"\frac13"),
        (r"\frac{1}{0}", r"\infty"),
        (r"9^{9^{9^9}}", r"9^{9^{9^8}}"),
        ("(x+1)^{200}", "(x+2)^{200}"),
        ("ellipse", "circle"),
        ("5 million", "5"),
    ],
)
def test_different(a, b):
    assert not together(a, b)
    assert not together(b, a)


@pytest.mark.parametrize(
    ("answer", "kind", "key"),
    [
        ("0.5", "number", "1/2"),
        (r"-1\frac12", "number", "-3/2"),
        (r"52_8", "base", "52_8"),
        ("6:8", "ratio", "3:4"),
        (r"\text{Even}", "text", "'even'"),
        (r"1 \pm \sqrt{19}", "set", "{1 + sqrt(19);1 - sqrt(19)}"),
        ("3,1", "set", "{1;3}"),
        ("(3,1)", "tuple", "(3;1)"),
        ("(3,4]", "region", "(3;4]"),
        (r"2x-y=-3", "relation", "2*x - y + 3=0"),
        (r"\frac{1}{ 0 }", "unread", r'"\frac{1}{0}"'),
    ],
)
def test_forms_can_be_read(answer, kind, key):
    form = canonical(answer)
    assert (form.kind, form.key) == (kind, key)


def test_fast_forms_are_the_full_forms(math500):
    for row in math500:
        fast = fast_form(row["answer"])
        assert fast is None or fast == canonical(row["answer"])


def test_fast_forms_need_no_sympy():
    code = (
        "import sys; from asearch.answers import group;"
        r"group(['5', r'\frac{1}{2}', '(1,2)', r'\{3,4\}', 'even', r'15\%', 'x=3', '$7', '1,000 dollars']);"
        "import asearch.scoring, asearch.workers, asearch;"
        "assert not {'sympy', 'numpy', 'latex2sympy2_extended', 'math_verify'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@given(st.fractions(), st.fractions())
def test_unequal_numbers_never_merge(a, b):
    assert together(rf"\frac{{{a.numerator}}}{{{a.denominator}}}", str(b)) == (a == b)


@given(st.decimals(allow_nan=False, allow_infinity=False, places=6, min_value=-(10**9), max_value=10**9))
def test_decimals_are_exact(value):
    numerator, denominator = value.as_integer_ratio()
    assert canonical(f"{value:f}") == canonical(f"{numerator}/{denominator}")
    assert canonical(f"{value:,f}") == canonical(f"{value:f}")


_LETTERS = st.sampled_from("abnxyz")
_EXPRESSIONS = st.recursive(
    st.one_of(st.integers(1, 9).map(str), _LETTERS),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(lambda p: f"({p[0]}+{p[1]})"),
        st.tuples(inner, inner).map(lambda p: f"{p[0]} \\cdot {p[1]}"),
        st.tuples(inner, inner).map(lambda p: rf"\frac{{{p[0]}}}{{{p[1]}}}"),
        inner.map(lambda e: rf"\sqrt{{{e}}}"),
    ),
    max_leaves=5,
)


@given(_EXPRESSIONS)
def test_expressions_equal_themselves_under_rewrites(expression):
    assert together(expression, *wrappings(expression))


@given(_EXPRESSIONS, _EXPRESSIONS, _EXPRESSIONS)
def test_groups_are_an_equivalence(a, b, c):
    answers = [a, b, c, f"({a}+{b})", f"({b}+{a})", a]
    groups = group(answers)
    of = {i: found.answer for found in groups for i in found.members}
    assert sorted(of) == list(range(6))  # reflexive: everyone is in exactly one group
    assert of[0] == of[5]
    assert of[3] == of[4]
    backwards = group(answers[::-1])
    assert {frozenset(found.members) for found in groups} == {
        frozenset(5 - i for i in found.members) for found in backwards
    }


@given(_EXPRESSIONS, st.integers(1, 5))
def test_a_sum_with_a_number_is_another_expression(expression, more):
    assert not same(expression, f"{expression}+{more}")
