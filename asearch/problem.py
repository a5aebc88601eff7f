"""A problem, and how it is put to an instruction-tuned model."""

from __future__ import annotations

from dataclasses import dataclass

from asearch.errors import UsageError

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
