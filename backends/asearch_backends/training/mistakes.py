"""Solutions with one deliberate mistake, carried on consistently: what a process reward model must learn to see.

A small policy's own mistakes are mostly wrong arithmetic. Wrong copies are rarer, and a model trained on the policy's
samples alone accepts them, so search finds and prefers them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from asearch_backends.embedded.task import (
    NAMES,
    Expression,
    Operation,
    Reduction,
    calculate,
    closing_text,
    evaluate,
    reductions,
    solution_steps,
    step_text,
)

if TYPE_CHECKING:
    import random

# How often each kind is made. In the last step nothing is left to be copied, so its value is mistaken instead.
_KINDS: Final = {"value": 4, "operand": 2, "remaining": 4, "operator": 1, "answer": 1}


def mistaken_solution(expression: Expression, rng: random.Random) -> str:
    """A solution that is right up to one mistake at a random place, and follows from it afterwards."""
    steps = list(reductions(expression))
    kind = rng.choices(list(_KINDS), list(_KINDS.values()))[0]
    if kind == "answer":
        right = solution_steps(expression)
        return "".join(right[:-1]) + closing_text(mutate_number(evaluate(expression), rng))
    index = rng.randrange(len(steps))
    before = "".join(step_text(number, step) for number, step in enumerate(steps[:index], start=1))
    place = _place_of_result(steps[index - 1].remaining if index else expression, steps[index])
    wrong = _spoil(steps[index], place, kind, rng)
    return before + step_text(index + 1, wrong) + _continuation(wrong.remaining, index + 2)


def _continuation(expression: Expression, number: int) -> str:
    """The rest of a solution that goes on from here, with steps numbered from `number`."""
    steps = list(reductions(expression))
    text = "".join(step_text(place, step) for place, step in enumerate(steps, start=number))
    return text + closing_text(evaluate(expression))


def _spoil(step: Reduction, place: int, kind: str, rng: random.Random) -> Reduction:
    """The step with one mistake of this kind."""
    if kind == "remaining" and isinstance(step.remaining, Operation):
        return replace(step, remaining=mutate_expression(step.remaining, rng))
    if kind == "operand":
        left, right = step.left, step.right
        if rng.random() < 0.5:
            left = mutate_number(left, rng)
        else:
            right = mutate_number(right, rng)
        return _with_value(replace(step, left=left, right=right), place, calculate(step.operator, left, right))
    if kind == "operator":
        operator = rng.choice([name for name in NAMES if name != step.operator])
        return _with_value(replace(step, operator=operator), place, calculate(operator, step.left, step.right))
    return _with_value(step, place, mutate_number(step.value, rng))


def _with_value(step: Reduction, place: int, value: int) -> Reduction:
    """The step with another result, in its leftover too, where it is the leaf at `place`."""
    return replace(step, value=value, remaining=_set_leaf(step.remaining, place, value))


def _place_of_result(before: Expression, step: Reduction) -> int:
    """Which leaf of the leftover is the result: the one that stands for two leaves of the expression before."""
    old, new = _leaves(before), _leaves(step.remaining)
    pairs = (
        place
        for place in range(len(new))
        if old[place : place + 2] == [step.left, step.right] and [*old[:place], step.value, *old[place + 2 :]] == new
    )
    return next(pairs)


def mutate_number(number: int, rng: random.Random) -> int:
    """A different number that looks alike: a digit, the sign, a near miss, a digit lost or doubled."""
    digits = str(abs(number))
    sign = -1 if number < 0 else 1
    place = rng.randrange(len(digits))
    candidates = [
        sign * int(digits[:place] + rng.choice("0123456789") + digits[place + 1 :]),
        sign * int(digits[:place] + rng.choice("0123456789") + digits[place + 1 :]),
        number + rng.choice((-1, 1)),
        number + rng.choice((-2, 2, -3, 3)),
        number + rng.choice((-10, 10)),
        -number,
        sign * int(digits[:place] + digits[place + 1 :] or "0"),
        sign * int(digits[::-1]),
        sign * int(digits + rng.choice(digits)) if len(digits) < 3 else number,
    ]
    different = [candidate for candidate in candidates if candidate != number]
    return rng.choice(different)


def mutate_expression(expression: Operation, rng: random.Random) -> Expression:
    """A different expression that looks alike: another number, another operator, or an operand lost."""
    choice = rng.random()
    if choice < 0.7:
        leaves = _leaves(expression)
        place = rng.randrange(len(leaves))
        return _set_leaf(expression, place, mutate_number(leaves[place], rng))
    return _mutate_operation(expression, rng, lose=choice > 0.9)


def _mutate_operation(expression: Operation, rng: random.Random, *, lose: bool) -> Expression:
    inner = [side for side in ("left", "right") if isinstance(getattr(expression, side), Operation)]
    if inner and rng.random() < 0.6:
        side = rng.choice(inner)
        changed = _mutate_operation(getattr(expression, side), rng, lose=lose)
        return Operation(
            expression.operator,
            changed if side == "left" else expression.left,
            changed if side == "right" else expression.right,
        )
    if lose:
        return rng.choice((expression.left, expression.right))
    return Operation(
        rng.choice([name for name in NAMES if name != expression.operator]), expression.left, expression.right
    )


def _leaves(expression: Expression) -> list[int]:
    if isinstance(expression, int):
        return [expression]
    return _leaves(expression.left) + _leaves(expression.right)


def _set_leaf(expression: Expression, place: int, value: int) -> Expression:
    """The tree with another number at its place-th leaf, counted from the left."""
    if isinstance(expression, int):
        return value
    before = len(_leaves(expression.left))
    if place < before:
        return Operation(expression.operator, _set_leaf(expression.left, place, value), expression.right)
    return Operation(expression.operator, expression.left, _set_leaf(expression.right, place - before, value))
