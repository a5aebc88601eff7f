"""Continuous batching: a thread that computes prompts and appends one token to every running sequence, step by step."""

from __future__ import annotations

import queue
import sys
import threading
import traceback
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from asearch_backends.embedded.admission import admit
from asearch_backends.embedded.attention import Piece
from asearch_backends.embedded.batch import Batch
from asearch_backends.embedded.cache import PrefixCache, token_bytes
from asearch_backends.embedded.kv import BLOCK
from asearch_backends.embedded.model import Llama
from asearch_backends.embedded.sampling import token_logprobs
from asearch_backends.embedded.sequence import Completion, EngineError
from asearch_backends.embedded.tokenizer import find_stop

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from asearch_backends.embedded.cache import Key
    from asearch_backends.embedded.checkpoint import Checkpoint
    from asearch_backends.embedded.sampling import SamplingParams
    from asearch_backends.embedded.sequence import Sequence
    from asearch_backends.embedded.tokenizer import Tokenizer

    Floats = npt.NDArray[np.float32]
    Ints = npt.NDArray[np.int64]
    Event = Callable[[], None]

STEP_TOKENS = 512  # prompt tokens computed in one step, so that running sequences are not held up for long
_UNFINISHED = "�"


@dataclass(slots=True)
class Counters:
    """Totals since the start, under the names that /metrics gives them."""

    prompt_tokens: int = 0
    generation_tokens: int = 0
    cache_queries: int = 0
    cache_hits: int = 0
    steps: int = 0
    finished: dict[str, int] = field(default_factory=lambda: {"stop": 0, "length": 0, "abort": 0})


class _Ending(NamedTuple):
    finish_reason: str
    stop_reason: str | int | None = None
    characters_after: int = 0


