"""What tells one process reward model from another: how it reads a solution, and where its verdict stands.

A family is one frozen value, used by the clients here and by the PRM server alike; adding a family is adding one value.
The facts are from the models' cards and from their authors' inference code.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from asearch.errors import UsageError
from asearch.problem import SYSTEM_PROMPT, Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# What one step adds to the text, in fragments; the score of the step is read at the last token of the last one.
Part = tuple[str, ...]
Readout = Literal["verdict", "label", "value", "outcome"]


@dataclass(frozen=True, slots=True)
class Turns:
    """A chat template as the three pieces of text around the steps of a solution.

    Args:
        head: what stands before the first user turn's content.
        ask: between a user turn and the verdict: the end of the turn, and the assistant's header.
        between: between a verdict and the next user turn's content.
    """

    head: str
    ask: str
    between: str


@dataclass(frozen=True, slots=True)
class Family:
    """How a process reward model reads a solution.

    Args:
        name: for `as_prm(url, family=name)`.
        layout: problem, a step (not blank), and how many steps stand before it -> the part of the text that it adds;
            joined they are what the model reads, and each ends where the score of its step is read. For a family with
            `turns`: the user turns.
        read: what is read there. "verdict": softmax over the next-token logits of `good` and `bad`. "label": softmax
            over two labels, of which the second means right. "value": sigmoid of one number. "outcome": sigmoid of
            one number at the end of the whole chat.
        good: the token that means "right so far" (for "verdict"), and
        bad: the one that means "wrong".
        ids: the ids of these two in the published checkpoints, for servers that cannot be asked.
        turns: the chat template, where steps are turns of a chat; servers that can render it are asked for theirs.
        bos: the tokenizer adds its special tokens.
        fragments: the fragments of a part are tokenised one by one, not the text as a whole.
        tag: the special token at which a score is read, where there is one.
        reserved: texts that must not occur in a problem or a step, because the model reads them as structure.
        models: parts of model names (lower case) by which the family is recognised.
        hint: what the model's server needs, for error messages.
    """

    name: str
    layout: Callable[[Problem, str, int], Part]
    read: Readout = "verdict"
    good: str = "+"
    bad: str = "-"
    ids: tuple[int, int] | None = None
    turns: Turns | None = None
    bos: bool = False
    fragments: bool = False
    tag: str | None = None
    reserved: tuple[str, ...] = ()
    models: tuple[str, ...] = field(default=())
    hint: str = ""

    def part(self, problem: Problem, step: str, before: int) -> Part:
        """What a step adds to the text, after so many others; it must not be blank."""
        if self.reserved:
            step, text = without(step, self.reserved), without(problem.text, self.reserved)
            problem = problem if text == problem.text else Problem(text, id=problem.id)
        laid = self.layout(problem, step, before)
        if self.turns is None:
            return laid
        head = self.good + self.turns.between if before else self.turns.head
        return (head + "".join(laid) + self.turns.ask,)

    def parts(self, problem: Problem, steps: Sequence[str]) -> list[Part]:
        """One part per step; blank steps must have been left out (see `spoken`)."""
        return [self.part(problem, step, i) for i, step in enumerate(steps)]

    def prefixes(self, problem: Problem, steps: Sequence[str], begun: Sequence[str] = ()) -> list[str]:
        """Per step, the whole text up to where its score is read; `begun` are those of the steps before, if any."""
        texts = list(begun)
        for step in steps:
            texts.append((texts[-1] if texts else "") + "".join(self.part(problem, step, len(texts))))
        return texts

    def render(self, problem: Problem, steps: Sequence[str]) -> str:
        """The whole text up to where the score of the last step is read."""
        return self.prefixes(problem, steps)[-1]


@lru_cache(maxsize=8192)  # a step is read again with each step that follows it
def without(text: str, reserved: tuple[str, ...]) -> str:
    """A text without these."""
    for mark in reserved:
        text = text.replace(mark, "")
    return text


def spoken(steps: Sequence[str]) -> tuple[list[str], list[int]]:
    """The steps that say something, and for each step which of these stands last there (-1: none so far).

    A blank step adds nothing: the verdict on what stands before it is still the verdict. (The reference's adapter
    splits text that ends in a blank line and scores the empty step behind it.)
    """
    said: list[str] = []
    last: list[int] = []
    for step in steps:
        if step.strip():
            said.append(step)
        last.append(len(said) - 1)
    return said, last


PROBE = ("QUESTION AND FIRST STEP", "SECOND STEP")


def probe_chat(good: str) -> list[dict[str, str]]:
    """A chat that, once rendered by a model's own template, shows that template's pieces to `cut_turns`."""
    turns = [("user", PROBE[0]), ("assistant", good), ("user", PROBE[1])]
    return [{"role": role, "content": content} for role, content in turns]


def cut_turns(text: str, good: str) -> Turns | None:
    """The template around the turns of a rendered `probe_chat` (with generation prompt); None if it has another shape."""
    head, _, rest = text.partition(PROBE[0])
    middle, _, ask = rest.partition(PROBE[1])
    if not ask or not middle.startswith(ask + good):
        return None
    return Turns(head=head, ask=ask, between=middle.removeprefix(ask + good))


def by_name(name: str) -> Family:
    """A family by its name.

    Raises:
        UsageError: naming those that there are.
    """
    if name not in FAMILIES:
        raise UsageError(f"unknown PRM family {name!r}; known are {', '.join(sorted(FAMILIES))}")
    return FAMILIES[name]


def recognise(*names: str) -> Family | None:
    """The family of a model with one of these names (an id, a path), if any is known."""
    for name in (name.lower() for name in names):
        for family in FAMILIES.values():
            if any(part in name for part in family.models):
                return family
    return None


def embedded_layout(problem: Problem, step: str, before: int) -> Part:
    """The format in which this project's own PRM was trained: the policy's chat, read at the last token of each step."""
    head = f"<|begin|><|system|>{SYSTEM_PROMPT}<|user|>{problem.text}<|assistant|>"
    return (step if before else head + step,)


def rlhflow_layout(problem: Problem, step: str, before: int) -> Part:
    """Each step is a user turn, the first with the question before it; the verdict is the assistant's next word."""
    return (step.strip() if before else f"{problem.text} {step.strip()}",)


