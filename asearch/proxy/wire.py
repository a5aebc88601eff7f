"""What a chat request may ask for: OpenAI's fields, each of which is honoured, ignored or refused (docs/proxy.md says which)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from asearch.problem import SYSTEM_PROMPT, Problem
from asearch.proxy.errors import ApiError, invalid

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MAX_TOKENS = 1_000_000
Seed = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]
Tokens = Annotated[int, Field(ge=1, le=MAX_TOKENS)]
Count = Annotated[int, Field(ge=1, le=10_000)]

# These change nothing about an answer: bookkeeping of the caller, hints about speed and billing.
IGNORED = {
    "metadata",
    "parallel_tool_calls",
    "prediction",
    "prompt_cache_key",
    "prompt_cache_retention",
    "safety_identifier",
    "service_tier",
    "store",
    "user",
}

# These would change it, and cannot be had: they are refused, unless their value asks for nothing.
NO_TOOLS = "a search answers in text and calls no tools; give the tool to your agent, and let the proxy be one of them"
AS_TEXT = "a search answers in text; leave response_format out"
NO_LOGPROBS = "there are no log-probabilities of an answer that was chosen among many"
REFUSED: dict[str, tuple[tuple[Any, ...], str]] = {
    "audio": ((None,), "a search answers in text"),
    "frequency_penalty": ((None, 0), "the policy samples without penalties"),
    "function_call": ((None, "none", "auto"), NO_TOOLS),
    "functions": ((None, []), NO_TOOLS),
    "logit_bias": ((None, {}), "the policy samples without biases"),
    "logprobs": ((None, False), NO_LOGPROBS),
    "modalities": ((None, ["text"]), "a search answers in text"),
    "presence_penalty": ((None, 0), "the policy samples without penalties"),
    "reasoning_effort": ((None,), "choose the effort by the model: dvts-16 searches more than dvts-4"),
    "response_format": ((None, {"type": "text"}), AS_TEXT),
    "stop": ((None, [], ""), "a solution ends where the policy ends it"),
    "tool_choice": ((None, "none", "auto"), NO_TOOLS),
    "tools": ((None, []), NO_TOOLS),
    "top_logprobs": ((None, 0), NO_LOGPROBS),
    "verbosity": ((None, "medium"), "say in the system prompt how the answer should be written"),
    "web_search_options": ((None,), "nothing is looked up"),
}


class Strict(BaseModel):
    """No guessing: "16" is no number, and 1 is not true."""

    model_config = ConfigDict(strict=True, extra="forbid", protected_namespaces=())


class StreamOptions(BaseModel):
    """Of OpenAI's stream options, the one that says something here."""

    model_config = ConfigDict(extra="ignore")

    include_usage: bool | None = None


class Options(Strict):
    """What stands under `asearch` in a request: options of the strategy, limits, and what to tell.

    Args:
        progress: tell what the search does, as `reasoning_content`.
        details: add candidates, scores and votes to each choice.
        tree: add every explored step, too.
        step_prompt: put the step-by-step prompt after the caller's own system prompt; False: send that alone.
        budget_tokens: end the search after so many tokens of policy and PRM.
        budget_requests: end it after so many requests.
    """

    n: Count | None = None
    width: Count | None = None
    depth: Count | None = None
    lookahead: Annotated[int, Field(ge=0, le=100)] | None = None
    reduction: str | None = None
    select: str | None = None
    early_stop: bool | Literal["any_order"] | None = None
    confidence: float | None = None
    revisions: Count | None = None
    memory: Count | None = None
    weight_temperature: float | None = None
    iterations: Count | None = None
    balance: float | None = None
    votes: Annotated[int, Field(ge=1, le=64)] | None = None

    progress: bool = False
    details: bool = False
    tree: bool = False
    step_prompt: bool = True
    budget_tokens: Annotated[int, Field(ge=1, le=2**53)] | None = None
    budget_requests: Annotated[int, Field(ge=1, le=2**53)] | None = None

    def of_strategy(self) -> dict[str, Any]:
        """The options that were given for the strategy."""
        own = set(Options.model_fields) - TOLD
        return {name: value for name, value in self.model_dump(include=own).items() if value is not None}


TOLD = {"progress", "details", "tree", "step_prompt", "budget_tokens", "budget_requests"}


class Message(BaseModel):
    """One turn of the conversation. What else clients put there (names, earlier reasoning) says nothing to the policy."""

    model_config = ConfigDict(strict=True, extra="allow")

    role: str
    content: str | list[dict[str, Any]] | None = None


