"""Clients and whole searches on real vLLM."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

import aiohttp

import asearch
from asearch import OpenAIClient, Path, Problem, Sampling
from asearch.embedded import embedded_problems
from asearch.testing import assert_client_laws

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


def counting(url: str) -> Callable[[], Awaitable[int]]:
    """How many sequences a server says are under way."""

    async def running() -> int:
        async with aiohttp.ClientSession() as session, session.get(f"{url}/metrics") as reply:
            text = await reply.text()
        return sum(
            int(float(n))
            for n in re.findall(r"^vllm:num_requests_(?:running|waiting)\{.*\} (\S+)$", text, re.MULTILINE)
        )

    return running


async def assert_idle(url: str) -> None:
    """What a search that had its answer cancelled ends in the engine, too, in a moment."""
    async with asyncio.timeout(30):
        while await counting(url)():  # noqa: ASYNC110 - another process, which tells nobody
            await asyncio.sleep(0.05)


async def test_laws_on_the_shipped_policy(policy):
    client = OpenAIClient(policy)
    try:
        await assert_client_laws(client, running=counting(policy))
    finally:
        await client.aclose()


async def test_laws_on_a_llama_3_template(llama):
    client = OpenAIClient(llama)
    problem = Problem("What is $3 + 4$?", system=None)
    try:
        await assert_client_laws(client, problem=problem, sampling=Sampling(max_tokens=64), running=counting(llama))
    finally:
        await client.aclose()


async def test_a_search_finds_answers(policy, verifier):
    problems = await embedded_problems(4, seed=11)
    for problem, _right in problems:
        result = await asearch.dvts(policy, verifier, problem, n=4, seed=1)
        assert result.answer is not None
        assert result.score is not None
        assert 0.0 <= result.score <= 1.0
        assert result.usage.scored > 0
        assert result.usage.policy_tokens > 0
    await assert_idle(policy)
    await assert_idle(verifier)


async def test_the_same_seed_is_the_same_search(policy, verifier):
    ((problem, _answer),) = await embedded_problems(1, seed=12)
    first, second = [await asearch.beam_search(policy, verifier, problem, n=4, seed=5) for _ in range(2)]
    assert [path.text for path in first.paths] == [path.text for path in second.paths]
    assert first.answer == second.answer


async def test_the_context_ends_a_path_as_length(policy):
    """max_model_len is 512 there, and vLLM would clamp an overflow without a word."""
    client = OpenAIClient(policy)
    try:
        steps = await client.extend(Path(Problem("1 + " * 400)), 2, sampling=Sampling(), seed=1)
        assert [(step.text, step.finish) for step in steps] == [("", "length")] * 2
        path = Path(Problem("What is $" + " + ".join(["1"] * 110) + "$?"))
        (step,) = await client.extend(path, 1, sampling=Sampling(temperature=0.0, max_tokens=2048), seed=1, whole=True)
        assert step.finish in {"length", "eos"}
        assert step.tokens < 512
    finally:
        await client.aclose()
