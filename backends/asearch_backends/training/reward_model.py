"""Training of the process reward model: a language model that can solve the task learns to say where a solution fails.

A right solution is unique, so a token is right exactly if it is the one that the language model would have written. What
has to be learned on top is to compare each token with the prediction made one position earlier (first added layer), and
to remember any mismatch so far (second added layer). Two helper heads, thrown away afterwards, teach the first part
directly: one makes the base keep which token it has just read (a language model tends to forget that, as it only needs
the next one), the other makes the first added layer tell a local mismatch.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from asearch_backends.training.corpus import IGNORED
from asearch_backends.training.language_model import MATRIX_RATE, REPORT_EVERY, STACKED_MATRICES, VECTOR_RATE, apply
from asearch_backends.training.llama import Llama, deepen, norm
from asearch_backends.training.optimizer import Muon, schedule
from asearch_backends.training.verdicts import Example, VerdictBatch, verdict_batches

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

ADDED_LAYERS: Final = 2
BASE_RATE: Final = 0.3  # of the full learning rate, for the layers that come from the language model
WRITING_WEIGHT: Final = 0.5  # of the language-model loss
MISMATCH_WEIGHT: Final = 0.5  # of the loss of the head that tells a local mismatch
CHECKPOINT_EVERY: Final = 500
READING_WEIGHT: Final = 0.1  # of the loss of the head that tells the token just read


@dataclass(frozen=True, slots=True)
class RewardRecipe:
    """How long and on what batches the process reward model is trained."""

    tokens: int
    batch: int = 3072
    seed: int = 0
    warm_up: int = 100
    flat: float = 0.4  # share of the steps before the learning rate falls
    peak: float = 1.0  # of the usual learning rates
    shortened: float = 0.5  # share of the wrong solutions that are cut after the first wrong step


class Losses(NamedTuple):
    """The verdict at the top, the local mismatch one layer above the base, the next and the present token at the base."""

    verdict: Tensor
    mismatch: Tensor
    writing: Tensor
    reading: Tensor

    def total(self) -> Tensor:
        """What is minimized."""
        helpers = MISMATCH_WEIGHT * self.mismatch + READING_WEIGHT * self.reading
        return self.verdict + WRITING_WEIGHT * self.writing + helpers


class Trainee(nn.Module):  # type: ignore[misc, unused-ignore]  # torch may be absent
    """The process reward model with the parts that only training needs."""

    def __init__(self, base: Llama, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.base_layers = base.shape.layers
        self.model = deepen(base, ADDED_LAYERS, seed)
        self.writing_norm = nn.Parameter(base.final_norm.detach().clone())
        self.reading_head = nn.Linear(base.shape.width, base.shape.vocabulary)
        self.mismatch_norm = nn.Parameter(torch.ones(base.shape.width))
        self.mismatch_head = nn.Linear(base.shape.width, 1)

    def losses(self, batch: VerdictBatch) -> Losses:
        """Weighted mean losses of the model's output and of the parts inside it."""
        base, compared, top = self.model.hidden(batch.ids, taps=(self.base_layers, self.base_layers + 1))
        return Losses(
            self._verdict(batch, top),
            self._mismatch(batch, compared),
            self._writing(batch, base),
            self._reading(batch, base),
        )

    def _verdict(self, batch: VerdictBatch, state: Tensor) -> Tensor:
        judged = batch.verdicts != IGNORED
        weights = batch.weights[judged]
        losses = F.cross_entropy(self.model.logits(state[judged]), batch.verdicts[judged], reduction="none")
        return (losses * weights).sum() / weights.sum()

    def _mismatch(self, batch: VerdictBatch, state: Tensor) -> Tensor:
        known = ~batch.mismatches.isnan()
        logits = self.mismatch_head(norm(state[known], self.mismatch_norm)).squeeze(-1)
        labels, weights = batch.mismatches[known], batch.weights[known]
        losses = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
        return (losses * weights).sum() / weights.sum()

    def _writing(self, batch: VerdictBatch, state: Tensor) -> Tensor:
        right = batch.next_ids != IGNORED
        logits = F.linear(norm(state[right], self.writing_norm), self.model.embedding)
        return F.cross_entropy(logits, batch.next_ids[right])

    def _reading(self, batch: VerdictBatch, state: Tensor) -> Tensor:
        known = batch.verdicts != IGNORED
        return F.cross_entropy(self.reading_head(norm(state[known], self.writing_norm)), batch.ids[known])


def train_reward_model(
    base: Llama | Trainee,
    pool: Sequence[Example],
    hard: Sequence[Example],
    recipe: RewardRecipe,
    *,
    checkpoints: Path | None = None,
) -> Trainee:
    """Trains on policy samples and deliberate mistakes, from a language model or from an earlier round."""
    trainee = base if isinstance(base, Trainee) else Trainee(base, recipe.seed)
    optimizers = reward_optimizers(trainee)
    steps = recipe.tokens // recipe.batch
    started, seen, sums = time.monotonic(), 0, torch.zeros(len(Losses._fields))
    batches = verdict_batches(pool, hard, recipe.seed, recipe.batch, recipe.shortened)
    for step, batch in zip(range(1, steps + 1), batches, strict=False):
        losses = trainee.losses(batch)
        losses.total().backward()  # type: ignore[no-untyped-call, unused-ignore]
        apply(optimizers, recipe.peak * schedule(step, steps, warm_up=recipe.warm_up, flat=recipe.flat))
        seen += batch.ids.numel()
        sums += torch.stack(losses).detach()
        if step % REPORT_EVERY == 0:
            shown = "  ".join(
                f"{name} {value:.4f}" for name, value in zip(Losses._fields, sums / REPORT_EVERY, strict=True)
            )
            print(f"step {step}/{steps}  {shown}  {seen / (time.monotonic() - started):,.0f} tokens/s", flush=True)
            sums.zero_()
        if checkpoints is not None and step % CHECKPOINT_EVERY == 0:
            torch.save(trainee.state_dict(), checkpoints / f"trainee-{step}.pt")
    return trainee


def reward_optimizers(trainee: Trainee) -> list[torch.optim.Optimizer]:
    """Full rates for what is new, BASE_RATE of them for what the language model brought along."""
    named = dict(trainee.model.named_parameters())
    muon = Muon([named[name] for name in STACKED_MATRICES], lr=MATRIX_RATE)
    rates = torch.ones(trainee.model.shape.layers)
    rates[: trainee.base_layers] = BASE_RATE
    muon.param_groups[0]["scales"] = rates
    learned = [named["embedding"], trainee.writing_norm]
    old = {id(parameter) for parameter in learned} | {id(named[name]) for name in STACKED_MATRICES}
    new = [parameter for parameter in trainee.parameters() if id(parameter) not in old]
    groups = [{"params": learned, "lr": VECTOR_RATE * BASE_RATE}, {"params": new, "lr": VECTOR_RATE}]
    adam = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.0)
    optimizers: list[torch.optim.Optimizer] = [muon, adam]
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak"] = group["lr"]
    return optimizers