class Engine:
    """Owns the model and all running sequences. `submit` and `abort` may be called from any thread.

    Args:
        checkpoint: the model.
        tokenizer: its tokenizer, for stop strings and text.
        max_num_seqs: how many sequences run at once.
        max_model_len: how many tokens a sequence may have.
        cache_bytes: memory for the prefix cache.
        deliver: called on the engine's thread, at most once a step, with what happened; should hand over and return.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        tokenizer: Tokenizer,
        *,
        max_num_seqs: int,
        max_model_len: int,
        cache_bytes: int,
        deliver: Callable[[list[Event]], None],
    ) -> None:
        config = checkpoint.config
        self._tokenizer, self._deliver = tokenizer, deliver
        self._model = Llama(checkpoint, rows=max_num_seqs, positions=max_model_len)
        self._cache = PrefixCache(self._model.kv, _cache_blocks(self._model, max_model_len, cache_bytes))
        self._batch = Batch(self._model.kv, config.vocab_size)
        main = tokenizer.eos_id if tokenizer.eos_id is not None else next(iter(config.eos_token_ids), None)
        self._main_eos = main
        self._other_eos = tuple(t for t in config.eos_token_ids if t != main)
        self._waiting: deque[Sequence] = deque()
        self._inbox: queue.SimpleQueue[list[Sequence] | None] = queue.SimpleQueue()
        self._aborting = threading.Event()
        self._events: list[Event] = []
        self._submitted = self._dequeued = 0
        self.counters = Counters()
        self.failure: EngineError | None = None
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    # -- for other threads --

    @property
    def running(self) -> int:
        """Sequences in the batch."""
        return self._batch.used

    @property
    def waiting(self) -> int:
        """Sequences that have been submitted and are not in the batch yet."""
        return self._submitted - self._dequeued

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the thread; what still runs fails."""
        self._inbox.put(None)
        if self._thread.is_alive():
            self._thread.join()

    def submit(self, sequences: list[Sequence]) -> None:
        """Queue sequences; their listeners hear about them through `deliver`."""
        if self.failure is not None:
            raise self.failure
        self._submitted += len(sequences)
        self._inbox.put(sequences)
        if self.failure is not None:  # the thread may have ended just before, and nobody takes these any more
            raise self.failure

    def abort(self, sequences: list[Sequence]) -> None:
        """Drop sequences at the next step; their listeners hear nothing more."""
        for sequence in sequences:
            sequence.aborted = True
        self._aborting.set()
        self._inbox.put([])  # wakes an idle engine

    # -- the thread --

    def _run(self) -> None:
        try:
            while self._receive():
                self._drop_aborted()
                self.step()
                self._flush()
            self._fail(EngineError("the server is shutting down"))
        except Exception as error:  # noqa: BLE001 - whatever it is, every caller must hear of it
            traceback.print_exc(file=sys.stderr)
            self._fail(EngineError(f"the engine failed: {type(error).__name__}: {error}"))

    def _receive(self) -> bool:
        """Take what has been submitted, waiting if there is nothing else to do; False to stop."""
        idle = not self._waiting and not self._batch.used
        while idle or not self._inbox.empty():
            sequences = self._inbox.get()
            if sequences is None:
                return False
            self._waiting.extend(sequences)
            idle = False
        return True

    def _drop_aborted(self) -> None:
        if not self._aborting.is_set():
            return
        self._aborting.clear()
        kept = [s for s in self._waiting if not s.aborted]
        self._dequeued += len(self._waiting) - len(kept)
        self._waiting = deque(kept)
        for sequence in self._batch.running():
            if sequence.aborted and sequence.row >= 0:
                self._leave(sequence)

    def _leave(self, sequence: Sequence) -> None:
        """Close a row; those that rode on it go back to the head of the queue."""
        for rider in sequence.riders:
            rider.carrier = None
            if not rider.aborted:
                self._batch.close(rider.row)
                self._waiting.appendleft(rider)
                self._dequeued -= 1
        sequence.riders.clear()
        if sequence.carrier is not None:
            sequence.carrier.riders.remove(sequence)
            sequence.carrier = None
        self._batch.close(sequence.row)

    def _fail(self, error: EngineError) -> None:
        self.failure = error
        sequences = [*self._batch.running(), *self._waiting]
        while not self._inbox.empty():
            sequences += self._inbox.get() or []
        self._events += [_failed(s, error) for s in sequences if not s.aborted]
        self._flush()

    def _flush(self) -> None:
        if self._events:
            events, self._events = self._events, []
            self._deliver(events)

    # -- one step --

    def step(self) -> None:
        """Let sequences in, compute (parts of) their prompts, and append a token to each row that can have one."""
        batch = self._batch
        self.counters.steps += 1
        self._admit()
        rows, pieces = batch.decoding(), self._next_pieces()
        if not len(rows) and not pieces:
            return
        ready, ends = self._ready(pieces, len(rows))
        positions = batch.length[rows] - 1
        parts = [batch.tokens[rows, positions], *(batch.tokens[p.row, p.start : p.start + p.count] for p in pieces)]
        logits = self._model.forward(
            np.concatenate(parts).astype(np.int64),
            rows=rows,
            positions=positions,
            pieces=pieces,
            wanted=np.concatenate([np.arange(len(rows)), np.array(ends, np.int64)]),
        )
        for piece in pieces:
            batch.computed[piece.row] = piece.start + piece.count
        self._begin(ready)
        self._advance(np.concatenate([rows, np.array([s.row for s in ready], np.int64)]), logits)

    def _admit(self) -> None:
        if not self._waiting or not self._batch.free:
            return
        prefilling = [s for s in self._batch.prefilling.values() if s.carrier is None]
        budget = STEP_TOKENS - sum(len(s.prompt) - int(self._batch.computed[s.row]) for s in prefilling)
        pending: list[Key | None] = [self._cache.match(s.data).missing for s in prefilling]
        admitted = admit(self._waiting, self._cache, rows=self._batch.free, tokens=budget, pending=pending)
        for carrier, match, _ in admitted:
            self._open(carrier, computed=match.tokens)
            self._cache.load(match.blocks, carrier.row)
        for carrier, _, riders in admitted:
            for rider in riders:
                rider.carrier = carrier
                carrier.riders.append(rider)
                self._open(rider, computed=0, cached=len(rider.prompt) - 1)

    def _open(self, sequence: Sequence, *, computed: int, cached: int | None = None) -> None:
        sequence.cached = computed if cached is None else cached
        self._dequeued += 1
        self.counters.prompt_tokens += len(sequence.prompt)
        self.counters.cache_queries += len(sequence.prompt)
        self.counters.cache_hits += sequence.cached
        suspects, ends = self._suspects(sequence.params)
        self._batch.open(sequence, suspects, ends, computed=computed)

    def _suspects(self, params: SamplingParams) -> tuple[npt.NDArray[np.bool_], list[int]]:
        """The tokens after which a row must be looked at, and those of them that end it by themselves."""
        vocabulary = self._batch.suspects.shape[1]
        suspects = self._tokenizer.may_complete(params.stop).copy() if params.stop else np.zeros(vocabulary, np.bool_)
        ends = list(params.stop_token_ids)
        if not params.ignore_eos:
            ends += [*self._other_eos, *(() if self._main_eos is None else (self._main_eos,))]
        suspects[ends] = True
        return suspects, ends

    def _next_pieces(self) -> list[Piece]:
        """Parts of prompts up to the budget of a step, in the order of arrival."""
        budget, pieces = STEP_TOKENS, list[Piece]()
        for row, sequence in self._batch.prefilling.items():
            if budget == 0:
                break
            if sequence.carrier is not None:
                continue
            start = int(self._batch.computed[row])
            count = min(len(sequence.prompt) - start, budget)
            pieces.append(Piece(row, start, count))
            budget -= count
        return sorted(pieces, key=lambda p: (p.pages, p.count))

    def _ready(self, pieces: list[Piece], first: int) -> tuple[list[Sequence], list[int]]:
        """The sequences whose prompts end in these pieces, and where: packed places, of which the pieces' begin at `first`."""
        ready: list[Sequence] = []
        ends: list[int] = []
        for piece in pieces:
            carrier = self._batch.at(piece.row)
            for sequence in (carrier, *carrier.riders):
                if piece.start < len(sequence.prompt) <= piece.start + piece.count:
                    ready.append(sequence)
                    ends.append(first + len(sequence.prompt) - 1 - piece.start)
            first += piece.count
        return ready, ends

    def _begin(self, ready: list[Sequence]) -> None:
        """Sequences whose prompts are computed go on with tokens of their own."""
        hosts: dict[tuple[int, int], int] = {}
        for sequence in ready:
            if sequence.carrier is None:
                self._cache.store(sequence.data, sequence.row)
            else:
                self._alight(sequence, sequence.carrier, hosts)
            self._batch.start_decoding(sequence.row)

    def _alight(self, sequence: Sequence, carrier: Sequence, hosts: dict[tuple[int, int], int]) -> None:
        """A rider has got its logits; if it will go on it needs its carrier's keys and values.

        It shares the pages of its host: the carrier, or when these are full the last rider that had to copy them.
        """
        n = len(sequence.prompt)
        if sequence.params.max_tokens > 1:
            key = (carrier.row, n)
            if not self._batch.kv.share(hosts.get(key, carrier.row), sequence.row, n):
                hosts[key] = sequence.row
        carrier.riders.remove(sequence)
        sequence.carrier = None

    def _advance(self, rows: Ints, logits: Floats) -> None:
        """Draw a token for each of these rows; only those that may end, or want to be heard, are looked at one by one."""
        batch = self._batch
        positions = batch.length[rows]
        tokens = batch.sampling.choose(rows, logits, positions)
        batch.tokens[rows, positions] = tokens
        batch.length[rows] = positions + 1
        self.counters.generation_tokens += len(rows)
        suspicious = batch.watched[rows] | batch.suspects[rows, tokens] | (positions + 1 >= batch.limit[rows])
        for i in np.flatnonzero(suspicious).tolist():
            row = int(rows[i])
            if self._look(row, int(tokens[i]), logits[i]):
                batch.close(row)

    def _look(self, row: int, token: int, logits: Floats) -> bool:
        """Record and report a row's new token; True if the sequence has ended."""
        sequence = self._batch.at(row)
        params = sequence.params
        if params.logprobs is not None:
            sequence.logprobs.append(token_logprobs(logits, token, params))
        generated = self._batch.tokens[row, len(sequence.prompt) : self._batch.length[row]].tolist()
        ending = self._ending(sequence, generated, token)
        if ending is not None:
            self._finish(sequence, generated, ending)
        elif sequence.streaming and not sequence.aborted:
            self._events.append(_progress(sequence, token))
        return ending is not None

    def _ending(self, sequence: Sequence, generated: list[int], token: int) -> _Ending | None:
        """Why the sequence ends with this token, in vLLM's order: token ids, length; but a stop string overrules both."""
        params = sequence.params
        ending = self._token_ending(params, len(generated), token)
        hidden = ending is not None and ending.finish_reason == "stop" and not params.include_stop_str_in_output
        if params.stop and not hidden and len(generated) > params.min_tokens:
            found = find_stop(self._tokenizer, generated, params.stop, skip_special_tokens=params.skip_special_tokens)
            if found is not None:
                return _Ending("stop", found[0], found[1])
        return ending

    def _token_ending(self, params: SamplingParams, generated: int, token: int) -> _Ending | None:
        if generated >= params.min_tokens:
            if token == self._main_eos and not params.ignore_eos:
                return _Ending("stop")
            if token in params.stop_token_ids or (token in self._other_eos and not params.ignore_eos):
                return _Ending("stop", token)
        return _Ending("length") if generated >= params.max_tokens else None

    def _finish(self, sequence: Sequence, generated: list[int], ending: _Ending) -> None:
        known = len(sequence.prompt) + len(generated) - 1
        if known // BLOCK > len(sequence.prompt) // BLOCK:
            self._cache.store(token_bytes(self._batch.tokens[sequence.row, :known]), sequence.row)
        if sequence.aborted:
            return
        completion = Completion(
            token_ids=generated,
            text=self._text(sequence, generated, ending),
            finish_reason=ending.finish_reason,
            stop_reason=ending.stop_reason,
            logprobs=sequence.logprobs,
            cached_tokens=sequence.cached,
        )
        self.counters.finished[ending.finish_reason] += 1
        self._events.append(_finished(sequence, completion))

    def _text(self, sequence: Sequence, generated: list[int], ending: _Ending) -> str:
        params = sequence.params
        by_text = isinstance(ending.stop_reason, str)
        by_token = ending.finish_reason == "stop" and not by_text
        shown = generated[:-1] if by_token and not params.include_stop_str_in_output else generated
        text = self._tokenizer.continuation(
            sequence.prompt[-8:].tolist(), shown, skip_special_tokens=params.skip_special_tokens
        )
        if isinstance(ending.stop_reason, str):
            cut = ending.characters_after + (0 if params.include_stop_str_in_output else len(ending.stop_reason))
            return text[: len(text) - cut]
        return text.rstrip(_UNFINISHED)


def _cache_blocks(model: Llama, max_model_len: int, cache_bytes: int) -> int:
    """How many blocks fit in the memory for the cache; at least those of one sequence."""
    kv = model.kv
    size: int = 2 * 4 * kv.keys.shape[0] * kv.heads * kv.dim * BLOCK
    return max(cache_bytes // size, max_model_len // BLOCK + 1)


def _progress(sequence: Sequence, token: int) -> Event:
    logprobs = sequence.logprobs[-1:]
    return lambda: sequence.listener.on_tokens(sequence, [token], logprobs)


def _finished(sequence: Sequence, completion: Completion) -> Event:
    return lambda: sequence.listener.on_finished(sequence, completion)


def _failed(sequence: Sequence, error: EngineError) -> Event:
    return lambda: sequence.listener.on_failed(error)
