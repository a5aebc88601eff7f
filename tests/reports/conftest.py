"""A run of scripted servers that the tests of reports share."""

import asyncio

import pytest

from asearch import AnswerWorkers, evaluate
from worlds import ScriptedClient, ScriptedPRM, World

WORLD = World(branching=4, depth=3, answers=3)
QUESTIONS = [{"problem": f"Problem {i}", "answer": str(i % 3), "level": 1 + i % 2} for i in range(12)]


@pytest.fixture(scope="session")
def scripted_run(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    asyncio.run(made(out))
    return out


async def made(out):
    async with AnswerWorkers(size=1) as workers:
        strategies = ["greedy", "best-of-n", "beam-search", "dvts"]
        client, prm = ScriptedClient(WORLD), ScriptedPRM(WORLD, tokens=7)
        await evaluate(
            QUESTIONS, client, prm, strategies, out=out, budgets=(4, 8), seeds=2, baseline=client, workers=workers
        )
