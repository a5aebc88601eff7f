"""The JSON of answers, whole or in chunks: completions and chat."""

from __future__ import annotations

import time
from functools import cache
from importlib import metadata
from typing import TYPE_CHECKING, Any

from asearch_backends.embedded import protocol

if TYPE_CHECKING:
    from asearch_backends.embedded.jobs import Delta, Job
    from asearch_backends.embedded.sampling import TokenLogprobs
    from asearch_backends.embedded.sequence import Completion, Sequence
    from asearch_backends.embedded.tokenizer import Tokenizer


class Answer:
    """The JSON of one kind of request, whole or in pieces."""

    object_whole, object_chunk = "text_completion", "text_completion"

    def __init__(self, name: str, tokenizer: Tokenizer, request: protocol.SamplingRequest, request_id: str) -> None:
        self._tokenizer = tokenizer
        self._head = {"id": request_id, "created": int(time.time()), "model": name}
        self._as_ids = bool(request.return_tokens_as_token_ids)
        self._with_ids = bool(request.return_token_ids)

    def envelope(self, choices: list[dict[str, Any]], *, whole: bool = False) -> dict[str, Any]:
        kind = self.object_whole if whole else self.object_chunk
        return self._head | {"object": kind, "choices": choices, "system_fingerprint": f"asearch-embedded-{version()}"}

    def whole(self, job: Job, completions: list[Completion]) -> dict[str, Any]:
        raise NotImplementedError

    def opening(self, job: Job) -> list[dict[str, Any]]:
        """Chunks that come before the first token."""
        del job
        return []

    def chunk(self, delta: Delta, text: str, *, first: bool) -> dict[str, Any]:
        raise NotImplementedError


class CompletionAnswer(Answer):
    """/v1/completions."""

    def __init__(self, name: str, tokenizer: Tokenizer, request: protocol.CompletionRequest, request_id: str) -> None:
        super().__init__(name, tokenizer, request, request_id)
        self._with_logprobs = request.logprobs is not None
        self._offsets: dict[int, int] = {}

    def whole(self, job: Job, completions: list[Completion]) -> dict[str, Any]:
        choices = [self._choice(s, c) for s, c in zip(job.sequences, completions, strict=True)]
        rest = {"service_tier": None, "usage": usage_of(job, completions), "kv_transfer_params": None}
        return self.envelope(choices, whole=True) | rest

    def _choice(self, sequence: Sequence, completion: Completion) -> dict[str, Any]:
        return {
            "index": sequence.index,
            "text": completion.text,
            "logprobs": self._logprobs(completion.logprobs, 0),
            "finish_reason": completion.finish_reason,
            "stop_reason": completion.stop_reason,
            "token_ids": completion.token_ids if self._with_ids else None,
            "prompt_logprobs": None,
            "prompt_token_ids": sequence.prompt.tolist() if self._with_ids else None,
            "routed_experts": None,
        }

    def chunk(self, delta: Delta, text: str, *, first: bool) -> dict[str, Any]:
        completion, index = delta.completion, delta.sequence.index
        choice = {
            "index": index,
            "text": text,
            "logprobs": self._logprobs(delta.logprobs, self._offsets.get(index, 0)),
            "finish_reason": completion.finish_reason if completion else None,
            "stop_reason": completion.stop_reason if completion else None,
            "prompt_token_ids": delta.sequence.prompt.tolist() if self._with_ids and first else None,
            "token_ids": delta.tokens if self._with_ids else None,
        }
        self._offsets[index] = self._offsets.get(index, 0) + len(text)
        return self.envelope([choice])

    def _logprobs(self, entries: list[TokenLogprobs], offset: int) -> dict[str, Any] | None:
        if not self._with_logprobs:
            return None
        return protocol.completion_logprobs(entries, self._tokenizer, as_token_ids=self._as_ids, offset=offset)


class ChatAnswer(Answer):
    """/v1/chat/completions."""

    object_whole, object_chunk = "chat.completion", "chat.completion.chunk"

    def __init__(self, name: str, tokenizer: Tokenizer, request: protocol.ChatRequest, request_id: str) -> None:
        super().__init__(name, tokenizer, request, request_id)
        self._with_logprobs = bool(request.logprobs)

    def whole(self, job: Job, completions: list[Completion]) -> dict[str, Any]:
        choices = [self._choice(s, c) for s, c in zip(job.sequences, completions, strict=True)]
        ids = job.sequences[0].prompt.tolist() if self._with_ids else None
        rest = {"usage": usage_of(job, completions), "prompt_logprobs": None, "prompt_token_ids": ids}
        return self.envelope(choices, whole=True) | {"service_tier": None, "kv_transfer_params": None} | rest

    def _choice(self, sequence: Sequence, completion: Completion) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": completion.text, "refusal": None, "tool_calls": []}
        return {
            "index": sequence.index,
            "message": message,
            "logprobs": self._logprobs(completion.logprobs),
            "finish_reason": completion.finish_reason,
            "stop_reason": completion.stop_reason,
            "token_ids": completion.token_ids if self._with_ids else None,
        }

    def opening(self, job: Job) -> list[dict[str, Any]]:
        delta = {"role": "assistant", "content": ""}
        return [self.envelope([_chat_chunk(s.index, delta)]) for s in job.sequences]

    def chunk(self, delta: Delta, text: str, *, first: bool) -> dict[str, Any]:
        del first
        completion = delta.completion
        ends = {
            "logprobs": self._logprobs(delta.logprobs),
            "finish_reason": completion.finish_reason if completion else None,
            "stop_reason": completion.stop_reason if completion else None,
            "token_ids": delta.tokens if self._with_ids else None,
        }
        return self.envelope([_chat_chunk(delta.sequence.index, {"content": text}) | ends])

    def _logprobs(self, entries: list[TokenLogprobs]) -> dict[str, Any] | None:
        if not self._with_logprobs:
            return None
        return dict(protocol.chat_logprobs(entries, self._tokenizer, as_token_ids=self._as_ids))


def _chat_chunk(index: int, delta: dict[str, Any]) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}


def usage_of(job: Job, completions: list[Completion]) -> dict[str, Any]:
    """Tokens of a request: each prompt once, however many choices it has; cached tokens of the last prompt, as vLLM."""
    n = len(job.sequences) // len({id(s.prompt) for s in job.sequences})
    prompt = sum(len(s.prompt) for s in job.sequences[::n])
    completion = sum(len(c.token_ids) for c in completions)
    return {
        "prompt_tokens": prompt,
        "total_tokens": prompt + completion,
        "completion_tokens": completion,
        "prompt_tokens_details": {"cached_tokens": completions[-n].cached_tokens if completions else 0},
        "completion_tokens_details": None,
    }


@cache
def version() -> str:
    """Of this package; read from disk once."""
    try:
        return metadata.version("asearch")
    except metadata.PackageNotFoundError:
        return "0"
