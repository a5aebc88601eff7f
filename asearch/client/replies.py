"""Reading completions: how many, what text, which tokens, and why each ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asearch.errors import ProtocolError
from asearch.path import Finish, Step

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asearch.transport import Json

# The field in which a server tells a stop string from the end of the text: vLLM's name, and SGLang's.
STOP_FIELDS = ("stop_reason", "matched_stop")


def finish_of(choice: Json) -> Finish:
    """Why a completion ended, by the measured rules.

    A stop string sets `stop_reason` (SGLang: `matched_stop`) to that string; the end of the text does not (vLLM: null,
    or the id of a secondary EOS token; SGLang: its id); and `length` is no end of the text.
    """
    if choice.get("finish_reason") != "stop":
        return "length"
    return "step" if any(isinstance(choice.get(name), str) for name in STOP_FIELDS) else "eos"


def tells_stop(choice: Json) -> bool:
    """Whether a server says what stopped a completion. Without it a step cannot be told from a finished solution."""
    return any(name in choice for name in STOP_FIELDS)


def seeds_choices(choice: Json) -> bool:
    """Whether choice i of n is drawn with seed + i, as vLLM does; of others it is not known, so they get n requests."""
    return "stop_reason" in choice


def choices_of(reply: Json, n: int, endpoint: str) -> list[Json]:
    """The n completions of a reply, in order."""
    choices = reply.get("choices")
    if not isinstance(choices, list) or len(choices) != n or not all(isinstance(c, dict) for c in choices):
        got = len(choices) if isinstance(choices, list) else "no"
        raise ProtocolError(f"asked for {n} completions and got {got}", endpoint=endpoint)
    return sorted(choices, key=lambda choice: int(choice.get("index") or 0))


def text_of(choice: Json, endpoint: str) -> str:
    """The text of a completion, or of a chat message (which may be empty: null, where a model only reasoned)."""
    message = choice.get("message")
    text = (message.get("content") or "") if isinstance(message, dict) else choice.get("text")
    if not isinstance(text, str):
        raise ProtocolError("a completion lacks its text; is this an OpenAI-compatible server?", endpoint=endpoint)
    return text


def ids_of(choice: Json, endpoint: str) -> tuple[int, ...]:
    """The generated ids of a completion."""
    ids = choice.get("token_ids")
    if not isinstance(ids, list) or not set(map(type, ids)) <= {int}:
        raise ProtocolError("a completion lacks its token ids, which vLLM gives since 0.10.2", endpoint=endpoint)
    return tuple(map(_same, ids))


class _Shared(dict[int, int]):
    """One object per token id: a number of its own for each token of each step is most of what a large tree weighs."""

    def __missing__(self, token: int) -> int:
        if len(self) < VOCABULARY:
            self[token] = token
        return token


VOCABULARY = 2**18  # of the largest models; what is beyond is no id, or of no interest
_same = _Shared().__getitem__


def text_steps(reply: Json, n: int, separator: str | None, endpoint: str) -> list[Step]:
    """Steps as text; `separator` is what stopped them, if anything was to. Ids, where they are given, are counted only."""
    choices = choices_of(reply, n, endpoint)
    texts = [text_of(choice, endpoint) for choice in choices]
    finishes = [finish_of(choice) for choice in choices]
    if separator:  # servers differ in whether the stop string is part of the text; a step has it
        texts = [
            text + separator if finish == "step" and not text.endswith(separator) else text
            for text, finish in zip(texts, finishes, strict=True)
        ]
    tokens = [len(choice["token_ids"]) for choice in choices if isinstance(choice.get("token_ids"), list)]
    if len(tokens) < n:
        tokens = shares(int((reply.get("usage") or {}).get("completion_tokens") or 0), [len(text) for text in texts])
    return [Step(text, finish, None, count) for text, finish, count in zip(texts, finishes, tokens, strict=True)]


def shares(total: int, sizes: Sequence[int]) -> list[int]:
    """Whole numbers in proportion to sizes that add up to a total: where the server counts for all together."""
    everything, so_far, given = sum(sizes), 0, 0
    parts: list[int] = []
    for i, size in enumerate(sizes):
        so_far += size
        due = total * so_far // everything if everything else total * (i + 1) // len(sizes)
        parts.append(due - given)
        given = due
    return parts
