"""What the process reward model learns from: solutions with an exact verdict on every token."""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, NamedTuple

import torch
from torch import Tensor

from asearch_backends.embedded.task import BLANK_LINE, Problem, generate, solution
from asearch_backends.training.corpus import IGNORED, VARIED, by_length, pad
from asearch_backends.training.mistakes import mistaken_solution
from asearch_backends.training.tokens import END, PAD, conversation, encode, token_id

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SHARES: Final = {"right": 0.3, "value": 0.55, "copy": 0.15}  # of the policy samples in a batch, by their first mistake
SYNTHETIC: Final = 0.45  # share of synthetic examples, among whose mistakes wrong copies are as frequent as values
CHUNK: Final = 2048  # examples that are sorted by length together
FIRST_WRONG_WEIGHT: Final = 8.0
STEP_END_WEIGHT: Final = 2.0
TOKEN_WEIGHT: Final = 0.5
LONGEST: Final = 330


@dataclass(frozen=True, slots=True)
class Example:
    """A solution in tokens, beside the right solution of the same problem.

    `start` is the length of the question, `wrong` the position of the first token that is not right (None: all are),
    and `kind` says what it is: the value of an operation, or anything that should have been copied.
    """

    ids: list[int]
    gold: list[int]
    start: int
    wrong: int | None
    kind: str


class VerdictBatch(NamedTuple):
    """Ids and what is to be said about them, all [batch, tokens].

    `next_ids` are the right next tokens while all is right; `verdicts` the ids of "+" or "-" with their `weights`;
    `mismatches` 1.0 where the token itself is the first wrong one, 0.0 before it, nan after it and in the question.
    """

    ids: Tensor
    next_ids: Tensor
    verdicts: Tensor
    weights: Tensor
    mismatches: Tensor


def examples_of(problems: Sequence[Problem], answers: Sequence[str]) -> list[Example]:
    """Compares answers with the right solutions, token by token."""
    prompts = encode(conversation(problem.text) for problem in problems)
    golds = encode(conversation(problem.text, solution(problem)) + END for problem in problems)
    found = encode(conversation(problem.text, answer) + END for problem, answer in zip(problems, answers, strict=True))
    rows = zip(prompts, golds, found, strict=True)
    return [_example(ids, gold, len(prompt)) for prompt, gold, ids in rows if len(ids) <= LONGEST]


def _example(ids: list[int], gold: list[int], start: int) -> Example:
    wrong = next((place for place, (a, b) in enumerate(zip(ids, gold, strict=False)) if a != b), None)
    kind = "right" if wrong is None else "value" if _is_value(gold, wrong) else "copy"
    return Example(ids, gold, start, wrong, kind)


def _is_value(gold: list[int], place: int) -> bool:
    """Whether a position of the right solution belongs to the result of an operation: digits follow an equals sign."""
    equals, digits = token_id(" = "), {token_id(character) for character in "-0123456789"}
    while gold[place] in digits:
        place -= 1
        if gold[place] == equals:
            return True
    # The token after the last digit: a result that goes on too long is a wrong result.
    before = place - 1
    while gold[before] in digits:
        before -= 1
    return before < place - 1 and gold[before] == equals


def synthetic_examples(seed: int, count: int) -> list[Example]:
    """Fresh problems with right or deliberately mistaken solutions."""
    rng = random.Random(f"synthetic:{seed}")
    problems = generate(rng.getrandbits(48), count, varied=VARIED)
    answers = [
        solution(problem) if rng.random() < SHARES["right"] else mistaken_solution(problem.expression, rng)
        for problem in problems
    ]
    return examples_of(problems, answers)


def verdict_batches(
    pool: Sequence[Example], hard: Sequence[Example], seed: int, tokens: int, shortened: float = 0.0
) -> Iterator[VerdictBatch]:
    """Endless batches: policy samples drawn from the pool in fixed shares of right and wrong, and synthetic ones.

    `hard` holds mistakes that an earlier model fell for; they take a sixth of the batches when there are any. A share
    `shortened` of the wrong solutions ends with the first wrong step, since there is little to learn after it.
    """
    rng = random.Random(f"verdicts:{seed}")
    kinds: dict[str, list[Example]] = defaultdict(list)
    for example in pool:
        kinds[example.kind].append(example)
    while True:
        chunk = synthetic_examples(rng.getrandbits(48), round(CHUNK * SYNTHETIC))
        mined = CHUNK // 6 if hard else 0
        chunk += rng.choices(hard, k=mined) if hard else []
        rest = CHUNK - len(chunk)
        for kind, share in SHARES.items():
            if kinds[kind]:  # a rehearsal has few samples, perhaps none that is right
                chunk += rng.choices(kinds[kind], k=round(rest * share))
        if shortened:
            chunk = [shorten(example) if rng.random() < shortened else example for example in chunk]
        groups = list(by_length(chunk, tokens, lambda example: len(example.ids)))
        rng.shuffle(groups)
        yield from (verdict_batch(group) for group in groups)


def shorten(example: Example) -> Example:
    """The example up to the end of its first wrong step (and one more token, where the end token would be)."""
    if example.wrong is None:
        return example
    blank = token_id(BLANK_LINE)
    end = next((place for place in range(example.wrong, len(example.ids)) if example.ids[place] == blank), None)
    return example if end is None else replace(example, ids=example.ids[: end + 2])


def verdict_batch(examples: Sequence[Example]) -> VerdictBatch:
    """Pads examples to one rectangle of tokens and labels."""
    right, wrong = token_id("+"), token_id("-")
    rows = [_labels(example, right, wrong) for example in examples]
    ids, next_ids, verdicts, weights, mismatches = zip(*rows, strict=True)
    return VerdictBatch(
        pad(ids, token_id(PAD)),
        pad(next_ids, IGNORED),
        pad(verdicts, IGNORED),
        pad(weights, 0).float(),
        pad(mismatches, -1).float().where(pad(mismatches, -1) >= 0, torch.nan),
    )


def _labels(example: Example, right: int, wrong: int) -> tuple[list[int], list[int], list[int], list[float], list[int]]:
    """The rows of one example; the end token is no input, but a missing or early one is a mistake seen before it."""
    ids, gold, start = example.ids[:-1], example.gold, example.start
    first = len(ids) if example.wrong is None else example.wrong
    ends = step_ends(ids, start)
    next_ids = [
        gold[place + 1] if start - 1 <= place < min(first, len(gold) - 1) else IGNORED for place in range(len(ids))
    ]
    verdicts, weights, mismatches = [], [], []
    for place in range(len(ids)):
        judged = start <= place and (place <= first or place in ends)
        verdicts.append((right if place < first else wrong) if judged else IGNORED)
        weight = FIRST_WRONG_WEIGHT if place == first else STEP_END_WEIGHT if place in ends else TOKEN_WEIGHT
        weights.append(weight if judged else 0.0)
        mismatches.append(-1 if place < start or place > first else int(place == first))
    return ids, next_ids, verdicts, weights, mismatches


def step_ends(ids: Sequence[int], start: int) -> list[int]:
    """The positions at which a score is read: each blank line after the question, and the last token."""
    blank = token_id(BLANK_LINE)
    ends = [place for place in range(start, len(ids)) if ids[place] == blank]
    if len(ids) > start and (not ends or ends[-1] != len(ids) - 1):
        ends.append(len(ids) - 1)
    return ends
