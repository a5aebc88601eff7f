"""The sequences of one HTTP request on the event loop: wait for all of them, or hear of each token."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple

from asearch_backends.embedded import protocol
from asearch_backends.embedded.sequence import Sequence
from asearch_backends.embedded.tokenizer import IncrementalText

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import numpy as np
    import numpy.typing as npt

    from asearch_backends.embedded.sampling import SamplingParams, TokenLogprobs
    from asearch_backends.embedded.sequence import Completion, EngineError
    from asearch_backends.embedded.tokenizer import Tokenizer


class Prompt(NamedTuple):
    tokens: npt.NDArray[np.int32]
    params: SamplingParams


class Job:
    """The sequences of one HTTP request, and what has become of them."""

    def __init__(self, prompts: list[Prompt], n: int, seed: int | None, *, streaming: bool) -> None:
        self.sequences: list[Sequence] = []
        for prompt in prompts:
            for choice_seed in protocol.choice_seeds(seed, n):
                index = len(self.sequences)
                self.sequences.append(Sequence(index, *prompt, choice_seed, self, streaming=streaming))
        self.completions: list[Completion | None] = [None] * len(self.sequences)
        self._left = len(self.sequences)
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._events: asyncio.Queue[Delta] | None = asyncio.Queue() if streaming else None

    @property
    def unfinished(self) -> list[Sequence]:
        return [s for s, completion in zip(self.sequences, self.completions, strict=True) if completion is None]

    async def wait(self) -> list[Completion]:
        """All completions, in the order of choices."""
        await self._done
        return [c for c in self.completions if c is not None]

    async def deltas(self) -> AsyncIterator[Delta]:
        """What is new, as it comes, until every sequence has ended."""
        if self._events is None:
            raise TypeError("this job was not made for streaming")
        left = len(self.sequences)
        while left:
            delta = await self._events.get()
            if delta.completion is not None:
                left -= 1
            elif not delta.tokens:
                await self._done  # raises: the engine has failed
            yield delta

    def on_tokens(self, sequence: Sequence, tokens: list[int], logprobs: list[TokenLogprobs]) -> None:
        if self._events is not None:
            self._events.put_nowait(Delta(sequence, tokens, logprobs, None))

    def on_finished(self, sequence: Sequence, completion: Completion) -> None:
        self.completions[sequence.index] = completion
        self._left -= 1
        if self._events is not None:
            last = completion.token_ids[-1:]
            self._events.put_nowait(Delta(sequence, last, completion.logprobs[-1:], completion))
        if not self._left and not self._done.done():
            self._done.set_result(None)

    def on_failed(self, error: EngineError) -> None:
        if not self._done.done():
            self._done.set_exception(error)
            self._done.exception()  # a stream may hear of it first; it is never unheard
        if self._events is not None:
            self._events.put_nowait(Delta(self.sequences[0], [], [], None))


class Delta(NamedTuple):
    sequence: Sequence
    tokens: list[int]
    logprobs: list[TokenLogprobs]
    completion: Completion | None


class Writer:
    """What has been sent of a streamed sequence; text that may be the beginning of a stop string is held back."""

    def __init__(self, tokenizer: Tokenizer, sequence: Sequence) -> None:
        params = sequence.params
        skip = params.skip_special_tokens
        self._text = IncrementalText(tokenizer, sequence.prompt[-8:].tolist(), skip_special_tokens=skip)
        hold = bool(params.stop) and not params.include_stop_str_in_output
        self._hold = max(map(len, params.stop)) - 1 if hold else 0
        self._written, self._known = 0, ""
        self.first = True

    def text(self, delta: Delta) -> str:
        """The new text that this delta allows to be sent."""
        if delta.completion is not None:
            return delta.completion.text[self._written :]
        self._known += self._text.push(delta.tokens)
        ready = self._known[: max(len(self._known) - self._hold, 0)]
        self._known = self._known[len(ready) :]
        self._written += len(ready)
        return ready
