"""What tells one process reward model from another: how it reads a solution, and where its verdict stands.

A family is one frozen value. The facts are from the models' cards and from the code of the reference.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from asearch.problem import SYSTEM_PROMPT, Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


@dataclass(frozen=True, slots=True)
class Family:
    """A causal language model that says "+" or "-" after a step.

    Args:
        name: for `PRM(url, family=name)`.
        render: problem and steps -> the text after which the model's next token is its verdict on the last step.
        good: the token that means "right so far", and
        bad: the one that means "wrong"; as text, or as ids where the text is ambiguous.
    """

    name: str
    render: Callable[[Problem, Sequence[str]], str]
    good: str | int = "+"
    bad: str | int = "-"


def render_embedded(problem: Problem, steps: Sequence[str]) -> str:
    """The format in which this project's own PRM was trained: the policy's chat, with the verdict after each step."""
    return f"<|begin|><|system|>{SYSTEM_PROMPT}<|user|>{problem.text}<|assistant|>{''.join(steps)}"


EMBEDDED = Family("embedded", render_embedded)

FAMILIES = {family.name: family for family in (EMBEDDED,)}
