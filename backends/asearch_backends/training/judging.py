"""Scoring solutions with a process reward model in PyTorch, and how well the scores tell right from wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch

from asearch_backends.training.corpus import by_length, pad
from asearch_backends.training.tokens import PAD, token_id
from asearch_backends.training.verdicts import step_ends

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from asearch_backends.training.llama import Llama

TOKENS: Final = 16384  # in one batch


def step_scores(model: Llama, rows: Sequence[tuple[list[int], int]]) -> list[list[float]]:
    """P(all right so far) at the end of every step of (ids without end token, length of the question)."""
    signs = torch.tensor([token_id("+"), token_id("-")])
    found: list[list[float]] = [[] for _ in rows]
    for group in by_length(range(len(rows)), TOKENS, lambda index: len(rows[index][0])):
        with torch.inference_mode():
            state = model.hidden(pad([rows[index][0] for index in group], token_id(PAD)))[-1]
            for place, index in enumerate(group):
                logits = model.logits(state[place, step_ends(*rows[index])])[:, signs]
                found[index] = torch.softmax(logits, -1)[:, 0].tolist()
    return found


def within_problem_auc(groups: Iterable[Sequence[tuple[float, bool]]]) -> float:
    """The chance that a right solution scores above a wrong one of the same problem, averaged over problems.

    Problems without both are left out. The usual AUC over all solutions mostly measures which problems are easy.
    """
    values = [value for group in groups if (value := auc(group)) is not None]
    return sum(values) / len(values) if values else float("nan")


def auc(scored: Sequence[tuple[float, bool]]) -> float | None:
    """The area under the ROC curve of (score, label) pairs; ties count half; None without both labels."""
    right = [score for score, label in scored if label]
    wrong = [score for score, label in scored if not label]
    if not right or not wrong:
        return None
    wins = sum((a > b) + 0.5 * (a == b) for a in right for b in wrong)
    return wins / (len(right) * len(wrong))
