"""A model of a continuous-batching engine (vLLM's scheduler) on the event loop's clock.

Iterations in which nothing joins or leaves the batch are taken in one leap, so a run costs Python time per sequence, not
per token. Admission is first come, first served; prompts are computed in chunks beside the running sequences, up to the
token limit of an iteration; a sequence's whole KV need is set aside when it is admitted, so nothing is ever preempted.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from bisect import bisect_right
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from simulation.cache import PrefixCache

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from simulation.cache import Node, Piece
    from simulation.hardware import Machine


@dataclass(slots=True, eq=False)
class Task:
    """One sequence: a prompt in pieces, and how many tokens it will generate.

    Args:
        pieces: the prompt.
        new: tokens to generate, at least 1.
        ended: called when they are generated.
        first: it is the first of its request.
        kept: what the generated tokens are called in the prefix cache, if they stay there.
    """

    pieces: Sequence[Piece]
    new: int
    ended: Callable[[], None]
    kept: Sequence[Piece] = ()
    first: bool = False
    node: Node | None = None
    to_compute: int = 0
    found: int = 0  # tokens of the prompt that were in the cache
    aborted: bool = False

    @property
    def prompt(self) -> int:
        return self.pieces[-1][1]


@dataclass(slots=True)
class Counters:
    """What an engine has done."""

    sequences: int = 0
    prompt_tokens: int = 0
    computed_tokens: int = 0  # of prompts
    generated_tokens: int = 0
    context_read: float = 0.0
    iterations: int = 0
    busy: float = 0.0
    peak_waiting: int = 0


@dataclass(slots=True)
class _Leap:
    """Iterations under way."""

    began: float
    count: int
    timer: asyncio.TimerHandle
    prefilled: list[Task] = field(default_factory=list)
    chunk: int = 0


class Engine:
    """One server's engine; `submit` and `abort` may be called at any time."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.counters = Counters()
        self.cache = PrefixCache(machine.kv_tokens, machine.block) if machine.prefix_caching else None
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Task] = deque()
        self._prefilling: deque[Task] = deque()
        self._decoding: list[tuple[int, int, Task]] = []  # by the iteration after which they end
        self._sequences = 0  # of those decoding that are not aborted
        self._context = 0  # their tokens
        self._held = 0  # KV tokens in use where there is no prefix cache
        self._order = itertools.count()
        self._aborted = False
        self._leap: _Leap | None = None
        self._soon: asyncio.Handle | None = None

    @property
    def running(self) -> int:
        return self._sequences + len(self._prefilling)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def submit(self, tasks: Sequence[Task]) -> None:
        """Queue sequences."""
        self._waiting.extend(tasks)
        self.counters.peak_waiting = max(self.counters.peak_waiting, len(self._waiting))
        if self._leap is None:
            if self._soon is None:
                self._soon = self._loop.call_soon(self._begin)
        elif self.running < self.machine.max_num_seqs:
            self._shorten(self._leap)

    def abort(self, tasks: Sequence[Task]) -> None:
        """Drop sequences: they leave the batch after the iteration under way."""
        for task in tasks:
            task.aborted = self._aborted = True
        if self._leap is not None:
            self._shorten(self._leap)

    # -- iterations ---------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Start the next iteration, or as many as nothing can change in."""
        self._soon = None
        self._sweep()
        self._admit()
        chunk, done, sequences = self._chunk()
        machine, now = self.machine, self._loop.time()
        if chunk:
            seconds = machine.iteration(self._sequences + chunk, self._sequences + sequences, self._context)
            seconds += sum(map(self._extra, done))
            count = 1
        elif self._sequences:
            count = max(1, self._decoding[0][0] - self.counters.iterations)
            seconds = machine.decoding(count, self._sequences, self._context)
        else:
            self._leap = None
            return
        timer = self._loop.call_at(now + seconds, self._end)
        self._leap = _Leap(now, count, timer, done, chunk)

    def _end(self) -> None:
        """The iterations under way are over."""
        leap = self._leap
        if leap is None:
            return
        counters, count, sequences = self.counters, leap.count, self._sequences
        counters.iterations += count
        counters.busy += self._loop.time() - leap.began
        counters.generated_tokens += count * sequences
        counters.context_read += count * self._context + sequences * count * (count - 1) / 2
        counters.computed_tokens += leap.chunk
        self._context += count * sequences
        for task in leap.prefilled:
            self._start(task)
        while self._decoding and self._decoding[0][0] <= counters.iterations:
            task = heapq.heappop(self._decoding)[2]
            self._leave(task, task.prompt + task.new)
            if not task.aborted:
                task.ended()
        self._begin()

    def _shorten(self, leap: _Leap) -> None:
        """Something has come up: end the leap with the iteration that is being computed now."""
        if leap.count == 1 or leap.chunk:
            return
        passed = self._loop.time() - leap.began

        def reached(count: int) -> float:
            return self.machine.decoding(count, self._sequences, self._context)

        count = min(leap.count, bisect_right(range(1, leap.count + 1), passed, key=reached) + 1)
        if count < leap.count:
            leap.timer.cancel()
            leap.count = count
            leap.timer = self._loop.call_at(leap.began + reached(count), self._end)

    # -- the batch ----------------------------------------------------------------------------------------------------

    def _admit(self) -> None:
        budget = self.machine.max_num_batched_tokens - self._sequences - sum(t.to_compute for t in self._prefilling)
        while self._waiting and budget > 0 and self.running < self.machine.max_num_seqs:
            task = self._waiting[0]
            if not self._hold(task):
                break
            self._waiting.popleft()
            self._prefilling.append(task)
            self.counters.sequences += 1
            self.counters.prompt_tokens += task.prompt
            budget -= task.to_compute

    def _hold(self, task: Task) -> bool:
        if self.cache is None:
            if self._held + task.prompt + task.new > self.machine.kv_tokens and self.running:
                return False
            self._held += task.prompt + task.new
            task.to_compute = task.prompt
            return True
        task.found = self.cache.cached(task.pieces)
        task.to_compute = task.prompt - task.found
        task.node = self.cache.hold(task.pieces, task.new)
        return task.node is not None

    def _chunk(self) -> tuple[int, list[Task], int]:
        """Prompt tokens for the next iteration, the prompts that they complete, and how many prompts are touched."""
        budget, done, touched = self.machine.max_num_batched_tokens - self._sequences, [], 0
        total = 0
        while self._prefilling and budget > 0:
            task = self._prefilling[0]
            touched += 1
            part = min(budget, task.to_compute)
            task.to_compute -= part
            budget -= part
            total += part
            if task.to_compute:
                break
            done.append(self._prefilling.popleft())
        return total, done, touched

    def _start(self, task: Task) -> None:
        """A prompt is computed, and with it the first token."""
        self.counters.generated_tokens += 1
        self._sequences += 1
        self._context += task.prompt + 1
        heapq.heappush(self._decoding, (self.counters.iterations + task.new - 1, next(self._order), task))

    def _extra(self, task: Task) -> float:
        """Seconds that a prompt takes besides those of its tokens."""
        machine = self.machine
        return machine.prompt_sequence + machine.request * task.first + machine.load * task.found

    def _leave(self, task: Task, length: int) -> None:
        self._sequences -= 1
        self._context -= length
        self._give_back(task)

    def _give_back(self, task: Task) -> None:
        if self.cache is None:
            self._held -= task.prompt + task.new
        elif task.node is not None:
            self.cache.release(task.node, task.new, () if task.aborted else task.kept)
            task.node = None

    def _sweep(self) -> None:
        """Take out what was aborted."""
        if not self._aborted:
            return
        self._aborted = False
        for end, _, task in self._decoding:
            if task.aborted:
                self._leave(task, task.prompt + task.new - (end - self.counters.iterations))
        self._decoding = [item for item in self._decoding if not item[2].aborted]
        heapq.heapify(self._decoding)
        for task in [task for task in self._prefilling if task.aborted]:
            self._prefilling.remove(task)
            self._give_back(task)
        self._waiting = deque(task for task in self._waiting if not task.aborted)
