"""Generation in batches with PyTorch: samples to learn from, and the evaluation of what was learned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor

from asearch_backends.training.llama import Cache, Llama
from asearch_backends.training.tokens import END, token_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

ROWS: Final = 512  # sequences in one batch
LONGEST: Final = 300  # tokens of question and solution together; the longest right ones have about 250


def sample(
    model: Llama,
    prompts: Sequence[Sequence[int]],
    *,
    temperature: float,
    seed: int = 0,
    ends: Iterable[str] = (END,),
) -> list[list[int]]:
    """One continuation of each prompt up to one of the tokens `ends`, which it keeps; temperature 0 is greedy."""
    generator = torch.Generator().manual_seed(seed)
    stops = torch.tensor([token_id(end) for end in {*ends, END}])
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    found: list[list[int]] = [[] for _ in prompts]
    for start in range(0, len(order), ROWS):
        rows = order[start : start + ROWS]
        batch = _Batch(model, [prompts[row] for row in rows], stops)
        with torch.inference_mode():
            continuations = batch.run(temperature, generator)
        for row, continuation in zip(rows, continuations, strict=True):
            found[row] = continuation
    return found


class _Batch:
    """Sequences that advance together, one position at a time.

    All stand at the same position: a row whose prompt is longer than that takes its next token from the prompt, so
    prompts of different length need no mask.
    """

    def __init__(self, model: Llama, prompts: Sequence[Sequence[int]], stops: Tensor) -> None:
        self.model, self.stops = model, stops
        self.starts = torch.tensor([len(prompt) for prompt in prompts])
        self.ids = torch.zeros(len(prompts), LONGEST, dtype=torch.long)
        for row, prompt in enumerate(prompts):
            self.ids[row, : len(prompt)] = torch.tensor(prompt)
        self.active = torch.arange(len(prompts))
        self.lengths = torch.full((len(prompts),), LONGEST)
        self.cache = Cache(model.shape, len(prompts), LONGEST)

    def run(self, temperature: float, generator: torch.Generator) -> list[list[int]]:
        """The continuations, in the order of the prompts."""
        position = int(self.starts.min())
        logits = self.model(self.ids[:, :position], self.cache)[:, -1]
        while True:
            self._put(position, choose(logits, temperature, generator))
            position += 1
            if position == LONGEST or not len(self.active):
                break
            logits = self.model(self.ids[self.active, position - 1 : position], self.cache)[:, -1]
        return [
            row[start:length].tolist()
            for row, start, length in zip(self.ids, self.starts.tolist(), self.lengths.tolist(), strict=True)
        ]

    def _put(self, position: int, chosen: Tensor) -> None:
        """Writes the next tokens, and takes rows that have ended out of the batch."""
        generated = self.starts[self.active] <= position
        tokens = torch.where(generated, chosen, self.ids[self.active, position])
        self.ids[self.active, position] = tokens
        over = generated & torch.isin(tokens, self.stops)
        if over.any():
            self.lengths[self.active[over]] = position + 1
            self.active = self.active[~over]
            self.cache.keep((~over).nonzero().flatten())


def choose(logits: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
    """One token for each row."""
    if temperature == 0:
        return logits.argmax(-1)
    return torch.multinomial(torch.softmax(logits / temperature, -1), 1, generator=generator).flatten()
