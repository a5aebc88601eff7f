r"""Answers: from a model's text to votes that can be trusted.

`extract` finds the answer in a solution, `canonical` says what it means, `group` puts equal answers together, `grade`
compares with a reference. All of it is pure and synchronous. sympy is imported when an answer needs it, and hostile
answers can keep it busy for long: inside an event loop use `asearch.workers`, which does the same work in processes that
can be killed.
"""

from __future__ import annotations

from functools import lru_cache
from math import comb
from typing import TYPE_CHECKING

from asearch.answers.extraction import extract
from asearch.answers.forms import Classes, Form, Group, distinct, pairs_to_prove
from asearch.answers.latex import Unreadable
from asearch.answers.reading import NotPlain, Plain, read

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asearch.answers.nodes import Node

__all__ = ["Form", "Group", "canonical", "extract", "fast_form", "grade", "group", "pass_at_k", "same"]

_PLAIN = Plain()


def fast_form(answer: str) -> Form | None:
    """The canonical form where that needs no sympy (numbers, words, and lists, points and sets of them), else None.

    Also answers that are no mathematics at all (too long, too deep) are settled here, as their own text.
    """
    try:
        return read(answer, _PLAIN).form()
    except NotPlain:
        return None
    except (Unreadable, RecursionError):
        return unread(answer)


def canonical(answer: str) -> Form:
    """What an answer means; one that cannot be read stands for its own text (kind `unread`).

    Never raises for bad text, but may take long on hostile text (see `asearch.workers`).
    """
    form = fast_form(answer)
    if form is not None:
        return form
    node = meaning(answer)
    return unread(answer) if node is None else node.form()


@lru_cache(maxsize=1024)
def meaning(answer: str) -> Node | None:
    """The tree of an answer, read with sympy; None if it cannot be read."""
    from asearch.answers.symbolic import Symbolic  # sympy takes half a second, and few callers need it

    try:
        return read(answer, Symbolic())
    except (Unreadable, RecursionError):
        return None


def same(a: str, b: str) -> bool:
    """Whether two answers are equal by form or by proof."""
    first, second = canonical(a), canonical(b)
    if set(first.keys) & set(second.keys):
        return True
    if first.probe is None or first.probe != second.probe or first.kind == second.kind == "number":
        return False
    left, right = meaning(a), meaning(b)
    if left is None or right is None:
        return False
    from asearch.answers.symbolic import proved_equal  # as above

    return proved_equal(left, right)


def unread(answer: str) -> Form:
    """The form of an answer that stands for its own text, spaces aside."""
    return Form("unread", '"' + "".join(answer.split()) + '"')


def group(answers: Sequence[str | None]) -> list[Group]:
    """Candidates with equal answers, in the order in which the answers were first seen.

    None and blank answers are in no group. Runs in this process; see `AnswerWorkers.group` for hostile text.
    """
    classes = Classes({text: canonical(text) for text in distinct(answers)})
    for suspects in classes.doubtful():
        for a, b in pairs_to_prove(suspects, classes):
            if same(a, b):
                classes.merge(a, b)
    return classes.groups(answers)


def grade(answer: str | None, reference: str) -> bool:
    r"""Whether an answer (or a whole solution) is right, given the reference answer.

    More lenient than `group`, where the reference says what is meant: 28 for 28\%, six decimals for a fraction.
    """
    from asearch.answers.grading import is_right  # brings sympy

    return is_right(answer, reference)


def pass_at_k(n: int, c: int, k: int) -> float:
    """The chance that k of n samples, drawn without replacement, hold one of the c right ones (Chen et al. 2021).

    Raises:
        ValueError: unless 0 <= c <= n and 1 <= k <= n.
    """
    if not (0 <= c <= n and 1 <= k <= n):
        raise ValueError(f"pass_at_k needs 0 <= c <= n and 1 <= k <= n, not n={n}, c={c}, k={k}")
    return 1.0 - comb(n - c, k) / comb(n, k)
