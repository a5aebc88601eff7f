"""What counts as the same answer: written for this project after the kinds of cases that public graders test."""

from __future__ import annotations

import pytest

from asearch.answers import grade

RIGHT = [
    # numbers
    ("7", "7"), ("-12", "-12"), ("- 12", "-12"), ("+4", "4"), ("007", "7"), ("4.0", "4"), (".25", "0.25"), ("0.250", "1/4"),
    ("2,450,000", "2450000"), ("2 450 000", "2450000"), (r"2{,}450{,}000", "2450000"), (r"2,\!450,\!000", "2450000"),
    (r"2\,450\,000", "2450000"), ("1,234.5", "1234.5"), ("3,75", "3.75"), ("0,75", "0.75"), ("1e3", "1000"),
    (r"6.02 \times 10^{23}", r"6.02\cdot 10^{23}"), (r"3 \times 10^{-4}", "0.0003"), (r"10^6", "1000000"),
    (r"0.\overline{3}", r"\frac{1}{3}"), (r"0.1\overline{6}", "1/6"), (r"0.\bar{27}", r"\frac{3}{11}"),
    ("0.333333", r"\frac13"), ("0.0833333333", r"\frac{1}{12}"), ("1.414214", r"\sqrt{2}"), ("\N{MINUS SIGN}5", "-5"),
    # fractions, mixed numbers
    (r"\frac{3}{4}", "3/4"), (r"\dfrac34", r"\frac{3}{4}"), (r"\tfrac 3 4", "0.75"), (r"\cfrac{3}{4}", "3/4"),
    (r"\frac{6}{8}", r"\frac{3}{4}"), (r"\frac3{4}", "3/4"), (r"\frac{3}4", "3/4"), (r"-\frac{3}{4}", r"\frac{-3}{4}"),
    (r"\frac{3}{-4}", "-3/4"), (r"{3}/{4}", "3/4"), (r"2\frac{1}{3}", r"\frac{7}{3}"), ("2 1/3", "7/3"),
    (r"-2\frac13", r"-\frac{7}{3}"), (r"\frac{\frac12}{3}", "1/6"), (r"3 \div 4", "0.75"), ("½", "0.5"),
    # percent, money, units, degrees
    (r"15\%", "15%"), ("15 percent", r"15\%"), (r"15\text{ percent}", r"15\%"), ("15", r"15\%"), (r"15\%", "15"),
    (r"15\%", "0.15"), ("12.5%", "12.5"), (r"\$4.50", "4.5"), ("$4.50", r"\$4.5"), (r"\$1,250", "1250"), ("4.50 dollars", r"\$4.50"),
    ("€30", "30"), (r"12\text{ cm}", "12"), (r"12 \mathrm{~cm}^2", r"12\text{ cm}^2"), ("12 cm", "12"), ("12cm^2", "12"),
    (r"12\,\text{square units}", "12"), (r"20\text{ miles per hour}", "20"), (r"20 \text{ m}/\text{s}", "20"), ("8 apples", "8"),
    (r"72^\circ", "72"), (r"72^{\circ}", "72"), (r"72\text{ degrees}", r"72^\circ"), ("72°", "72"), ("72 degrees", "72"),
    (r"9\pi\text{ cm}^3", r"9\pi"), (r"\frac{7}{2}\text{ hours}", "3.5"), (r"\text{Area} = 6", "6"),
    # radicals, powers, constants
    (r"\frac{1}{\sqrt{5}}", r"\frac{\sqrt{5}}{5}"), (r"\sqrt{18}", r"3\sqrt2"), (r"\sqrt 7", r"\sqrt{7}"), ("sqrt(7)", r"\sqrt7"),
    (r"\sqrt[3]{54}", r"3\sqrt[3]{2}"), (r"2^{10}", "1024"), (r"8^{1/3}", "2"), (r"\sqrt{7+4\sqrt3}", r"2+\sqrt3"),
    (r"\frac{4}{1+\sqrt{5}}", r"\sqrt5-1"), (r"\frac{\pi}{4}", r"\pi/4"), (r"0.25\pi", r"\frac{\pi}{4}"), ("5!", "120"),
    (r"\binom{6}{2}", "15"), (r"e^{2}\cdot e", r"e^3"), (r"\pi \cdot 3", r"3\pi"), (r"3\sqrt{2}\cdot\sqrt{2}", "6"),
    # logarithms, trigonometry
    (r"\log_2 32", "5"), (r"\ln 9", r"2\ln 3"), (r"\ln(e^4)", "4"), (r"\sin 30^\circ", r"\frac12"), (r"\cos\frac{\pi}{3}", "0.5"),
    (r"1+\tan^2 x", r"\sec^2 x"), (r"2\sin x\cos x", r"\sin 2x"), (r"\arctan 1", r"\frac{\pi}{4}"), (r"\log_{10} 1000", "3"),
    # polynomials and other expressions
    ("b+a", "a+b"), ("(x-2)(x+2)", "x^2-4"), (r"\frac{x+3}{5}", r"\frac{x}{5}+\frac35"), ("2(k+1)", "2k+2"), ("x*y", "yx"),
    (r"\frac{x^2-1}{x-1}", "x+1"), ("2x^2 + 3x", "x(2x+3)"), (r"-\frac{1}{3}x", r"-\frac{x}{3}"), ("3 - 13x", "-13x+3"),
    ("n(n+1)/2", r"\frac{n^2+n}{2}"), (r"x^{\frac12}", r"\sqrt{x}"), (r"\left(\frac{1}{2}\right)^n", "2^{-n}"), ("a b c", "abc"),
    (r"\frac{n!}{(n-1)!}", "n"), (r"|{-3}|", "3"), (r"x_1+x_2", "x_2+x_1"), (r"\lfloor 3.7\rfloor", "3"),
    # equations and inequalities
    ("x=5", "5"), ("5", "x=5"), ("x = 5", "5=x"), ("n = 3+4 = 7", "7"), (r"x=\frac{1}{3}\approx 0.33", r"\frac13"), (r"x \approx 2.7", "2.7"),
    ("y=2x+1", "2x-y+1=0"), ("2x+4y=6", "x+2y=3"), ("y = 2x+1", "2x+1"), ("f(x)=x^2", "x^2"), ("x>3", r"x \gt 3"),
    ("x >= 3", r"x\ge 3"), (r"3\le x", r"x\geqslant 3"), ("3 < x < 7", "(3,7)"), (r"x\in[3,7)", r"3\le x<7"), (r"-2x<-6", "x>3"),
    (r"x^2<4", "(-2,2)"), (r"x\ne 2", r"x \neq 2"), (r"x<-1\text{ or }x>1", r"(-\infty,-1)\cup(1,\infty)"), ("x-5=0", "x=5"),
    # tuples, sets, intervals
    ("(1, 2)", "(1,2)"), (r"\left(1,\frac12\right)", "(1,0.5)"), ("(x,y)=(1,2)", "(1,2)"), ("x=1, y=2", "(1,2)"), ("y=2, x=1", "x=1,y=2"),
    (r"\langle 1,2,3\rangle", "(1,2,3)"), ("{3,1}", r"\{1,3\}"), (r"\{1, 3\}", "3,1"), ("1 and 3", "1,3"), (r"1\text{ or }3", "3, 1"),
    ("x=1 or x=3", "1,3"), ("x=3, x=1", r"\{1,3\}"), (r"\{-2\}", "-2"), (r"\emptyset", r"\{\}"), (r"\varnothing", r"\emptyset"),
    (r"\pm 3", "3,-3"), (r"x=\pm3", r"\{-3,3\}"), (r"2\pm\sqrt3", r"2+\sqrt3, 2-\sqrt3"), ("[1,4)", r"\left[1,4\right)"),
    (r"(-\infty,+\infty)", r"\mathbb{R}"), (r"(2,3)\cup(0,1)", r"(0,1)\cup(2,3)"), (r"[0,1]\cup[1,2]", "[0,2]"),
    (r"\mathbb{R}\setminus\{2\}", r"(-\infty,2)\cup(2,\infty)"), (r"(-\infty, 0.5]", r"(-\infty,\frac{1}{2}]"), (r"(1,2),(3,4)", "(3,4),(1,2)"),
    # matrices and vectors
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{bmatrix} 1 & 2 \\ 3 & 4 \end{bmatrix}"),
    (r"\begin{pmatrix}0.5\\-1\end{pmatrix}", r"\begin{pmatrix} 1/2 \\ -1 \\ \end{pmatrix}"),
    (r"\left[\begin{array}{cc}1&2\\3&4\end{array}\right]", r"\begin{pmatrix}1&2\\3&4\end{pmatrix}"),
    (r"2\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}2\\4\end{pmatrix}"),
    (r"\begin{pmatrix}1&2\end{pmatrix}^T", r"\begin{pmatrix}1\\2\end{pmatrix}"),
    # complex numbers
    ("3+4i", "4i+3"), (r"\frac{1}{i}", "-i"), ("(1+i)^2", "2i"), (r"e^{i\pi}", "-1"), (r"\frac{5}{2-i}", "2+i"),
    # words, choices, times, ratios, bases
    (r"\text{even}", "even"), ("Even", r"\text{even}"), (r"\textbf{Odd}", "odd"), (r"\text{(B)}", "B"), ("(B)", r"\text{B}"), ("b", r"\text{(B)}"),
    (r"\textbf{(B)}\ 12", "B"), (r"\text{Maria}", "Maria"), (r"\text{the parabola}", "parabola"), (r"\text{ no }", "No"),
    ("6:8", "3:4"), (r"101_2", "101_{2}"), (r"(101)_2", "101_2"), (r"101_{\text{two}}", "101_2"), ("101", "101_2"), (r"\text{3:05 p.m.}", "3:05 pm"),
    (r"\text{A, C}", "C, A"), ("(A) and (C)", "A,C"), (r"25^\circ\text{C}", "25"), (r"25^\circ C", "25"), ("5:30 PM", "5:30 p.m."),
    # sums, binomials, qualifiers, decoration
    (r"\sum_{i=1}^{5} i", "15"), (r"{}_8C_3", "56"), ("C_8^3", "56"), (r"{8 \choose 3}", "56"), (r"1-\mathrm{i}", "1-i"),
    (r"\frac{\pi}{3}+2k\pi, k \in \mathbb{Z}", r"2k\pi+\frac{\pi}{3}"), ("**12**", "12"), (r"12\\", "12"), (r"\underline{12}", "12"),
    ("|x|<5", "-5<x<5"), (r"\frac{x}{2}+\frac{y}{3}=1", "3x+2y=6"), ("(x+3)(x-2)=0", "x^2+x-6=0"), (r"5\sqrt2 \approx 7.07", r"5\sqrt2"),
    # infinity
    (r"\infty", r"+\infty"), ("infinity", r"\infty"), ("∞", r"\infty"),
    # wrapping, spacing, broken LaTeX
    ("$5$", "5"), (r"\(5\)", "5"), (r"\[5\]", "5"), ("$$5$$", "5"), ("5.", "5"), (r"\boxed{5}", "5"), (r"\displaystyle 5", "5"), (r"{5}", "5"),
    (r"\frac{1}{2}}", r"\frac12"), (r"\sqrt{2", r"\sqrt2"), (r"\left(3,4", "(3,4)"), (r"\\frac{1}{2}", r"\frac12"), (r"5\,", "5"), (r"\ 5\ ", "5"),
    # whole solutions
    (r"So $x=4$ and $\boxed{12}$ is the area.", "12"), (r"First \boxed{3}, but then \boxed{4}.", "4"), (r"It is $\boxed{\text{even}}$.", "even"),
    ("The final answer is 12. I hope it is correct.", "12"), (r"Final Answer: The final answer is $x+1$. I hope it is correct.", "1+x"),
    (r"Therefore $x \ge 5$ is the solution.", "x>=5"), ("so Ann has 1,250.50 dollars left", "1250.5"), ("The answer is (C)", "C"),
]  # fmt: skip

