"""Continuing step by step is lossless: the tokens are those of one uninterrupted generation."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from vllm_servers import MODELS

from asearch import OpenAIClient, Problem, Sampling
from asearch import Path as Solution
from asearch.concurrency import together
from asearch.embedded import embedded_problems, embedded_server

if TYPE_CHECKING:
    from pathlib import Path

GREEDY = Sampling(temperature=0.0, max_tokens=256)
PROBLEMS = 50


@dataclass(frozen=True)
class Written:
    """What one server writes greedily to the same problems, by three ways."""

    problems: list[Problem]
    by_steps: list[Solution]
    at_once: list[tuple[int, ...]]
    by_text: list[tuple[int, ...]]


@pytest.fixture(scope="module")
def problems() -> list[Problem]:
    return [Problem(text) for text, _answer in asyncio.run(embedded_problems(PROBLEMS, seed=7))]


@pytest.fixture(scope="module")
def shipped(policy, problems) -> Written:
    return asyncio.run(write(policy, problems, GREEDY))


@pytest.fixture(scope="module")
def tiny(llama, problems) -> Written:
    return asyncio.run(write(llama, [Problem(p.text, system=None) for p in problems], Sampling(0.0, max_tokens=200)))


async def write(url: str, problems: list[Problem], sampling: Sampling) -> Written:
    client = OpenAIClient(url)
    try:
        return Written(
            problems,
            await together(step_by_step(client, problem, sampling) for problem in problems),
            await together(at_once(client, problem, sampling) for problem in problems),
            await together(through_text(client, problem, sampling) for problem in problems),
        )
    finally:
        await client.aclose()


async def step_by_step(client: OpenAIClient, problem: Problem, sampling: Sampling) -> Solution:
    path = Solution(problem)
    while not path.finished:
        (step,) = await client.extend(path, 1, sampling=sampling, seed=1)
        path = path.grow(step, 0)
    return path


async def at_once(client: OpenAIClient, problem: Problem, sampling: Sampling) -> tuple[int, ...]:
    (step,) = await client.extend(Solution(problem), 1, sampling=sampling, seed=1, whole=True)
    return step.token_ids


async def through_text(client: OpenAIClient, problem: Problem, sampling: Sampling) -> tuple[int, ...]:
    """By text prompts, as on servers that take none but text: the tokens may be cut anew at each step."""
    post = client.endpoint.post
    rendered = await post("/tokenize", {"model": client.model, "messages": problem.messages})
    prompt = (await post("/detokenize", {"model": client.model, "tokens": rendered["tokens"]}))["prompt"]
    body = {"model": client.model, "temperature": 0.0, "stop": ["\n\n"], "include_stop_str_in_output": True}
    body |= {"add_special_tokens": False, "return_token_ids": True}
    ids: list[int] = []
    while len(ids) < sampling.max_tokens:
        reply = await post("/v1/completions", body | {"prompt": prompt, "max_tokens": sampling.max_tokens - len(ids)})
        (choice,) = reply["choices"]
        ids += choice["token_ids"]
        prompt += choice["text"]
        if not isinstance(choice["stop_reason"], str):
            break
    return tuple(ids)


def test_steps_add_up_to_one_generation(shipped):
    assert [path.token_ids for path in shipped.by_steps] == shipped.at_once
    assert sum(path.depth for path in shipped.by_steps) > 3 * PROBLEMS
    assert {path.finish for path in shipped.by_steps} <= {"eos", "length"}


def test_also_with_a_template_that_trims_and_a_tokenizer_that_adds_bos(tiny):
    assert [path.token_ids for path in tiny.by_steps] == tiny.at_once
    assert sum(path.depth for path in tiny.by_steps) > PROBLEMS  # else nothing was continued


async def test_the_embedded_server_writes_what_vllm_writes(shipped):
    async with embedded_server("policy") as url:
        client = OpenAIClient(url)
        paths = await together(step_by_step(client, problem, GREEDY) for problem in shipped.problems)
        await client.aclose()
    assert [path.token_ids for path in paths] == shipped.at_once
    for path, same in zip(paths, shipped.by_steps, strict=True):
        assert [(s.text, s.finish, s.token_ids) for s in path.steps] == [
            (s.text, s.finish, s.token_ids) for s in same.steps
        ]


def test_transformers_writes_what_vllm_writes(shipped):
    for problem, ids in zip(shipped.problems, shipped.at_once, strict=True):
        assert greedy_choices(MODELS / "policy", problem, ids) == ids


def greedy_choices(folder: Path, problem: Problem, ids: tuple[int, ...]) -> tuple[int, ...]:
    """The likeliest token after the prompt and after each of `ids`: equal to `ids` iff that is the greedy text."""
    import torch

    model, tokenizer = loaded(folder)
    prompt = tokenizer.apply_chat_template(problem.messages, add_generation_prompt=True, tokenize=False)
    start = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        logits = model(torch.tensor([[*start, *ids]])).logits[0]
    return tuple(logits[len(start) - 1 : -1].argmax(-1).tolist())


def loaded(folder: Path, cache={}):  # noqa: B006 - once per run is the point
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if folder not in cache:
        torch.set_num_threads(1)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        cache[folder] = model, AutoTokenizer.from_pretrained(folder)
    return cache[folder]


def test_through_text_prompts(shipped, tiny, record_property):
    """Text is the fall-back. Here one token is one character, so nothing is lost; a BPE tokenizer may cut otherwise."""
    lost = mismatches(shipped)
    record_property("greedy solutions that differ through text prompts, shipped policy", f"{lost} of {PROBLEMS}")
    record_property("... random Llama with byte-level BPE", f"{mismatches(tiny)} of {PROBLEMS}")
    assert lost == 0


def mismatches(written: Written) -> int:
    return sum(text != ids for text, ids in zip(written.by_text, written.at_once, strict=True))
