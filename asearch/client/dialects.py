"""How a solution is continued over a server's protocol: four ways, from exact to whole solutions only.

- `TokenDialect`: token ids in, token ids out. The server renders the chat prefix once per problem, and continuations
  append generated ids: no second BOS, no trimmed blank line, whatever the chat template does.
- `TextDialect`: text prompts, where somebody can render the chat prefix as text.
- `PrefillDialect`: chat messages with the solution so far as the assistant's unfinished turn.
- `ChatDialect`: plain chat. A turn cannot be continued, so whole solutions only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import orjson

from asearch.client.replies import choices_of, finish_of, ids_of, text_of, text_steps
from asearch.concurrency import Memo
from asearch.errors import ProtocolError
from asearch.path import Step

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from asearch.errors import BadRequest
    from asearch.path import Path, Sampling
    from asearch.problem import Problem
    from asearch.transport import Endpoint, Json

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
SHORT_SEEDS = 2**31  # hosted servers and llama.cpp read 32-bit seeds


@dataclass(frozen=True, slots=True)
class Draw:
    """What is asked of the server in one request.

    Args:
        n: completions.
        sampling: how to sample.
        seed: of the first completion; the server draws choice i with seed + i.
        stop: the separator to stop at; None goes on to the end.
        max_tokens: for each completion.
    """

    n: int
    sampling: Sampling
    seed: int
    stop: str | None
    max_tokens: int


class Dialect(Protocol):
    """One way to continue a solution."""

    name: str
    can_continue: bool
    several: bool  # one request may ask for n completions

    async def prompt(self, path: Path) -> tuple[Any, int | None]:
        """What stands before the continuation, and its length in tokens where that is known."""
        ...

    def request(self, model: str, prompt: Any, draw: Draw) -> tuple[str, dict[str, Any]]:
        """Route and body."""
        ...

    def steps(self, reply: Json, draw: Draw) -> list[Step]:
        """The continuations in a reply."""
        ...

    def adapt(self, refusal: BadRequest) -> bool:
        """Change what can be changed after a refusal; False: nothing, it stands."""
        ...


def sampled(draw: Draw) -> dict[str, Any]:
    """Parameters for an engine. Every one is explicit: a checkpoint's generation_config changes what is left out."""
    sampling = draw.sampling
    body: dict[str, Any] = {
        "n": draw.n,
        "max_tokens": draw.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "repetition_penalty": sampling.repetition_penalty,
        "seed": draw.seed,
    }
    if draw.stop is not None:
        body |= {"stop": [draw.stop], "include_stop_str_in_output": True}
    return body


def commonly_sampled(draw: Draw) -> dict[str, Any]:
    """Parameters for any server: those of the common protocol, and others only where they were asked for."""
    sampling = draw.sampling
    body: dict[str, Any] = {
        "max_tokens": draw.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "seed": draw.seed % SHORT_SEEDS,
    }
    if draw.stop is not None:
        body["stop"] = [draw.stop]
    unusual = {
        "top_k": (sampling.top_k, -1),
        "min_p": (sampling.min_p, 0.0),
        "repetition_penalty": (sampling.repetition_penalty, 1.0),
    }
    return body | {name: value for name, (value, neutral) in unusual.items() if value != neutral}


def completion(prompt: Any, draw: Draw, *, engine: bool) -> dict[str, Any]:
    """A request for completions of a prompt that has its BOS already (or is ids)."""
    if not engine:
        return {"prompt": prompt, **commonly_sampled(draw)}
    return {"prompt": prompt, "add_special_tokens": False, "return_token_ids": True, **sampled(draw)}


class TokenDialect:
    """Token in, token out, as vLLM speaks it.

    Args:
        endpoint: the server.
        render: a problem's prompt as ids; asked once per problem.
        tokenize: ids of a plain text, for steps that came from somewhere else.
    """

    name = "tokens"
    can_continue = True
    several = True

    def __init__(
        self,
        endpoint: Endpoint,
        render: Callable[[Problem], Awaitable[list[int]]],
        tokenize: Callable[[str], Awaitable[list[int]]],
    ) -> None:
        self._endpoint = endpoint
        self._prompts: Memo[Problem, list[int]] = Memo(_coroutine(render))
        self._tokenize = tokenize

    async def prompt(self, path: Path) -> tuple[Any, int | None]:
        rendered = await self._prompts.get(path.problem)
        ids = path.token_ids
        if ids is None:  # a path that was not made here, or that was cut from a whole solution
            ids = tuple(await self._tokenize(path.text))
        # JSON at once: a list of so many numbers, kept for as long as the request takes, is work for the garbage collector
        return orjson.Fragment(orjson.dumps([*rendered, *ids])), len(rendered) + len(ids)

    def request(self, model: str, prompt: Any, draw: Draw) -> tuple[str, dict[str, Any]]:
        return COMPLETIONS, {"model": model, **completion(prompt, draw, engine=True)}

    def steps(self, reply: Json, draw: Draw) -> list[Step]:
        where = self._endpoint.url
        steps = []
        for choice in choices_of(reply, draw.n, where):
            ids = ids_of(choice, where)
            steps.append(Step(text_of(choice, where), finish_of(choice), ids, len(ids)))
        return steps

    def adapt(self, refusal: BadRequest) -> bool:
        del refusal
        return False


