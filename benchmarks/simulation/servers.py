"""vLLM's protocol in front of the engines: the routes that the clients use, for a policy and for a causal PRM.

Facts of the protocol are those that the clients were built on (docs/clients.md, docs/prms.md).
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from simulation import world
from simulation.cache import whole_blocks
from simulation.engine import Engine, Task

if TYPE_CHECKING:
    from collections.abc import Sequence

    from simulation.cache import Piece
    from simulation.hardware import Machine

Json = dict[str, Any]
CONTEXT = 4096
GOOD, BAD = 10, 12  # the ids of "+" and "-" in Llama 3's vocabulary
HEAD_TOKENS, TURN_TOKENS = 30, 11  # of the PRM's chat template: once, and around each step


@dataclass(slots=True)
class Ideal:
    """What a set of replicas would have had to compute with one endless prefix cache between them."""

    computed_tokens: int = 0
    generated_tokens: int = 0
    sequences: int = 0
    context_read: float = 0.0
    _seen: set[int] = field(default_factory=set)

    def note(self, pieces: Sequence[Piece], new: int, kept: Sequence[Piece], block: int) -> None:
        """Book one sequence."""
        found = next((length for name, length in reversed(pieces) if name in self._seen), 0)
        prompt = pieces[-1][1]
        self.computed_tokens += prompt - whole_blocks(found, prompt, block)
        self.generated_tokens += new
        self.context_read += (new - 1) * (prompt + new / 2)
        self.sequences += 1
        self._seen.update(name for name, length in pieces if length > found)
        self._seen.update(name for name, _ in kept)


async def generated(engine: Engine, ideal: Ideal, block: int, tasks: list[Task]) -> None:
    """Let an engine generate the sequences of a request, and note their work; a request that is cancelled is aborted."""
    left, done = len(tasks), asyncio.get_running_loop().create_future()

    def one_ended() -> None:
        nonlocal left
        left -= 1
        if not left and not done.done():
            done.set_result(None)

    for task in tasks:
        task.ended = one_ended
        ideal.note(task.pieces, task.new, task.kept, block)
    engine.submit(tasks)
    try:
        await done
    except asyncio.CancelledError:
        engine.abort(tasks)
        raise


class SimulatedServer:
    """What the policy's and the PRM's server have in common.

    Args:
        machine: the hardware.
        ideal: shared by all replicas of a kind.
    """

    model: str

    def __init__(self, machine: Machine, ideal: Ideal) -> None:
        self.machine = machine
        self.engine = Engine(machine)
        self.ideal = ideal
        self.requests = 0
        self.open = 0

    async def answer(self, route: str, body: Json) -> Json | str:
        """The reply to one request."""
        if route == "/metrics":
            running, waiting = self.engine.running, self.engine.waiting
            return f"vllm:num_requests_running {running}\nvllm:num_requests_waiting {waiting}\n"
        if route == "/v1/models":
            return {"object": "list", "data": [{"id": self.model, "root": self.model, "max_model_len": CONTEXT}]}
        if route == "/tokenize":
            return {"tokens": self.tokenize(body), "max_model_len": CONTEXT}
        if route == "/detokenize":
            return {"prompt": ""}
        if route in ("/health", "/version"):
            return {}
        if route != "/v1/completions":
            raise LookupError(f"the simulated server has no {route}")
        self.requests += 1
        self.open += 1
        try:
            await asyncio.sleep(self.machine.latency)
            return await self.complete(body)
        finally:
            self.open -= 1

    def tokenize(self, body: Json) -> list[int]:
        """Token ids of a chat or a text."""
        raise NotImplementedError

    async def complete(self, body: Json) -> Json:
        """A completion."""
        raise NotImplementedError

    async def run(self, tasks: list[Task]) -> None:
        """Let the engine generate these sequences; a request that is cancelled is aborted."""
        await generated(self.engine, self.ideal, self.machine.block, tasks)


class PolicyServer(SimulatedServer):
    """Writes steps: token ids in, token ids out."""

    model = "meta-llama/Llama-3.2-1B-Instruct"

    def tokenize(self, body: Json) -> list[int]:
        text = body["messages"][-1]["content"] if "messages" in body else body["prompt"]
        found = world.STEP.findall(text)
        head = [world.SYSTEM, world.SYSTEM_TOKENS, *[0] * (world.SYSTEM_TOKENS - 2)]
        if not found:
            return [*head, 2, 8, *[0] * 6]
        return head + [token for name, tokens in found for token in [int(name), int(tokens), *[0] * (int(tokens) - 2)]]

    async def complete(self, body: Json) -> Json:
        pieces = world.read_ids(body["prompt"])
        stepwise = "stop" in body
        room = body["max_tokens"]
        written = [self._write(pieces, body["seed"] + i, room, stepwise=stepwise) for i in range(body["n"])]
        tasks = [self._task(pieces, said) for said in written]
        await self.run(tasks)
        choices = [self._choice(i, said) for i, said in enumerate(written)]
        generated = sum(task.new for task in tasks)
        return {"choices": choices, "usage": {"prompt_tokens": pieces[-1][1], "completion_tokens": generated}}

    @staticmethod
    def _write(pieces: list[Piece], seed: int, room: int, *, stepwise: bool) -> list[world.Said]:
        said = [world.next_step(pieces[1][0], pieces, seed, room)]
        path = pieces
        while not stepwise and said[-1].finish == "step":
            room -= said[-1].tokens
            path = [*path, (said[-1].name, path[-1][1] + said[-1].tokens)]
            if room < 1:
                break
            said.append(world.next_step(pieces[1][0], path, seed, room))
        return said

    @staticmethod
    def _task(pieces: list[Piece], said: list[world.Said]) -> Task:
        new = sum(step.tokens for step in said)
        return Task(pieces, new, nobody, [(said[-1].name, pieces[-1][1] + new)])

    @staticmethod
    def _choice(index: int, said: list[world.Said]) -> Json:
        finish = said[-1].finish
        return {
            "index": index,
            "text": "".join(step.text for step in said),
            "token_ids": world.as_ids(said),
            "finish_reason": "length" if finish == "length" else "stop",
            "stop_reason": "\n\n" if finish == "step" else None,
        }


class PRMServer(SimulatedServer):
    """Scores steps: the log-probabilities of two tokens after each of a list of prefixes."""

    model = "RLHFlow/Llama3.1-8B-PRM-Deepseek-Data"

    def tokenize(self, body: Json) -> list[int]:
        return [{"+": GOOD, "-": BAD}.get(body.get("prompt", ""), 0)]

    async def complete(self, body: Json) -> Json:
        prompts = [world.read_text(text, HEAD_TOKENS, TURN_TOKENS) for text in body["prompt"]]
        await self.run([Task(pieces, 1, nobody) for pieces in prompts])
        choices = [self._choice(i, world.score(pieces[-1][0])) for i, pieces in enumerate(prompts)]
        return {"choices": choices, "usage": {"prompt_tokens": sum(pieces[-1][1] for pieces in prompts)}}

    @staticmethod
    def _choice(index: int, score: float) -> Json:
        top = {f"token_id:{GOOD}": math.log(score), f"token_id:{BAD}": math.log1p(-score)}
        return {"index": index, "text": "+", "finish_reason": "length", "logprobs": {"top_logprobs": [top]}}


def nobody() -> None:
    """Nobody waits yet."""
