"""A policy and a PRM that answer at once, in vLLM's protocol: what a search costs the client, and nothing else.

A process of its own (`python benchmarks/speed/instant_server.py`), one server for both roles. It prints a JSON line with
its URL, and stops at the end of standard input. Replies have every field of vLLM 0.32, token ids of the prompt repeated
in each choice included; texts, ids and scores follow from the request's seed and prompt, so that siblings differ.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import zlib
from typing import Any

import orjson
from aiohttp import web

PROMPT = list(range(1000, 1100))  # a chat prefix of 100 tokens
MODEL = "instant"
PRM = "RLHFlow/Llama3.1-8B-PRM-Deepseek-Data"
GOOD, BAD = 10, 12


class Instant:
    """The two models.

    Args:
        depth: steps of a solution.
        tokens: tokens of a step.
        delay: seconds before a reply to the policy's requests: holds sequences in flight.
    """

    def __init__(self, depth: int, tokens: int, delay: float) -> None:
        self.depth, self.tokens, self.delay = depth, tokens, delay
        self.running = self.most = self.requests = self.scores = 0

    def app(self) -> web.Application:
        app = web.Application(client_max_size=2**28)
        for prefix in ("/policy", "/prm"):
            app.router.add_post(prefix + "/tokenize", self.tokenize)
            app.router.add_post(prefix + "/detokenize", self.detokenize)
        app.router.add_get("/policy/v1/models", self.models(MODEL))
        app.router.add_get("/prm/v1/models", self.models(PRM))
        app.router.add_post("/policy/v1/completions", self.complete)
        app.router.add_post("/prm/v1/completions", self.score)
        app.router.add_get("/counts", self.counts)
        return app

    def models(self, name: str) -> Any:
        card = {"id": name, "object": "model", "owned_by": "vllm", "root": name, "max_model_len": 8192}

        async def answer(_: web.Request) -> web.Response:
            return reply({"object": "list", "data": [card]})

        return answer

    async def tokenize(self, http: web.Request) -> web.Response:
        body = orjson.loads(await http.read())
        tokens = PROMPT if "messages" in body else [{"+": GOOD, "-": BAD}.get(body["prompt"], 7)]
        return reply({"count": len(tokens), "max_model_len": 8192, "tokens": tokens, "token_strs": None})

    async def detokenize(self, _: web.Request) -> web.Response:
        return web.json_response({"detail": "Not Found"}, status=404)  # the PRM's published template will do

    async def complete(self, http: web.Request) -> web.Response:
        """Continuations by one step; the last of them ends the solution. Whole solutions where no stop is asked for."""
        body = orjson.loads(await http.read())
        prompt, n, seed = body["prompt"], body.get("n", 1), body.get("seed", 0)
        self.requests += 1
        self.running += n
        self.most = max(self.most, self.running)
        await asyncio.sleep(self.delay)  # even 0 lets the other connections be read first
        self.running -= n
        level = (len(prompt) - len(PROMPT)) // self.tokens if isinstance(prompt, list) else 0
        whole = "stop" not in body
        choices = [self.choice(i, seed + i, level, prompt, whole=whole) for i in range(n)]
        count = sum(len(choice["token_ids"]) for choice in choices)
        return reply(envelope(MODEL, choices, len(prompt), count))

    def choice(self, index: int, seed: int, level: int, prompt: list[int], *, whole: bool) -> dict[str, Any]:
        last = whole or level + 1 >= self.depth
        steps = self.depth - level if whole else 1
        text = "".join(self.step(seed + k, level + k) for k in range(steps))
        ids = [2000 + (seed >> (3 * (k % 16))) % 100_000 for k in range(self.tokens * steps)]
        return {
            "index": index,
            "text": text,
            "logprobs": None,
            "finish_reason": "stop",
            "stop_reason": None if last else "\n\n",
            "token_ids": ids,
            "prompt_logprobs": None,
            "prompt_token_ids": prompt,
            "routed_experts": None,
        }

    def step(self, seed: int, level: int) -> str:
        """About as many characters as English has for so many tokens."""
        if level + 1 >= self.depth:
            return f"Therefore, the final answer is: $\\boxed{{{seed % 5}}}$. I hope it is correct."
        words = f"## Step {level + 1}: number {seed}\n"
        return words + "so that all of it adds up " * ((4 * self.tokens - len(words)) // 26 + 1) + "\n\n"

    async def score(self, http: web.Request) -> web.Response:
        """The two log-probabilities that were asked for, after each text."""
        body = orjson.loads(await http.read())
        prompts = body["prompt"]
        self.scores += len(prompts)
        choices = [self.verdict(i, prompt) for i, prompt in enumerate(prompts)]
        return reply(envelope(PRM, choices, sum(map(len, prompts)) // 4, len(prompts)))

    def verdict(self, index: int, prompt: str) -> dict[str, Any]:
        good = -(zlib.crc32(prompt.encode()) % 1000) / 500
        top = {"token_id:219": -2.588, f"token_id:{GOOD}": good, f"token_id:{BAD}": -1.0}
        logprobs = {
            "text_offset": [0],
            "token_logprobs": [-2.588],
            "tokens": ["token_id:219"],
            "top_logprobs": [top],
        }
        return {
            "index": index,
            "text": "+",
            "logprobs": logprobs,
            "finish_reason": "length",
            "stop_reason": None,
            "token_ids": None,
            "prompt_logprobs": None,
            "prompt_token_ids": None,
            "routed_experts": None,
        }

    async def counts(self, _: web.Request) -> web.Response:
        """What was asked since the last time."""
        answer = reply({"most": self.most, "requests": self.requests, "scores": self.scores})
        self.most = self.requests = self.scores = 0
        return answer


def envelope(model: str, choices: list[dict[str, Any]], read: int, written: int) -> dict[str, Any]:
    usage = {
        "prompt_tokens": read,
        "total_tokens": read + written,
        "completion_tokens": written,
        "prompt_tokens_details": None,
        "completion_tokens_details": None,
    }
    return {
        "id": "cmpl-instant",
        "object": "text_completion",
        "created": 0,
        "model": model,
        "choices": choices,
        "service_tier": None,
        "system_fingerprint": "vllm-0.32.0-instant",
        "usage": usage,
        "kv_transfer_params": None,
    }


def reply(body: Any) -> web.Response:
    return web.Response(body=orjson.dumps(body), content_type="application/json")


async def serve(instant: Instant) -> None:
    runner = web.AppRunner(instant.app(), access_log=None, keepalive_timeout=60)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=8192).start()
    print(json.dumps({"url": f"http://127.0.0.1:{runner.addresses[0][1]}"}), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await runner.cleanup()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--depth", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--delay", type=float, default=0.0)
    options = parser.parse_args()
    asyncio.run(serve(Instant(options.depth, options.tokens, options.delay)))
