"""A problem, and how it is put to an instruction-tuned model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from asearch.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

# The prompt of the article, which took it from Meta's published evaluation of Llama 3 on MATH: it makes the model
# write one step per blank-line-separated block, the unit that the search grows and the verifier scores.
SYSTEM_PROMPT = r"""Solve the following math problem efficiently and clearly:

- For simple problems (2 steps or fewer):
Provide a concise solution with minimal explanation.

- For complex problems (3 steps or more):
Use this step-by-step format:

## Step 1: [Concise description]
[Brief explanation and calculations]

## Step 2: [Concise description]
[Brief explanation and calculations]

...

Regardless of the approach, always conclude with:

Therefore, the final answer is: $\boxed{answer}$. I hope it is correct.

Where [answer] is just the final number or expression that solves the problem."""

STEP_SEPARATOR = "\n\n"

# The next turn of a chain of revisions: look at the attempts above, and write another one.
REVISION_PROMPT = "Check this solution step by step, and write a corrected one in the same format."

# The policy as its own verifier, in the turn after the solution: so all that stands before is in the prefix cache.
VERIFICATION_PROMPT = "Is every step of the solution so far right? It may be unfinished. Answer Yes or No."


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem to solve.

    Args:
        text: the question, as the user turn.
        system: the system prompt; None sends no system message.
        history: earlier turns, as (role, content) pairs, between the system prompt and the question.
        id: a name for logs; two equal problems with different ids are two searches.
    """

    text: str
    system: str | None = SYSTEM_PROMPT
    history: tuple[tuple[str, str], ...] = ()
    id: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.text, str) or not self.text.strip():
            raise UsageError("the problem is empty: pass the question as a string or an asearch.Problem")

    @property
    def messages(self) -> list[dict[str, str]]:
        """The chat messages that put the problem to an instruction-tuned model."""
        system = [] if self.system is None else [("system", self.system)]
        turns = [*system, *self.history, ("user", self.text)]
        return [{"role": role, "content": content} for role, content in turns]


def as_problem(problem: str | Problem) -> Problem:
    """A string becomes a Problem with the step-by-step system prompt."""
    return problem if isinstance(problem, Problem) else Problem(problem)


def revision(problem: Problem, attempts: Sequence[str]) -> Problem:
    """The problem with the attempts made so far as a conversation, and the request for another one."""
    turns: list[tuple[str, str]] = [("user", problem.text)]
    for attempt in attempts:
        turns += [("assistant", attempt), ("user", REVISION_PROMPT)]
    return replace(problem, text=turns[-1][1], history=(*problem.history, *turns[:-1]))


def verification(problem: Problem, solution: str) -> Problem:
    """The problem with the beginning of a solution, and the question whether it is right so far."""
    turns = (("user", problem.text), ("assistant", solution))
    return replace(problem, text=VERIFICATION_PROMPT, history=(*problem.history, *turns))
