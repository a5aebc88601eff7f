"""Training of the language models: the two policies, and the base of the process reward model."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional as F

from asearch_backends.training.corpus import IGNORED, text_batches
from asearch_backends.training.llama import Llama, Shape
from asearch_backends.training.optimizer import Muon, schedule
from asearch_backends.training.tokens import vocabulary_size

MATRIX_RATE: Final = 0.02
VECTOR_RATE: Final = 4e-3
REPORT_EVERY: Final = 100
STACKED_MATRICES: Final = ("attend_in", "attend_out", "inner_in", "inner_out")


@dataclass(frozen=True, slots=True)
class Recipe:
    """What is trained, on how many tokens in all, and in batches of how many tokens."""

    width: int
    layers: int
    inner: int
    tokens: int
    batch: int = 2560
    seed: int = 0


def train_language_model(recipe: Recipe) -> Llama:
    """Trains from scratch on fresh problems; the same recipe gives the same model."""
    model = Llama(Shape(vocabulary_size(), recipe.width, recipe.layers, recipe.inner), recipe.seed)
    optimizers = optimizers_of(model)
    steps = recipe.tokens // recipe.batch
    started, seen = time.monotonic(), 0
    for step, batch in zip(range(steps), text_batches(recipe.seed, recipe.batch), strict=False):
        loss = text_loss(model, *batch)
        loss.backward()  # type: ignore[no-untyped-call, unused-ignore]
        apply(optimizers, schedule(step, steps))
        seen += batch.ids.numel()
        if step % REPORT_EVERY == 0:
            rate = seen / (time.monotonic() - started)
            print(f"step {step}/{steps}  loss {loss.item():.4f}  {rate:,.0f} tokens/s", flush=True)
    return model


def text_loss(model: Llama, ids: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of the tokens that have a target."""
    kept = targets != IGNORED
    state = model.hidden(ids)[-1]
    return F.cross_entropy(model.logits(state[kept]), targets[kept])


def optimizers_of(model: Llama) -> list[torch.optim.Optimizer]:
    """Muon for the stacked matrices, AdamW for embedding and norms."""
    matrices = [parameter for name, parameter in model.named_parameters() if name in STACKED_MATRICES]
    vectors = [parameter for name, parameter in model.named_parameters() if name not in STACKED_MATRICES]
    adam = torch.optim.AdamW(vectors, lr=VECTOR_RATE, betas=(0.9, 0.98), weight_decay=0.0)
    optimizers: list[torch.optim.Optimizer] = [Muon(matrices, lr=MATRIX_RATE), adam]
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak"] = group["lr"]
    return optimizers


def apply(optimizers: list[torch.optim.Optimizer], factor: float) -> None:
    """One update of every optimizer at so many times its peak rate; gradients are cleared."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * factor
        optimizer.step()
        optimizer.zero_grad()
