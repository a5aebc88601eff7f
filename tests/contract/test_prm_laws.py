"""The laws of verifiers: kept by ours, and each noticed when it is broken."""

from __future__ import annotations

import asyncio

import pytest

from asearch.prm import CausalPRM, FunctionPRM, as_prm
from asearch.testing import assert_prm_laws


def honest(problem: str, steps: list[str]) -> list[float]:
    """Any score that depends on what was said up to the step, and on nothing else."""
    scores, said = [], problem
    for step in steps:
        said += step.strip()
        scores.append(sum(map(ord, said)) % 101 / 101)
    return scores


async def test_a_function_keeps_them():
    await assert_prm_laws(FunctionPRM(honest))


async def test_the_embedded_prm_keeps_them(servers):
    prm = as_prm(servers.prm)
    try:
        await assert_prm_laws(prm)
    finally:
        await prm.aclose()


async def test_step_by_step_requests_keep_them(servers):
    """Without batches or what was scored before, too."""
    prm = CausalPRM(servers.prm, concurrency=1)
    prm._batcher.max_items = 1
    try:
        await assert_prm_laws(prm)
    finally:
        await prm.aclose()


class Broken(FunctionPRM):
    """A verifier with one fault."""

    def __init__(self, fault: str) -> None:
        super().__init__(honest)
        self.fault = fault
        self.calls = 0

    async def score(self, path):
        self.calls += 1
        scores = await super().score(path)
        if self.fault == "too many":
            return [*scores, 0.5]
        if self.fault == "no probabilities":
            return [score * 30 - 10 for score in scores]
        if self.fault == "looks ahead":
            return [score * (1 - path.depth / 100) for score in scores]
        if self.fault == "counts calls":
            return [min(1.0, score * 0.5 + self.calls / 1000) for score in scores]
        if self.fault == "blank steps count":
            return [0.5 if not step.text.strip() else s for s, step in zip(scores, path.unscored, strict=True)]
        if self.fault == "swallows cancellation":
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError as failure:
                raise RuntimeError("busy") from failure
        return scores


@pytest.mark.parametrize(
    ("fault", "law"),
    [
        ("too many", "scores for"),
        ("no probabilities", "not probabilities"),
        ("looks ahead", "step by step"),
        ("counts calls", "step by step"),
        ("blank steps count", "a blank step"),
        ("swallows cancellation", "failed otherwise"),
    ],
)
async def test_each_broken_law_is_named(fault, law):
    with pytest.raises(AssertionError, match=law):
        await assert_prm_laws(Broken(fault))
