"""What goes into the engine and what comes out: a sequence is one choice of one prompt."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from asearch_backends.embedded.cache import token_bytes

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from asearch_backends.embedded.sampling import SamplingParams, TokenLogprobs


class Listener(Protocol):
    """Who wants to know about a sequence; called on the event loop."""

    def on_tokens(self, sequence: Sequence, tokens: list[int], logprobs: list[TokenLogprobs]) -> None:
        """A streamed sequence has new tokens and goes on."""

    def on_finished(self, sequence: Sequence, completion: Completion) -> None:
        """The sequence has ended."""

    def on_failed(self, error: EngineError) -> None:
        """The engine cannot go on."""


class EngineError(Exception):
    """The engine has stopped; no request can be served any more."""


@dataclass(eq=False, slots=True)
class Sequence:
    """One choice to be generated, and how far the engine has come with it."""

    index: int
    prompt: npt.NDArray[np.int32]
    params: SamplingParams
    seed: int
    listener: Listener
    streaming: bool = False
    data: bytes = b""  # the prompt as the prefix cache compares it

    # The engine's own notes:
    row: int = -1
    cached: int = 0  # of these, from the prefix cache or from another sequence of the batch
    carrier: Sequence | None = None
    riders: list[Sequence] = field(default_factory=list)
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    aborted: bool = False

    def __post_init__(self) -> None:
        self.data = self.data or token_bytes(self.prompt)


@dataclass(frozen=True, slots=True)
class Completion:
    """A finished sequence. `stop_reason` is a stop string, a stop token, or None for the main EOS and for length."""

    token_ids: list[int]
    text: str
    finish_reason: str
    stop_reason: str | int | None
    logprobs: list[TokenLogprobs]
    cached_tokens: int