class TextDialect:
    """Text prompts through the completions route.

    Args:
        endpoint: the server.
        render: a problem's prompt as text, with its BOS; asked once per problem.
        engine: the server is an inference engine, which knows more than the common parameters.
        several: choice i of n is known to be drawn with seed + i.
        tells: whether the server tells a stop string from the end of the text; if not, whole solutions only.
    """

    name = "text"

    def __init__(
        self,
        endpoint: Endpoint,
        render: Callable[[Problem], Awaitable[str]],
        *,
        engine: bool,
        several: bool,
        tells: bool,
    ) -> None:
        self.can_continue = tells
        self.several = several
        self._engine = engine
        self._endpoint = endpoint
        self._prompts: Memo[Problem, str] = Memo(_coroutine(render))

    async def prompt(self, path: Path) -> tuple[Any, int | None]:
        return await self._prompts.get(path.problem) + path.text, None

    def request(self, model: str, prompt: Any, draw: Draw) -> tuple[str, dict[str, Any]]:
        return COMPLETIONS, {"model": model, **completion(prompt, draw, engine=self._engine)}

    def steps(self, reply: Json, draw: Draw) -> list[Step]:
        return text_steps(reply, draw.n, draw.stop, self._endpoint.url)

    def adapt(self, refusal: BadRequest) -> bool:
        del refusal
        return False


class PrefillDialect:
    """Chat with the solution so far as the assistant's unfinished turn.

    Only for servers whose chat template keeps the blank line at the end of that turn: many trim it, and the model then
    writes the blank line again, which is an empty step.
    """

    name = "prefill"
    can_continue = True

    def __init__(self, endpoint: Endpoint, *, several: bool) -> None:
        self.several = several
        self._endpoint = endpoint

    async def prompt(self, path: Path) -> tuple[Any, int | None]:
        return prefilled(path.problem, path.text), None

    def request(self, model: str, prompt: Any, draw: Draw) -> tuple[str, dict[str, Any]]:
        return CHAT, {"model": model, **prompt, **sampled(draw)}

    def steps(self, reply: Json, draw: Draw) -> list[Step]:
        return text_steps(reply, draw.n, draw.stop, self._endpoint.url)

    def adapt(self, refusal: BadRequest) -> bool:
        del refusal
        return False


def prefilled(problem: Problem, text: str) -> dict[str, Any]:
    """Chat messages that end in the beginning of the assistant's turn. vLLM needs both flags to go on from it."""
    if not text:
        return {"messages": problem.messages}
    messages = [*problem.messages, {"role": "assistant", "content": text}]
    return {"messages": messages, "add_generation_prompt": False, "continue_final_message": True}


class ChatDialect:
    """Plain chat, as every hosted API, llama.cpp and Ollama speak it: whole solutions, one per request.

    Only parameters of the common protocol are sent, and those that a server refuses by name are left out from then on.
    """

    name = "chat"
    can_continue = False
    several = False

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._length_name = "max_tokens"
        self._refused: set[str] = set()

    async def prompt(self, path: Path) -> tuple[Any, int | None]:
        return path.problem.messages, None

    def request(self, model: str, prompt: Any, draw: Draw) -> tuple[str, dict[str, Any]]:
        options = commonly_sampled(draw)
        options[self._length_name] = options.pop("max_tokens")
        kept = {name: value for name, value in options.items() if name not in self._refused}
        return CHAT, {"model": model, "messages": prompt, **kept}

    def steps(self, reply: Json, draw: Draw) -> list[Step]:
        return text_steps(reply, draw.n, None, self._endpoint.url)

    def adapt(self, refusal: BadRequest) -> bool:
        said = str(refusal)
        if self._length_name == "max_tokens" and "max_completion_tokens" in said:
            self._length_name = "max_completion_tokens"
            return True
        # a seed makes a run repeatable and top_p is 1 by default: either can be done without
        named = {name for name in ("seed", "top_p") if name in said} - self._refused
        self._refused |= named
        return bool(named)


class VLLMTokenizer:
    """The tokenizer of a server, over vLLM's `/tokenize` and `/detokenize`."""

    def __init__(self, endpoint: Endpoint, model: str) -> None:
        self._endpoint = endpoint
        self._model = model

    async def chat(self, problem: Problem) -> list[int]:
        """The ids of the chat prefix, ready for the assistant's first token."""
        return await self._ask({"messages": problem.messages, "add_generation_prompt": True})

    async def text(self, text: str) -> list[int]:
        """The ids of a plain text, without special tokens around it."""
        return await self._ask({"prompt": text, "add_special_tokens": False})

    async def chat_text(self, problem: Problem) -> str:
        """The chat prefix as text."""
        reply = await self._endpoint.post("/detokenize", {"model": self._model, "tokens": await self.chat(problem)})
        if not isinstance(reply.get("prompt"), str):
            raise ProtocolError("/detokenize answered without a prompt", endpoint=self._endpoint.url)
        return str(reply["prompt"])

    async def _ask(self, body: dict[str, Any]) -> list[int]:
        tokens = (await self._endpoint.post("/tokenize", {"model": self._model, **body})).get("tokens")
        if not isinstance(tokens, list) or not tokens or not all(isinstance(token, int) for token in tokens):
            raise ProtocolError("/tokenize answered without tokens", endpoint=self._endpoint.url)
        return tokens


def _coroutine(function: Callable[[Any], Awaitable[Any]]) -> Callable[[Any], Any]:
    """A function whose awaitable becomes a coroutine, as a task needs it."""

    async def call(argument: Any) -> Any:
        return await function(argument)

    return call
