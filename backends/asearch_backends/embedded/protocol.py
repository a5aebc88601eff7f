"""What may be asked and how it is answered: vLLM's request fields, checks and error bodies."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import numpy as np
import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from asearch_backends.embedded.sampling import GREEDY_BELOW, SamplingParams

if TYPE_CHECKING:
    import numpy.typing as npt

    from asearch_backends.embedded.sampling import TokenLogprobs
    from asearch_backends.embedded.tokenizer import Tokenizer

MAX_PROMPTS = 1024
MAX_CHOICES = 16_384
MAX_LOGPROBS = 20
MAX_LOGPROB_TOKEN_IDS = 128
_LOWEST_LOGPROB = -9999.0

TokenId = Annotated[int, Field(ge=0)]
Seed = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]
StopStrings = Annotated[list[str], Field(max_length=4)]


class ApiError(Exception):
    """A refusal in vLLM's form: a status, a sentence, and the parameter that is at fault."""

    def __init__(
        self, message: str, *, status: int = 400, kind: str = "BadRequestError", param: str | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.kind, self.param = status, kind, param

    @property
    def body(self) -> dict[str, Any]:
        error = {"message": str(self), "type": self.kind, "param": self.param, "code": self.status}
        return {"error": error}


def bad_value(message: str, param: str, value: Any) -> ApiError:
    """A parameter out of its range."""
    return ApiError(f"{message} (parameter={param}, value={value})", param=param)


class _Request(BaseModel):
    """Unknown fields are ignored, as vLLM ignores them."""

    model_config = ConfigDict(extra="ignore", protected_namespaces=())

    model: str | None = None


class StreamOptions(BaseModel):
    include_usage: bool | None = False
    continuous_usage_stats: bool | None = False


class SamplingRequest(_Request):
    """The fields that completions and chat share."""

    n: int | None = 1
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    seed: Seed | None = None
    stop: str | StopStrings | None = None
    stop_token_ids: list[int] | None = None
    include_stop_str_in_output: bool = False
    ignore_eos: bool = False
    min_tokens: int = 0
    skip_special_tokens: bool = True
    logprob_token_ids: list[int] | None = None
    return_token_ids: bool | None = None
    return_tokens_as_token_ids: bool | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    # Known to vLLM and refused here, rather than ignored, where they would change the answer.
    echo: bool | None = False
    truncate_prompt_tokens: int | None = None
    prompt_logprobs: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    allowed_token_ids: list[int] | None = None
    bad_words: list[str] | None = None
    structured_outputs: Any = None
    use_beam_search: bool = False

    def refuse_unsupported(self) -> None:
        """400 for what would change the answer and is not built."""
        for name in _UNSUPPORTED:
            if getattr(self, name, None):
                raise ApiError(f"{name} is not supported by this server.", param=name)
        for name in ("truncate_prompt_tokens", "prompt_logprobs"):
            if getattr(self, name) is not None:
                raise ApiError(f"{name} is not supported by this server.", param=name)

    @property
    def choices(self) -> int:
        return 1 if self.n is None else self.n

    @property
    def stop_strings(self) -> tuple[str, ...]:
        stop = self.stop or []
        return (stop,) if isinstance(stop, str) else tuple(stop)


_UNSUPPORTED = (
    *("echo", "presence_penalty", "frequency_penalty", "logit_bias", "allowed_token_ids", "bad_words"),
    *("structured_outputs", "use_beam_search", "suffix", "prompt_embeds", "tools"),
)


class CompletionRequest(SamplingRequest):
    prompt: list[TokenId] | list[list[TokenId]] | str | list[str] | None = None
    max_tokens: int | None = 16
    logprobs: int | None = None
    add_special_tokens: bool = True
    suffix: str | None = None
    prompt_embeds: Any = None


class ChatRequest(SamplingRequest):
    messages: list[dict[str, Any]]
    max_completion_tokens: int | None = None
    logprobs: bool | None = False
    top_logprobs: int | None = 0
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    add_special_tokens: bool = False
    chat_template: str | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    tools: list[Any] | None = None


class TokenizeRequest(_Request):
    prompt: str | None = None
    messages: list[dict[str, Any]] | None = None
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    add_special_tokens: bool | None = None
    return_token_strs: bool | None = False
    chat_template: str | None = None
    chat_template_kwargs: dict[str, Any] | None = None


class DetokenizeRequest(_Request):
    tokens: list[TokenId]


R = TypeVar("R", bound=_Request)


def parse(kind: type[R], body: bytes, content_type: str) -> R:
    """A request from its JSON body; all faults are 400 with the type that vLLM gives them."""
    if content_type != "application/json":
        raise ApiError(f"Unsupported Media Type: {content_type}; use application/json", kind="Bad Request")
    try:
        return kind.model_validate(orjson.loads(body), strict=False)
    except orjson.JSONDecodeError as error:
        raise ApiError(f"the body is not valid JSON: {error}", kind="Bad Request") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        # A union lists its faults by branch; the field's own name is enough.
        where = str(first["loc"][0]) if first["loc"] else "body"
        count = "" if error.error_count() == 1 else f" ({error.error_count()} errors)"
        raise ApiError(f"{where}: {first['msg']}{count}", kind="Bad Request", param=where) from error


# -- sampling parameters --


@dataclass(frozen=True, slots=True)
class Limits:
    """What the model and the checkpoint's generation_config prescribe."""

    max_model_len: int
    vocab_size: int
    defaults: dict[str, float]


def sampling_params(
    request: SamplingRequest, *, asked_tokens: int | None, prompt: int, logprobs: int | None, limits: Limits
) -> SamplingParams:
    """Settings for one prompt of this many tokens, with defaults filled in and every range checked."""
    if prompt > limits.max_model_len:
        raise _too_long(prompt, limits.max_model_len)
    if asked_tokens is not None and asked_tokens < 1:
        raise bad_value(f"max_tokens must be at least 1, got {asked_tokens}.", "max_tokens", asked_tokens)
    if asked_tokens is not None and asked_tokens > limits.max_model_len:  # what fits beside no prompt: not clamped
        message = f"max_tokens={asked_tokens} cannot be greater than max_model_len={limits.max_model_len}. Please request fewer output tokens."
        raise bad_value(message, "max_tokens", asked_tokens)

    def value(name: str, neutral: float) -> float:
        given = getattr(request, name)
        return float(limits.defaults.get(name, neutral) if given is None else given)

    room = limits.max_model_len - prompt
    longest = limits.defaults.get("max_new_tokens", room)
    params = SamplingParams(
        max_tokens=int(min(room, longest, room if asked_tokens is None else asked_tokens)),
        temperature=value("temperature", 1.0),
        top_p=value("top_p", 1.0),
        top_k=int(value("top_k", 0)),
        min_p=value("min_p", 0.0),
        repetition_penalty=value("repetition_penalty", 1.0),
        stop=request.stop_strings,
        stop_token_ids=tuple(request.stop_token_ids or ()),
        include_stop_str_in_output=request.include_stop_str_in_output,
        ignore_eos=request.ignore_eos,
        min_tokens=request.min_tokens,
        skip_special_tokens=request.skip_special_tokens,
        logprobs=logprobs,
        logprob_token_ids=tuple(request.logprob_token_ids or ()),
    )
    _check(params, request.choices, limits)
    return params


def _too_long(prompt: int, limit: int) -> ApiError:
    return ApiError(
        f"This model's maximum context length is {limit} tokens. However, your prompt contains {prompt} input tokens, which "
        "exceeds this limit even without any output tokens. Please reduce the length of the input prompt. "
        f"(parameter=input_tokens, value={prompt})",
        param="input_tokens",
    )


def _check(p: SamplingParams, n: int, limits: Limits) -> None:
    _check_ranges(p)
    _check_tokens(p, limits)
    if n < 1:
        raise bad_value(f"n must be at least 1, got {n}.", "n", n)
    if n > MAX_CHOICES:
        raise bad_value(f"n must be at most {MAX_CHOICES}, got {n}.", "n", n)
    if n > 1 and p.temperature < GREEDY_BELOW:
        raise ApiError(f"n must be 1 when using greedy sampling, got {n}.")


def _check_ranges(p: SamplingParams) -> None:
    rules = (
        ("max_tokens", p.max_tokens >= 1, "at least 1"),
        ("temperature", 0 <= p.temperature < np.inf, "non-negative"),
        ("top_p", 0 < p.top_p <= 1, "in (0, 1]"),
        ("top_k", p.top_k >= -1, "0 (disable), or at least 1"),
        ("min_p", 0 <= p.min_p <= 1, "in [0, 1]"),
        ("repetition_penalty", 0 < p.repetition_penalty < np.inf, "greater than zero"),
        ("min_tokens", p.min_tokens >= 0, "greater than or equal to 0"),
        ("min_tokens", p.min_tokens <= p.max_tokens, f"less than or equal to max_tokens={p.max_tokens}"),
        ("logprobs", p.logprobs is None or p.logprobs >= -1, "non-negative or -1"),
    )
    for name, holds, rule in rules:
        if not holds:
            raise bad_value(f"{name} must be {rule}, got {getattr(p, name)}.", name, getattr(p, name))
    if any(not s for s in p.stop):
        raise ApiError("stop cannot contain an empty string.", param="stop")


def _check_tokens(p: SamplingParams, limits: Limits) -> None:
    if p.logprobs is not None and not 0 <= p.logprobs <= MAX_LOGPROBS:
        asked = limits.vocab_size if p.logprobs == -1 else p.logprobs
        raise bad_value(
            f"Requested sample logprobs of {asked}, which is greater than max allowed: {MAX_LOGPROBS}",
            "logprobs",
            asked,
        )
    if p.logprob_token_ids and p.logprobs is None:
        raise ApiError("logprob_token_ids requires logprobs to be set.", param="logprob_token_ids")
    if len(p.logprob_token_ids) > MAX_LOGPROB_TOKEN_IDS:
        count = len(p.logprob_token_ids)
        raise bad_value(f"logprob_token_ids may hold at most {MAX_LOGPROB_TOKEN_IDS} ids.", "logprob_token_ids", count)
    for name in ("logprob_token_ids", "stop_token_ids"):
        for token in getattr(p, name):
            if not 0 <= token < limits.vocab_size:
                raise bad_value(f"{name} contains a token id out of the vocabulary.", name, token)


def choice_seeds(seed: int | None, n: int) -> list[int]:
    """Choice i of a seeded request uses seed + i; unseeded ones draw their own."""
    if seed is None:
        return [random.getrandbits(64) for _ in range(n)]
    return [(seed + i) % 2**64 for i in range(n)]


# -- prompts --


def completion_prompts(request: CompletionRequest, tokenizer: Tokenizer, limits: Limits) -> list[npt.NDArray[np.int32]]:
    """The prompts of a request as token ids; every form that the protocol allows."""
    prompt = request.prompt
    if prompt is None or prompt in ("", []):
        raise ApiError("Either prompt or prompt_embeds must be provided and non-empty.", param="prompt")
    items: list[Any] = [prompt] if isinstance(prompt, str) or isinstance(prompt[0], int) else list(prompt)
    if len(items) > MAX_PROMPTS:
        raise bad_value(f"The number of prompts must be at most {MAX_PROMPTS}, got {len(items)}.", "prompt", len(items))
    encode = tokenizer.encode
    ids = [encode(i, add_special_tokens=request.add_special_tokens) if isinstance(i, str) else i for i in items]
    return [checked_prompt(tokens, limits.vocab_size) for tokens in ids]


def checked_prompt(tokens: list[int], vocab_size: int) -> npt.NDArray[np.int32]:
    """A prompt as an array; it has tokens, and the model knows them."""
    if not tokens:
        raise ApiError("The decoder prompt cannot be empty", param="prompt")
    if max(tokens) >= vocab_size:
        raise ApiError(f"Token id {max(tokens)} is out of vocabulary", param="prompt")
    return np.array(tokens, np.int32)


def chat_messages(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Messages with plain text contents; text parts are joined by line breaks."""
    if not messages:
        raise ApiError("messages must not be empty.", param="messages")
    return [{**m, "content": _content(m)} for m in messages]


def _content(message: dict[str, Any]) -> str:
    content = message.get("content")
    if "role" not in message:
        raise ApiError("each message needs a role.", param="messages")
    if isinstance(content, list):
        parts = [part.get("text") if isinstance(part, dict) else part for part in content]
        texts = [part for part in parts if isinstance(part, str)]
        if len(texts) < len(parts):
            raise ApiError("only text contents are supported by this server.", param="messages")
        return "\n".join(texts)
    if content is not None and not isinstance(content, str):
        raise ApiError("the content of a message must be a string.", param="messages")
    return content or ""


# -- logprobs --


def completion_logprobs(
    entries: list[TokenLogprobs], tokenizer: Tokenizer, *, as_token_ids: bool, offset: int = 0
) -> dict[str, Any]:
    """The logprobs object of a completion choice."""

    def name(token: int) -> str:
        return f"token_id:{token}" if as_token_ids else tokenizer.pieces[token] or tokenizer.token_string(token)

    offsets, tops = [], []
    for entry in entries:
        offsets.append(offset)
        offset += len(name(entry.token))
        pairs = [(entry.token, entry.logprob), *entry.others]
        tops.append({name(token): max(logprob, _LOWEST_LOGPROB) for token, logprob in pairs})
    return {
        "text_offset": offsets,
        "token_logprobs": [max(e.logprob, _LOWEST_LOGPROB) for e in entries],
        "tokens": [name(e.token) for e in entries],
        "top_logprobs": tops,
    }


def chat_logprobs(
    entries: list[TokenLogprobs], tokenizer: Tokenizer, *, as_token_ids: bool
) -> dict[str, list[dict[str, Any]]]:
    """The logprobs object of a chat choice."""

    def item(token: int, logprob: float) -> dict[str, Any]:
        text = tokenizer.pieces[token] or tokenizer.token_string(token)
        name = f"token_id:{token}" if as_token_ids else text
        return {"token": name, "logprob": max(logprob, _LOWEST_LOGPROB), "bytes": list(text.encode())}

    return {
        "content": [
            {**item(e.token, e.logprob), "top_logprobs": [item(token, logprob) for token, logprob in e.others]}
            for e in entries
        ]
    }
