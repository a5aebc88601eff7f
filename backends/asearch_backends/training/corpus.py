"""Solved problems as batches of token ids, made while training: every problem is seen once."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

import torch
from torch import Tensor

from asearch_backends.embedded.task import Problem, generate, solution
from asearch_backends.training.tokens import END, PAD, conversation, encode, token_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

T = TypeVar("T")

IGNORED: Final = -100  # PyTorch's label for positions without a loss
CHUNK: Final = 4096  # problems that are sorted by length together
VARIED: Final = 0.1  # share of problems in other words than the canonical ones


class TextBatch(NamedTuple):
    """Token ids and what should follow each of them, [batch, tokens]; the question itself carries no loss."""

    ids: Tensor
    targets: Tensor


def text_batches(seed: int, tokens: int) -> Iterator[TextBatch]:
    """Endless batches of about so many tokens of fresh problems with their right solutions."""
    rng = random.Random(f"corpus:{seed}")
    while True:
        problems = generate(rng.getrandbits(48), CHUNK, varied=VARIED)
        prompts = encode(conversation(problem.text) for problem in problems)
        whole = encode(conversation(problem.text, solution(problem)) + END for problem in problems)
        pairs = list(zip(whole, map(len, prompts), strict=True))
        groups = list(by_length(pairs, tokens, lambda pair: len(pair[0])))
        rng.shuffle(groups)
        yield from (text_batch(group) for group in groups)


def text_batch(pairs: Sequence[tuple[list[int], int]]) -> TextBatch:
    """Pads (ids, length of the question) pairs to one rectangle."""
    ids = pad([row[:-1] for row, _ in pairs], token_id(PAD))
    targets = pad([[IGNORED] * (start - 1) + row[start:] for row, start in pairs], IGNORED)
    return TextBatch(ids, targets)


def by_length(items: Iterable[T], tokens: int, length: Callable[[T], int]) -> Iterator[list[T]]:
    """Groups items of similar length, so that each group padded to its longest has about so many tokens."""
    group: list[T] = []
    for item in sorted(items, key=length):
        if group and (len(group) + 1) * length(item) > tokens:
            yield group
            group = []
        group.append(item)
    if group:
        yield group


def pad(rows: Sequence[Sequence[int]], filler: int) -> Tensor:
    """Rows of numbers as one tensor, filled up on the right."""
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[filler] * (longest - len(row))] for row in rows])


def prompts_of(problems: Iterable[Problem]) -> list[list[int]]:
    """The token ids that a policy continues, one list per problem."""
    return encode(conversation(problem.text) for problem in problems)