class ChatRequest(BaseModel):
    """The fields of a chat request that are honoured."""

    model_config = ConfigDict(strict=True, extra="allow", protected_namespaces=())

    model: str
    messages: Annotated[list[Message], Field(min_length=1)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, Field(ge=1, le=128)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    max_tokens: Tokens | None = None
    max_completion_tokens: Tokens | None = None
    seed: Seed | None = None
    timeout: Annotated[float, Field(gt=0, le=86_400)] | None = None
    asearch: Options | None = None

    @property
    def options(self) -> Options:
        return self.asearch or Options()

    def of_strategy(self) -> dict[str, Any]:
        """Every option of the strategy that was given, under OpenAI's names or under `asearch`."""
        tokens = self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens
        given = {"temperature": self.temperature, "top_p": self.top_p, "max_tokens": tokens}
        return self.options.of_strategy() | {name: value for name, value in given.items() if value is not None}


def parse(body: bytes) -> ChatRequest:
    """A chat request from the body of an HTTP request.

    Raises:
        ApiError: it is no JSON object, or a field cannot be honoured.
    """
    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError as failure:
        raise ApiError(f"the body is not valid JSON: {failure}") from None
    if not isinstance(data, dict):
        raise ApiError("the body must be a JSON object")
    try:
        request = ChatRequest.model_validate(data)
    except ValidationError as failure:
        raise invalid(failure) from None
    for name, value in (request.model_extra or {}).items():
        check_extra(name, value)
    return request


def check_extra(name: str, value: Any) -> None:
    """Refuse a field that would change the answer and cannot, and one that is not known at all."""
    if name in IGNORED:
        return
    if name not in REFUSED:
        raise ApiError(
            f"unrecognized request argument: {name[:100]}; options of the search stand under `asearch`",
            param=name[:100],
            code="unknown_parameter",
        )
    nothing, why = REFUSED[name]
    if value not in nothing:
        raise ApiError(f"{name} is not supported: {why}", param=name, code="unsupported_parameter")


@dataclass(frozen=True, slots=True)
class Turn:
    """A message with its text."""

    role: str
    text: str


ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}


def problem_of(messages: Sequence[Message], *, step_prompt: bool = True) -> Problem:
    """The last message is the question; the turns before it, and the caller's system prompt, are kept.

    The step-by-step prompt, which the search needs to see steps and an answer, follows the caller's own system prompt.
    """
    turns = [turn_of(message, i) for i, message in enumerate(messages)]
    *earlier, last = turns
    if last.role != "user":
        raise ApiError("the last message must be the user's: it is the problem to be solved", param="messages")
    if not last.text.strip():
        raise ApiError("the last message is empty: it is the problem to be solved", param="messages")
    own = []
    while earlier and earlier[0].role == "system":
        own.append(earlier.pop(0).text)
    if step_prompt:
        own.append(SYSTEM_PROMPT)
    history = tuple((turn.role, turn.text) for turn in earlier)
    return Problem(last.text, system="\n\n".join(own) if own else None, history=history)


def turn_of(message: Message, number: int) -> Turn:
    """A message as role and text; one that a policy of text cannot read is refused."""
    where = f"messages[{number}]"
    if message.role not in ROLES:
        raise ApiError(
            f"{where}: a message of role {message.role[:50]!r} cannot be read here; the roles are {', '.join(ROLES)}",
            param=f"{where}.role",
        )
    extra = message.model_extra or {}
    if extra.get("tool_calls") or extra.get("function_call") or extra.get("audio"):
        raise ApiError(f"{where}: {NO_TOOLS}", param=where, code="unsupported_parameter")
    return Turn(ROLES[message.role], text_of(message.content, f"{where}.content"))


def text_of(content: str | list[dict[str, Any]] | None, where: str) -> str:
    """The text of a message, which may come in parts."""
    if isinstance(content, str):
        return content
    if not content:
        raise ApiError(f"{where}: a message needs a text", param=where)
    return "\n".join(part_text(part, f"{where}[{i}]") for i, part in enumerate(content))


def part_text(part: Mapping[str, Any], where: str) -> str:
    """The text of a part of a message."""
    kind, text = part.get("type"), part.get("text")
    if kind != "text":
        raise ApiError(f"{where}: only parts of type text can be read here", param=where, code="unsupported_parameter")
    if not isinstance(text, str):
        raise ApiError(f"{where}.text: must be a string", param=f"{where}.text")
    return text
