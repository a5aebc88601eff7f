"""The peer's half of peers.py: its_hub's own beam search, in its own environment. Reads its task as JSON, prints JSON.

The policy is reached by its_hub's own client, the PRM through its `AbstractProcessRewardModel`, which asks for one score
per response: one request per level, a verdict after each text, over a kept connection.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import sys
import time
import warnings
from typing import Any

import aiohttp
from counters import STEPS, WRITTEN, Counts
from its_hub import OpenAICompatibleLanguageModel, StepGeneration
from its_hub.api import AbstractProcessRewardModel
from its_hub.core.algorithms.beam_search import BeamSearch

LIKELIEST = 20  # what vLLM allows by default (--max-logprobs)


class Policy(OpenAICompatibleLanguageModel):
    """its_hub's client, with a counter: each conversation is a request."""

    requests = 0

    async def agenerate(self, messages: Any, *arguments: Any, **options: Any) -> Any:
        self.requests += len(messages) if isinstance(messages[0], list) else 1
        return await super().agenerate(messages, *arguments, **options)


class Verifier(AbstractProcessRewardModel):
    """The PRM's last verdict on each response.

    Args:
        task: where the PRM is and how it reads solutions.
        session: kept open for the whole run.
    """

    def __init__(self, task: dict[str, Any], session: aiohttp.ClientSession) -> None:
        self.task, self.session = task, session
        self.requests = self.scored = self.tokens = 0
        good, bad = task["verdicts"]
        self.wanted: dict[str, Any] = {"logprobs": 0, "logprob_token_ids": [good, bad]}

    def score(self, prompt_or_messages: Any, steps: list[str]) -> list[float]:
        return asyncio.run(self.ascore(prompt_or_messages, steps))

    async def ascore(self, prompt_or_messages: Any, steps: list[str]) -> list[float]:
        head = self.task["head"].replace("{problem}", str(prompt_or_messages))
        good, bad = self.task["verdicts"]
        body = {
            "model": self.task["prm_model"],
            "prompt": [head + response for response in steps],
            "max_tokens": 1,
            "temperature": 0.0,
            "add_special_tokens": False,
            "return_tokens_as_token_ids": True,
            **self.wanted,
        }
        async with self.session.post(self.task["prm"] + "/v1/completions", json=body) as response:
            response.raise_for_status()
            reply = await response.json()
        self.requests += 1
        self.scored += len(steps)
        self.tokens += reply["usage"]["prompt_tokens"]
        tops = [choice["logprobs"]["top_logprobs"][0] for choice in reply["choices"]]
        pairs = [[top.get(f"token_id:{token}") for token in (good, bad)] for top in tops]
        if "logprob_token_ids" in self.wanted and any(None in pair for pair in pairs):
            # an older vLLM (0.25.1), which passes over what it does not know: the likeliest tokens, as asearch asks there
            self.wanted = {"logprobs": LIKELIEST}
            return await self.ascore(prompt_or_messages, steps)
        return [score(*pair, least=min(top.values())) for pair, top in zip(pairs, tops, strict=True)]


def score(good: float | None, bad: float | None, least: float) -> float:
    """Of both log-probabilities; one that is not among the likeliest is at most the least of these."""
    return 1 / (1 + math.exp((least if bad is None else bad) - (least if good is None else good)))


async def main(task: dict[str, Any]) -> None:
    policy = Policy(
        endpoint=task["policy"] + "/v1",
        api_key="none",
        model_name=task["policy_model"],
        system_prompt=task["system"],
        temperature=task["temperature"],
    )
    steps = StepGeneration(
        max_steps=40,
        step_token="\n\n",
        stop_token=r"\boxed",  # it reads no finish_reason: a solution ends where it says its answer
        temperature=task["temperature"],
        include_stop_str_in_output=True,
    )
    async with aiohttp.ClientSession() as session:
        verifier = Verifier(task, session)
        search = BeamSearch(steps, verifier, beam_width=task["width"])
        await search.ainfer(policy, "What is $1 + 2$?", budget=task["width"])  # what is loaded on first use is loaded
        policy.requests = verifier.requests = verifier.scored = verifier.tokens = 0
        counts = Counts(task["policy"], WRITTEN, STEPS)
        await counts.begin()
        wall, cpu = time.perf_counter(), time.process_time()
        answers = await asyncio.gather(
            *(search.ainfer(policy, problem, budget=task["n"]) for problem in task["problems"])
        )
        found = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
        tokens, engine_steps = await counts.read()
    await policy.close()
    found |= {
        "answers": [answer["content"] for answer in answers],
        "policy_tokens": tokens,
        "steps": engine_steps,
        "policy_requests": policy.requests,
        "prm_requests": verifier.requests,
        "scored": verifier.scored,
        "prm_tokens": verifier.tokens,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.disable(logging.INFO)
    asyncio.run(main(json.load(sys.stdin)))
