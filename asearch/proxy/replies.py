"""Results as OpenAI's clients read them: a completion, the chunks of a stream, usage, details."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Any

import orjson

from asearch.events import Sampled, Scored
from asearch.result import node_to_json
from asearch.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asearch.events import Event
    from asearch.path import Path
    from asearch.result import Result

Json = dict[str, Any]
LINE = 200  # characters of a step that a line of progress shows
DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True)
class Replies:
    """Makes the replies to one request.

    Args:
        model: as it is listed.
        id: of the completion.
        details: add candidates, scores and votes to each choice.
        tree: add every explored step.
        created: Unix time.
    """

    model: str
    id: str
    details: bool = False
    tree: bool = False
    created: int = field(default_factory=lambda: int(time.time()))

    def completion(self, results: Sequence[Result], seeds: Sequence[int], thoughts: Sequence[str]) -> Json:
        """The whole answer: one choice per search."""
        choices = []
        for i, (result, seed) in enumerate(zip(results, seeds, strict=True)):
            message = {"role": "assistant", "content": result.text.strip(), "refusal": None}
            if thoughts[i]:
                message["reasoning_content"] = thoughts[i]
            choices.append(self._choice(i, result, seed, message=message))
        return self._envelope("chat.completion", choices) | {"usage": usage_of(results)}

    def chunk(self, index: int, delta: Json) -> Json:
        """A piece of choice `index`."""
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}
        return self._envelope("chat.completion.chunk", [choice])

    def end(self, index: int, result: Result, seed: int) -> Json:
        """The last chunk of a choice: why it ended, and the details."""
        return self._envelope("chat.completion.chunk", [self._choice(index, result, seed, delta={})])

    def usage(self, results: Sequence[Result]) -> Json:
        """The chunk after the last choice, for those who ask for it."""
        return self._envelope("chat.completion.chunk", []) | {"usage": usage_of(results)}

    def _envelope(self, kind: str, choices: Sequence[Json]) -> Json:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": None,
            "choices": choices,
        }

    def _choice(self, index: int, result: Result, seed: int, **said: Json) -> Json:
        choice: Json = {"index": index, **said, "logprobs": None, "finish_reason": finish_reason(result)}
        if self.details or self.tree:
            choice["asearch"] = details_of(result, seed, tree=self.tree)
        return choice


def finish_reason(result: Result) -> str:
    """Whether the solution came to its end ("stop") or was cut off ("length")."""
    return "stop" if result.winner is not None and result.paths[result.winner].complete else "length"


def usage_of(results: Sequence[Result]) -> Json:
    """Tokens of policy and verifier together, as OpenAI counts them.

    Read: prompts of the policy, and what the verifier reads. Written: everything that the policy wrote, of which what
    is not in the answer counts as reasoning.
    """
    total = reduce(add, (result.usage for result in results), Usage())
    answers = sum(result.paths[result.winner].tokens for result in results if result.winner is not None)
    read, written = total.policy_prompt_tokens + total.prm_tokens, total.policy_tokens
    return {
        "prompt_tokens": read,
        "completion_tokens": written,
        "total_tokens": read + written,
        "prompt_tokens_details": {"cached_tokens": total.policy_cached_tokens + total.prm_cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": max(0, written - answers)},
    }


def details_of(result: Result, seed: int, *, tree: bool) -> Json:
    """Why an answer won. Failures are a number: their texts name servers that are none of the caller's business."""
    details: Json = {
        "answer": result.answer,
        "score": result.score,
        "seed": seed,
        "strategy": dict(result.strategy),
        "stopped_by": result.stopped_by,
        "failures": len(result.errors),
        "votes": [asdict(vote) for vote in result.votes],
        "candidates": [candidate(result, i) for i in range(len(result.paths))],
        "usage": asdict(result.usage),
    }
    if tree:
        details["tree"] = [node_to_json(node) for node in result.tree.nodes]
    return details


def candidate(result: Result, i: int) -> Json:
    """A candidate with its step scores."""
    path = result.paths[i]
    return {
        "id": path.name,
        "text": path.text,
        "answer": result.answers[i],
        "value": result.values[i],
        "scores": list(path.scores),
        "tokens": path.tokens,
        "finish": path.finish,
    }


def progress_line(event: Event, *, judged: bool) -> str:
    """What an event says about the search, in a line: place in the tree, score, step. Empty for most events.

    Args:
        event: of the search.
        judged: there is a verifier, so that a step is told when it has been scored.
    """
    if not isinstance(event, Scored if judged else Sampled):
        return ""
    return f"{event.path.name}  {score_text(event.path)}  {shortened(event.path)}\n"


def score_text(path: Path) -> str:
    return "-" if path.score is None else f"{path.score:.3f}"


def shortened(path: Path) -> str:
    """The last step in one line."""
    text = " ".join(path.step.text.split()) if path.step else ""
    return text if len(text) <= LINE else text[: LINE - 1] + "…"


def server_sent(data: Json) -> bytes:
    """One server-sent event."""
    return b"data: " + orjson.dumps(data) + b"\n\n"
