"""Finding the answer in a solution."""

import re

import pytest

from asearch.answers import extract


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so \boxed{5}.", "5"),
        (r"\boxed{\frac{1}{\sqrt{2}}}", r"\frac{1}{\sqrt{2}}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\fbox{7}", "7"),
        (r"\boxed 5 and so on", "5"),
        (r"\boxed12", "12"),
        (r"\boxed\pi", r"\pi"),
        (r"\boxed {5}", "5"),
        (r"first \boxed{1}, then \boxed{2}", "2"),
        (r"\boxed{1}, and put it in \boxed{}", "1"),
        (r"\boxed{1}, then cut off: \boxed{2", "1"),
        (r"$\boxed{5$ is it", "5"),
        (r"\boxed{\boxed{5}}", "5"),
        ("The final answer is 5.", "5"),
        (r"The final answer is $\boxed{5}$. I hope it is correct.", "5"),
        (r"Therefore, the final answer is: $\frac12$. I hope it is correct.", r"\frac12"),
        (r"**Final Answer:** \(x=2\)", "x=2"),
        ("the final answer is 3.5. I hope it is correct", "3.5"),
        ("Final answer: the largest $n$ is 34.", "34"),
        ("The final answer is $5$ or $6$.", "$5$ or $6$"),
        ("The answer is (C).", "(C)"),
        ("The final answer is 3. No, the final answer is 4.", "4"),
        (r"The final answer is 3, that is \boxed{4}", "4"),
    ],
)
def test_finds(text, answer):
    assert extract(text) == answer


@pytest.mark.parametrize(
    "text",
    ["", "   ", "I think it is 5", r"\boxed{}", r"\boxed{   }", r"cut off \boxed{12", r"\boxed", r"\unboxed{5}", "$5$"],
)
def test_finds_nothing(text):
    assert extract(text) is None


def test_other_formats():
    assert extract("#### 12\n#### 42", r"#### (\d+)") == "42"
    assert extract("#### 42", re.compile(r"\d+")) == "42"
    assert extract("x: 7 |", r"(?:y: (\d)|x: (\d))") == "7"
    assert extract("none here", r"#### (\d+)") is None
    assert extract("a b c", lambda text: text.split()[-1]) == "c"
    assert extract("a b c", lambda _: None) is None
    assert extract("a b c", lambda _: "  ") is None
    assert extract(r"\boxed{5}", r"#### (\d+)") is None


def test_math500(math500):
    assert [extract(row["solution"]) for row in math500] == [row["answer"] for row in math500]
