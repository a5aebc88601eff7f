"""The task of the embedded models: integer expressions, solved one operation at a time, with an exact checker.

A problem is a random tree of 3 to 6 additions, subtractions and multiplications. Its solution is unique: every step
carries out the leftmost operation whose operands are numbers and copies the rest, so that a step can be checked
character by character.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator

Operator = Literal["+", "-", "*"]
Split = Literal["train", "validation", "test"]

BLANK_LINE: Final = "\n\n"
MIN_OPERATIONS: Final = 3
MAX_OPERATIONS: Final = 6
MAX_VALUE: Final = 99
SMALL_LEAF: Final = 12
LARGE_LEAF: Final = 20

NAMES: Final[dict[Operator, str]] = {"+": "Add", "-": "Subtract", "*": "Multiply"}
_SYMBOLS: Final[dict[Operator, str]] = {"+": " + ", "-": " - ", "*": r" \cdot "}
_WEIGHTS: Final[dict[Operator, int]] = {"+": 3, "-": 3, "*": 4}
_BUCKETS: Final = 20


@dataclass(frozen=True, slots=True)
class Operation:
    """Two expressions joined by an operator."""

    operator: Operator
    left: Expression
    right: Expression


Expression = int | Operation


@dataclass(frozen=True, slots=True)
class Problem:
    """A question as a user would type it, its answer, and the tree behind it."""

    text: str
    answer: str
    expression: Expression


@dataclass(frozen=True, slots=True)
class Reduction:
    """One step of a solution: ``left operator right = value``, and the expression that is left over."""

    operator: Operator
    left: int
    right: int
    value: int
    remaining: Expression


def generate(seed: int, n: int, split: Split = "train", *, varied: float = 0.0) -> list[Problem]:
    """Makes n different problems; the same arguments give the same problems on every machine.

    Which split an expression belongs to is a property of the expression itself, so a test problem never turns up in
    training, whatever the seeds. A share `varied` of the problems is phrased freely instead of canonically.
    """
    if n < 0:
        raise ValueError(f"the number of problems must not be negative, got {n}")
    if split not in ("train", "validation", "test"):
        raise ValueError(f"unknown split {split!r}: choose train, validation or test")
    rng = random.Random(f"{split}:{seed}")
    problems: dict[str, Problem] = {}
    while len(problems) < n:
        tree = random_expression(rng, rng.randint(MIN_OPERATIONS, MAX_OPERATIONS))
        shown = render(tree)
        if split_of(shown) == split and shown not in problems:
            text = phrase(shown, rng) if rng.random() < varied else f"What is ${shown}$?"
            problems[shown] = Problem(text, str(evaluate(tree)), tree)
    return list(problems.values())


def split_of(shown: str) -> Split:
    """The split that owns an expression, by a hash of its canonical text: a twentieth each for test and validation."""
    bucket = int.from_bytes(hashlib.sha256(shown.encode()).digest()[:8], "big") % _BUCKETS
    return "test" if bucket == 0 else "validation" if bucket == 1 else "train"


def random_expression(rng: random.Random, operations: int) -> Expression:
    """A random tree with so many operations whose every value is at most MAX_VALUE in size."""
    if operations == 0:
        return rng.randint(1, rng.choice((SMALL_LEAF, LARGE_LEAF)))
    before = rng.randrange(operations)
    left = random_expression(rng, before)
    right = random_expression(rng, operations - 1 - before)
    a, b = evaluate(left), evaluate(right)
    fitting = [operator for operator in NAMES if abs(calculate(operator, a, b)) <= MAX_VALUE]
    if not fitting:  # two large numbers of one sign always leave subtraction, of two signs addition
        raise AssertionError(f"no operation fits {a} and {b}")
    operator = rng.choices(fitting, [_WEIGHTS[each] for each in fitting])[0]
    return Operation(operator, left, right)


def calculate(operator: Operator, left: int, right: int) -> int:
    """The value of one operation."""
    if operator == "+":
        return left + right
    return left - right if operator == "-" else left * right


def evaluate(expression: Expression) -> int:
    """The value of a tree."""
    if isinstance(expression, int):
        return expression
    return calculate(expression.operator, evaluate(expression.left), evaluate(expression.right))


def render(expression: Expression) -> str:
    r"""The canonical LaTeX of a tree, with just the parentheses that a reader needs: ``12 - 3 \cdot (4 + 5)``."""
    return _render(expression, first=True)


def _render(expression: Expression, *, first: bool) -> str:
    """`first` tells that nothing or an opening parenthesis stands before it, where a minus sign may stand alone."""
    if isinstance(expression, int):
        return str(expression) if expression >= 0 or first else f"({expression})"
    product = expression.operator == "*"
    left, right = expression.left, expression.right
    tight_left = product and isinstance(left, Operation) and left.operator != "*"
    tight_right = isinstance(right, Operation) and (product or right.operator != "*")
    shown_left = f"({_render(left, first=True)})" if tight_left else _render(left, first=first)
    shown_right = f"({_render(right, first=True)})" if tight_right else _render(right, first=False)
    return shown_left + _SYMBOLS[expression.operator] + shown_right


def phrase(shown: str, rng: random.Random) -> str:
    """The same question in other words: another verb, another multiplication sign, no blanks, no dollar signs."""
    sign = rng.choice((r"\cdot", r"\cdot", r"\times", "*"))
    shown = shown.replace(r"\cdot", sign)
    if sign == "*" and rng.random() < 0.5:
        shown = shown.replace(" ", "")
    marked = f"${shown}$" if rng.random() < 0.7 else shown
    patterns = (
        "What is {}?",
        "Evaluate {}.",
        "Compute {}.",
        "Calculate {}.",
        "{}",
        "{} = ?",
        "Simplify {}.",
        "Find {}.",
    )
    return rng.choice(patterns).format(marked)


def reduce_once(expression: Operation) -> Reduction:
    """Carries out the leftmost operation whose two operands are numbers."""
    if isinstance(expression.left, Operation):
        inner = reduce_once(expression.left)
        remaining: Expression = Operation(expression.operator, inner.remaining, expression.right)
    elif isinstance(expression.right, Operation):
        inner = reduce_once(expression.right)
        remaining = Operation(expression.operator, expression.left, inner.remaining)
    else:
        value = calculate(expression.operator, expression.left, expression.right)
        return Reduction(expression.operator, expression.left, expression.right, value, value)
    return Reduction(inner.operator, inner.left, inner.right, inner.value, remaining)


def reductions(expression: Expression) -> Iterator[Reduction]:
    """The steps that turn a tree into a number."""
    while isinstance(expression, Operation):
        reduction = reduce_once(expression)
        yield reduction
        expression = reduction.remaining


def step_text(number: int, reduction: Reduction) -> str:
    """One step as the models write it, with the blank line that ends it."""
    equation = f"{render(Operation(reduction.operator, reduction.left, reduction.right))} = {reduction.value}"
    rest = f", which leaves ${render(reduction.remaining)}$" if isinstance(reduction.remaining, Operation) else ""
    return f"## Step {number}: {NAMES[reduction.operator]}\n${equation}${rest}.{BLANK_LINE}"


def closing_text(answer: int | str) -> str:
    """The sentence that ends every solution."""
    return rf"Therefore, the final answer is: $\boxed{{{answer}}}$. I hope it is correct."


def solution_steps(expression: Expression) -> list[str]:
    """All steps of the one right solution; the closing sentence is the last of them."""
    steps = [step_text(number, reduction) for number, reduction in enumerate(reductions(expression), start=1)]
    return [*steps, closing_text(evaluate(expression))]


def solution(problem: Problem) -> str:
    """The one right solution, as a single text."""
    return "".join(solution_steps(problem.expression))


def split_steps(text: str) -> list[str]:
    """Cuts a solution after each blank line; the pieces joined give the text again."""
    pieces = text.split(BLANK_LINE)
    steps = [piece + BLANK_LINE for piece in pieces[:-1]]
    return [*steps, pieces[-1]] if pieces[-1] else steps


def first_wrong_step(problem: Problem, text: str) -> int | None:
    """The index (from 0) of the first step that is not right, or None if all steps written so far are.

    An unfinished solution whose steps are right so far counts as right; anything after the closing sentence does not.
    """
    right = solution_steps(problem.expression)
    for index, step in enumerate(split_steps(text)):
        if index >= len(right) or step != right[index]:
            return index
    return None


def is_right(problem: Problem, text: str) -> bool:
    """Whether a text is the complete solution with every step right."""
    return text == solution(problem)
