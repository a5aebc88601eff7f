"""The laws of verifiers: what every process reward model must do, whatever is behind it."""

# ruff: noqa: S101 - laws are assertions

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING

from asearch.path import Path, Step
from asearch.problem import STEP_SEPARATOR, Problem, as_problem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asearch.prm import PRM

PROBLEM = r"What is $12 - 3 \cdot (4 + 5)$?"
STEPS = (
    "## Step 1: Add\n$4 + 5 = 9$, which leaves $12 - 3 \\cdot 9$.\n\n",
    "## Step 2: Multiply\n$3 \\cdot 9 = 28$, which leaves $12 - 28$.\n\n",
    "## Step 3: Subtract\n$12 - 28 = -16$.\n\n",
    "Therefore, the final answer is: $\\boxed{-16}$. I hope it is correct.",
)
ANOTHER = "## Step 1: Add\n$4 + 5 = 8$, which leaves $12 - 3 \\cdot 8$.\n\n"


async def assert_prm_laws(
    prm: PRM,
    *,
    problem: str | Problem = PROBLEM,
    steps: Sequence[str] = STEPS,
    tolerance: float = 1e-5,
) -> None:
    """Raise an AssertionError, saying which law is broken, unless a verifier behaves as the search relies on.

    Args:
        prm: the verifier; it is connected, and stays open.
        problem: a problem that it can read.
        steps: the steps of a solution, each with its separator; at least two.
        tolerance: how far two scores of the same step may be apart (the noise of the server's arithmetic).
    """
    problem = as_problem(problem)
    await prm.connect()
    full = await assert_scores_align_with_steps(prm, problem, steps)
    await assert_incremental_is_full(prm, problem, steps, full, tolerance)
    await assert_siblings_do_not_matter(prm, problem, steps, tolerance)
    await assert_blank_lines_are_no_steps(prm, problem, steps, full, tolerance)
    await assert_nothing_runs_on(prm, problem, steps)
    again = await prm.score(path_of(problem, steps))
    assert close(again, full, tolerance), f"after all that the same path scores {again} instead of {full}"


def path_of(problem: Problem, steps: Sequence[str], scores: Sequence[float] = ()) -> Path:
    """A path of these steps, of which the first ones have scores."""
    path = Path(problem)
    for i, text in enumerate(steps):
        score = scores[i] if i < len(scores) else None
        path = path.grow(Step(text, "step" if text.endswith(STEP_SEPARATOR) else "eos", score=score), 0)
    return path


async def assert_scores_align_with_steps(prm: PRM, problem: Problem, steps: Sequence[str]) -> list[float]:
    """One probability per unscored step; none where all have one; the path itself is not changed."""
    path = path_of(problem, steps)
    full = list(await prm.score(path))
    assert len(full) == len(steps), f"{len(full)} scores for {len(steps)} steps"
    assert all(math.isfinite(s) and 0.0 <= s <= 1.0 for s in full), f"not probabilities: {full}"
    assert path.unscored == path.chain, "score() must not change the path"
    nothing = list(await prm.score(path.with_scores(full)))
    assert nothing == [], f"a path whose steps all have scores got {nothing}"
    return full


async def assert_incremental_is_full(
    prm: PRM, problem: Problem, steps: Sequence[str], full: Sequence[float], tolerance: float
) -> None:
    """Scoring step by step, as a search does, gives what scoring the whole path gives."""
    grown: list[float] = []
    for i in range(1, len(steps) + 1):
        scores = list(await prm.score(path_of(problem, steps[:i], grown)))
        assert len(scores) == 1, f"{len(scores)} scores for the one new step {i}"
        grown += scores
    assert close(grown, full, tolerance), f"step by step {grown}, at once {list(full)}"


async def assert_siblings_do_not_matter(prm: PRM, problem: Problem, steps: Sequence[str], tolerance: float) -> None:
    """A path's scores are its own, whoever is scored beside it and in whatever order."""
    paths = [path_of(problem, steps[:k]) for k in range(1, len(steps) + 1)]
    paths.append(path_of(problem, [ANOTHER, *steps[1:]]))
    alone = [list(await prm.score(path)) for path in paths]
    for order in (paths, paths[::-1]):
        together = await asyncio.gather(*(prm.score(path) for path in order))
        scores = dict(zip(map(id, order), map(list, together), strict=True))
        for path, expected in zip(paths, alone, strict=True):
            assert close(scores[id(path)], expected, tolerance), "the siblings of a path change its scores"


async def assert_blank_lines_are_no_steps(
    prm: PRM, problem: Problem, steps: Sequence[str], full: Sequence[float], tolerance: float
) -> None:
    """A step that says nothing keeps the verdict on what stands before it."""
    blank = path_of(problem, [*steps[:2], "\n\n"], full[:2])
    scores = list(await prm.score(blank))
    assert close(scores, [full[1]], tolerance), f"a blank step after {full[1]} got {scores}"
    between = list(await prm.score(path_of(problem, [steps[0], "\n\n", *steps[1:]])))
    expected = [full[0], full[0], *full[1:]]
    assert close(between, expected, tolerance), f"a blank step in between: {between} instead of {expected}"


async def assert_nothing_runs_on(prm: PRM, problem: Problem, steps: Sequence[str]) -> None:
    """Cancelled calls leave nothing running, and no one waits for them."""
    endpoint = getattr(prm, "endpoint", None)
    texts = [[*steps[:-1], f"{steps[-1]} {i}"] for i in range(8)]
    tasks = [asyncio.ensure_future(prm.score(path_of(problem, text))) for text in texts]
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert all(task.cancelled() or task.exception() is None for task in tasks), "a cancelled call failed otherwise"
    if endpoint is not None:
        for _ in range(100):  # closing a connection takes some turns of the loop
            if not endpoint.limiter.in_use:
                break
            await asyncio.sleep(0.01)
        assert not endpoint.limiter.in_use, f"{endpoint.limiter.in_use} sequences are still held after cancellation"


def close(got: Sequence[float], expected: Sequence[float], tolerance: float) -> bool:
    return len(got) == len(expected) and all(abs(a - b) <= tolerance for a, b in zip(got, expected, strict=True))