WRONG = [
    ("7", "8"), ("-7", "7"), ("0.33", r"\frac13"), ("3.14", r"\pi"), ("1.41", r"\sqrt2"), (".0000672", ".0000671"), ("2,450", "2.45"),
    ("28", "0.28"), ("0.28", "28"), (r"\frac{28}{100}", "28"), ("28", r"28\cdot\frac{1}{100}"), (r"10\%", "0.01"), ("5 cm", "5 m"),
    (r"5\text{ cents}", r"5\text{ dollars}"), (r"\sqrt2", "2"), (r"\sqrt{3}", r"\frac{\sqrt3}{3}"), ("x+1", "x-1"), ("x+2n+1", "x+1"),
    ("a-b", "b-a"), ("2^x", "x^2"), (r"\sin x", r"\cos x"), (r"(x+1)^2", "x^2+1"), ("x=1", "y=1"), ("5", "2x+y=5"), ("0", "x^2+y=0"),
    ("x<3", "x>3"), (r"x\le 3", "x<3"), ("(3,7)", "[3,7]"), ("[3,7)", "(3,7]"), ("(1,2)", "(2,1)"), ("(1,2,3)", "(1,2)"), ("1,2", "1,2,3"),
    ("1", "1,2"), ("1,2", "1"), (r"\{1,2\}", r"\{1,3\}"), (r"\pm 2", "2"), ("2", r"\pm 2"), (r"(-\infty,2)", r"(-\infty,2]"), (r"(0,1)\cup(2,3)", "(0,3)"),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{pmatrix}1&3\\2&4\end{pmatrix}"), (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}1&2\end{pmatrix}"),
    ("3+4i", "3-4i"), ("even", "odd"), ("(A)", "(B)"), ("A", "(B)"), (r"\text{Maria}", "Mario"), ("3:4", "4:3"), ("101_2", "101_3"), ("101_2", "5"), ("110", "101_2"),
    (r"\infty", r"-\infty"), ("", "5"), ("   ", "5"), (r"\boxed{}", "5"), ("no idea", "5"), (r"\boxed{5} or maybe \boxed{6}", "5"), ("A5B", "5"),
    ("The answer is 5", "6"), (r"\frac{1}{0}", r"\infty"), (r"\frac{0}{0}", "0"), (r"\emptyset", "0"), ("x", "y"), ("7x", "7"), (r"\log_2 3", r"\log_3 2"),
]  # fmt: skip


@pytest.mark.parametrize(("answer", "reference"), RIGHT)
def test_is_right(answer, reference):
    assert grade(answer, reference)


@pytest.mark.parametrize(("answer", "reference"), WRONG)
def test_is_wrong(answer, reference):
    assert not grade(answer, reference)


def test_no_answer_is_wrong():
    assert not grade(None, "5")