def shepherd_layout(problem: Problem, step: str, before: int) -> Part:
    """Question and steps on lines of their own; the verdict stands at the tag that ends each step."""
    return (f"\n{flat(step)} ки" if before else f"{problem.text} {flat(step)} ки",)


def versa_layout(problem: Problem, step: str, before: int) -> Part:
    r"""Question, a space and a blank line; every step ends in " \n\n\n\n", which is one token of Llama 3."""
    text = step.strip() + " \n\n\n\n"
    return (text if before else f"{problem.text} \n\n{text}",)


def qwen_layout(problem: Problem, step: str, before: int) -> Part:
    """ChatML with the authors' system prompt; the steps, without separators, each followed by the tag."""
    system = "Please reason step by step, and put your final answer within \\boxed{}."
    head = (
        f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n{problem.text}<|im_end|>\n<|im_start|>assistant\n"
    )
    text = step.strip() + "<extra_0>"
    return (text if before else head + text,)


def skywork_layout(problem: Problem, step: str, before: int) -> Part:
    """BOS, the problem and a line break, then one line per step; the line break behind it is a token of its own."""
    line = (flat(step), "\n")
    return line if before else ("<|endoftext|>" + problem.text + "\n", *line)


def trl_layout(problem: Problem, step: str, before: int) -> Part:
    """Problem and steps, each followed by a blank line, at the end of which the label stands."""
    text = step.strip() + "\n\n"
    return (text if before else f"{problem.text}\n\n{text}",)


def outcome_layout(problem: Problem, step: str, before: int) -> Part:
    """The chat as it is; the model's own template goes around it."""
    return (step if before else problem.text + step,)


def flat(step: str) -> str:
    """A step on one line."""
    return " ".join(step.split())


# Llama 3.1's template, with the date that it puts in where none is passed.
LLAMA_31 = Turns(
    head=(
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n"
        "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\n"
    ),
    ask="<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    between="<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n",
)
_LLAMA_MARKS = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
_QWEN_MARKS = ("<extra_0>", "<|im_start|>", "<|im_end|>", "<|endoftext|>")
_POOLING = "serve it with vLLM (--runner pooling) or with python -m asearch_backends.prm"

EMBEDDED = Family("embedded", embedded_layout, models=("asearch-prm",))
# Llama3.1-8B-PRM-Deepseek-Data, the article's verifier, and its sibling on Mistral's data (whose authors cut solutions
# at "ки\n", not at blank lines: what they read is the same, a step per turn).
RLHFLOW_DEEPSEEK = Family(
    "rlhflow-deepseek",
    rlhflow_layout,
    ids=(10, 12),
    turns=LLAMA_31,
    reserved=_LLAMA_MARKS,
    models=("prm-deepseek-data",),
)
RLHFLOW_MISTRAL = Family(
    "rlhflow-mistral",
    rlhflow_layout,
    ids=(10, 12),
    turns=LLAMA_31,
    reserved=(*_LLAMA_MARKS, "ки"),
    models=("prm-mistral-data",),
)
MATH_SHEPHERD = Family(
    "math-shepherd",
    shepherd_layout,
    ids=(648, 387),
    bos=True,
    tag="ки",
    reserved=("ки",),
    models=("math-shepherd-mistral",),
)
VERSA = Family(
    "versaprm", versa_layout, ids=(10, 12), bos=True, tag=" \n\n\n\n", reserved=_LLAMA_MARKS, models=("versaprm",)
)
QWEN_MATH = Family(
    "qwen-math",
    qwen_layout,
    read="label",
    tag="<extra_0>",
    reserved=_QWEN_MARKS,
    models=("qwen2.5-math-prm", "math-7b-prm800k"),
    hint=_POOLING,
)
SKYWORK = Family(
    "skywork",
    skywork_layout,
    read="value",
    fragments=True,
    reserved=_QWEN_MARKS,
    models=("skywork-o1-open-prm",),
    hint="serve it with python -m asearch_backends.prm",
)
TRL = Family("trl", trl_layout, read="label", reserved=_QWEN_MARKS, models=("instruct-prm-0.",), hint=_POOLING)
OUTCOME = Family("outcome", outcome_layout, read="outcome", hint="serve it with vLLM (--runner pooling)")

FAMILIES = {
    family.name: family
    for family in (
        EMBEDDED,
        RLHFLOW_DEEPSEEK,
        RLHFLOW_MISTRAL,
        MATH_SHEPHERD,
        VERSA,
        QWEN_MATH,
        SKYWORK,
        TRL,
        OUTCOME,
    )
}
