"""Answers in processes that can be killed: deadline, memory cap, replacement, memo.

sympy can be kept busy for ever by a short text, and Python cannot stop a thread. So all symbolic work happens in a small
pool of child processes (`python -m asearch.workers`), each with one thread on this side that waits for it. A child that
misses the deadline of an expression is killed and replaced, and the expression stands for its own text from then on. The
event loop only ever does work that is bounded: numbers and words are settled here, without a process.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import json
import os
import queue
import re
import selectors
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from operator import length_hint
from typing import TYPE_CHECKING, Any, Self
from weakref import WeakKeyDictionary

from asearch.answers import Form, Group, fast_form, unread
from asearch.answers.forms import Classes, distinct, pairs_to_prove
from asearch.answers.latex import MAX_LENGTH
from asearch.answers.service import HEADER, MAX_FRAME, pack, serve
from asearch.errors import WorkerError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType

START_SECONDS = 120.0  # importing sympy takes half a second; a busy machine may need long
MAX_MEMO = 50_000
MAX_GRADED = 30_000  # characters of a solution, from its end
MAX_FAST = 400  # characters of an answer that are parsed on the event loop; a few milliseconds at worst
WHOLE = re.compile(r"-?[0-9]{1,15}")  # two of these are equal or not: nothing has to be read
SLICE_SECONDS = 0.004  # of parsing on the event loop before others get their turn


@dataclass(slots=True)
class Stats:
    """What a pool has done so far.

    Args:
        tasks: requests that went to a process.
        fast: answers settled without a process.
        memo_hits: answers and comparisons that were known already.
        failures: requests that ended without a result: too late, out of memory, or an error.
        kills: processes killed at a deadline.
        deaths: processes that ended by themselves (out of memory, mostly).
        replacements: processes started in place of killed or dead ones.
    """

    tasks: int = 0
    fast: int = 0
    memo_hits: int = 0
    failures: int = 0
    kills: int = 0
    deaths: int = 0
    replacements: int = 0


class AnswerWorkers:
    r"""A pool of answer processes, started when first needed.

        async with AnswerWorkers() as workers:
            groups = await workers.group(["0.5", r"\frac{1}{2}", "x=1"])

    May be used from several event loops. Its numbers can be watched in `stats`.

    Args:
        size: processes at most; by default the number of CPUs, up to four.
        deadline: seconds for one expression, one comparison or one grade.
        memory_mb: address space of one process, where the platform can cap it.
    """

    def __init__(self, size: int | None = None, *, deadline: float = 5.0, memory_mb: int = 1024) -> None:
        if size is not None and size < 1:
            raise ValueError(f"a pool needs at least one process, not {size}")
        if deadline <= 0 or memory_mb <= 0:
            raise ValueError("deadline and memory_mb must be positive")
        self.size = size or min(4, os.cpu_count() or 1)
        self.deadline = deadline
        self.memory_mb = memory_mb
        self.stats = Stats()
        self._pool = _Pool(self)
        self._memo: dict[tuple[str, ...], Any] = {}
        self._turns: WeakKeyDictionary[asyncio.AbstractEventLoop, _Turn] = WeakKeyDictionary()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Kill the processes and wait until they are gone; whoever waits for an answer gets a WorkerError."""
        await self._pool.aclose()

    async def canonical(self, answer: str) -> Form:
        """What an answer means; one that cannot be read in time stands for its own text (kind `unread`).

        Raises:
            WorkerError: processes cannot be started.
        """
        return await self._settled_here(answer) or await self._settled_there(answer)

    async def group(self, answers: Sequence[str | None]) -> list[Group]:
        """Candidates with equal answers, in the order in which the answers were first seen.

        None and blank answers are in no group. Symmetric and transitive: groups are the connected components of "has a
        common canonical key" and "proved equal". Only answers with equal numeric values are worth a proof.

        Raises:
            WorkerError: processes cannot be started.
        """
        found = {text: await self._settled_here(text) for text in distinct(answers)}
        await self._read_there(iter([text for text, form in found.items() if form is None]), found)
        classes = Classes({text: form for text, form in found.items() if form is not None})
        for suspects in classes.doubtful():
            for a, b in pairs_to_prove(suspects, classes):
                if await self._same(a, b):
                    classes.merge(a, b)
        return classes.groups(answers)

    async def _settled_here(self, answer: str) -> Form | None:
        """The form, if it is known or can be had at once; a text that could take long is not tried here."""
        known: Form | None = self._memo.get(("canonical", answer))
        if known is not None:
            self.stats.memo_hits += 1
            return known
        if MAX_FAST < len(answer) <= MAX_LENGTH:
            return None
        await self._turn()
        began = time.perf_counter()
        form = fast_form(answer)
        self._spend(time.perf_counter() - began)
        if form is not None:
            self.stats.fast += 1
            self._remember(("canonical", answer), form)
        return form

    async def _settled_there(self, answer: str) -> Form:
        """The form as a process finds it."""
        found = await self._ask("canonical", answer)
        form = unread(answer) if found is None else Form(found[0], found[1], tuple(found[2]), found[3])
        self._remember(("canonical", answer), form)
        return form

    async def _read_there(self, texts: Iterator[str], into: dict[str, Form | None]) -> None:
        """Have texts read by the processes, a few at a time, so that one caller does not fill the queue."""

        async def lane() -> None:
            for text in texts:
                into[text] = await self._settled_there(text)

        try:
            async with asyncio.TaskGroup() as lanes:
                for _ in range(min(2 * self.size, length_hint(texts))):
                    lanes.create_task(lane())
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None

    async def grade(self, answer: str | None, reference: str) -> bool:
        """Whether an answer (or a whole solution) is right, given the reference; not decided in time means no.

        Raises:
            WorkerError: processes cannot be started.
        """
        if answer is None or not answer.strip():
            return False
        if WHOLE.fullmatch(answer) and WHOLE.fullmatch(reference):
            self.stats.fast += 1
            return int(answer) == int(reference)
        return await self._known("grade", answer[-MAX_GRADED:], reference) is True

    async def _same(self, a: str, b: str) -> bool:
        return await self._known("same", *sorted((a, b))) is True

    async def _known(self, operation: str, *arguments: str) -> Any:
        key = (operation, *arguments)
        if key in self._memo:
            self.stats.memo_hits += 1
            return self._memo[key]
        value = await self._ask(*key)
        self._remember(key, value)
        return value

    def _remember(self, key: tuple[str, ...], value: Any) -> None:
        self._memo[key] = value
        while len(self._memo) > MAX_MEMO:
            del self._memo[next(iter(self._memo))]

    async def _ask(self, *request: str) -> Any:
        """The value that a process finds, None if it fails; those who ask for the same at the same time share it."""
        under_way = self._here().under_way
        if request not in under_way:
            reply = self._pool.submit(request, asyncio.get_running_loop())
            under_way[request] = reply
            reply.add_done_callback(lambda future: _settled(under_way, request, future))
        return await asyncio.shield(under_way[request])

    def _here(self) -> _Turn:
        return self._turns.setdefault(asyncio.get_running_loop(), _Turn())

    async def _turn(self) -> None:
        """Wait until this turn of the event loop has time for more parsing."""
        while self._here().spent > SLICE_SECONDS:
            await _next_turn()

    def _spend(self, seconds: float) -> None:
        turn = self._here()
        if not turn.spent:
            asyncio.get_running_loop().call_soon(turn.begin)
        turn.spent += seconds


@dataclass(slots=True)
class _Turn:
    """What one event loop has under way, and how long it has parsed in its current turn."""

    under_way: dict[tuple[str, ...], asyncio.Future[Any]] = field(default_factory=dict)
    spent: float = 0.0

    def begin(self) -> None:
        self.spent = 0.0


async def _next_turn() -> None:
    await asyncio.sleep(0)


def _settled(under_way: dict[tuple[str, ...], Any], request: tuple[str, ...], reply: asyncio.Future[Any]) -> None:
    under_way.pop(request, None)
    if not reply.cancelled():
        reply.exception()  # seen, should nobody wait any more


@dataclass(slots=True)
class _Job:
    request: tuple[str, ...]
    loop: asyncio.AbstractEventLoop
    reply: asyncio.Future[Any]

    def resolve(self, value: Any = None, error: WorkerError | None = None) -> None:
        """Hand the outcome to the loop that asked, if it still runs."""
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self._resolve, value, error)

    def _resolve(self, value: Any, error: WorkerError | None) -> None:
        if self.reply.done():
            return
        if error is None:
            self.reply.set_result(value)
        else:
            self.reply.set_exception(error)


class _Pool:
    """Threads that each keep one child and take jobs from one queue. Threads start as jobs find no idle one."""

    def __init__(self, owner: AnswerWorkers) -> None:
        self._owner = owner
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        self._idle = 0
        self._waiting = 0
        self._children: set[_Child] = set()
        self._lost = 0
        self._closed = False
        self._watchers: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []

    def submit(self, request: tuple[str, ...], loop: asyncio.AbstractEventLoop) -> asyncio.Future[Any]:
        job = _Job(request, loop, loop.create_future())
        with self._lock:
            if self._closed:
                raise WorkerError("the answer workers are closed")
            self._waiting += 1
            if self._waiting > self._idle and self._threads < self._owner.size:
                self._threads += 1
                # daemon: it must not keep the interpreter alive; the children are ended by atexit
                threading.Thread(target=self._work, name="asearch-answers", daemon=True).start()
            self._jobs.put(job)
        return job.reply

    async def aclose(self) -> None:
        loop = asyncio.get_running_loop()
        gone: asyncio.Future[None] = loop.create_future()
        with self._lock:
            self._closed = True
            for child in self._children:
                child.kill()
            for _ in range(self._threads):
                self._jobs.put(None)
            if not self._threads:
                return
            self._watchers.append((loop, gone))
        await gone

    def _work(self) -> None:
        child: _Child | None = None
        try:
            while (job := self._next()) is not None:
                if self._closed:
                    job.resolve(error=WorkerError("the answer workers were closed"))
                else:
                    child = self._do(job, child)
        finally:
            if child is not None:
                self._drop(child)
            self._leave()

    def _next(self) -> _Job | None:
        with self._lock:
            self._idle += 1
        job = self._jobs.get()
        with self._lock:
            self._idle -= 1
            self._waiting -= job is not None
        return job

    def _do(self, job: _Job, child: _Child | None) -> _Child | None:
        """Have a job done by the child (a new one, if there is none) and return the child, unless it is lost.

        A child that died may have been ended from outside, so a job is given to one more, unless the job was the cause.
        """
        for _ in range(2):
            try:
                child = child or self._start()
            except (OSError, _Lost) as failure:
                job.resolve(error=WorkerError(f"an answer worker could not be started: {failure}"))
                return None
            self._owner.stats.tasks += 1
            try:
                reply = child.ask(job.request, self._owner.deadline)
            except _Lost as lost:
                self._drop(child)
                child = None
                self._count(lost)
                if lost.for_cause or self._closed:
                    break
            else:
                self._owner.stats.failures += "error" in reply
                job.resolve(reply.get("value"))
                return child
        self._owner.stats.failures += 1
        job.resolve(error=WorkerError("the answer workers were closed") if self._closed else None)
        return None

    def _count(self, lost: _Lost) -> None:
        with self._lock:
            if not self._closed:
                self._lost += 1
                self._owner.stats.kills += lost.late
                self._owner.stats.deaths += not lost.late

    def _start(self) -> _Child:
        child = _Child(self._owner.memory_mb)
        with self._lock:
            self._children.add(child)
            if self._closed:
                child.kill()
            if self._lost:
                self._lost -= 1
                self._owner.stats.replacements += 1
        try:
            child.ready()
        except _Lost:
            self._drop(child)
            raise
        return child

    def _drop(self, child: _Child) -> None:
        child.end()
        with self._lock:
            self._children.discard(child)

    def _leave(self) -> None:
        with self._lock:
            self._threads -= 1
            watchers = self._watchers if self._closed and not self._threads else []
        for loop, gone in watchers:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(_settle, gone)


def _settle(gone: asyncio.Future[None]) -> None:
    if not gone.done():
        gone.set_result(None)


class _Lost(Exception):
    """The child is gone or of no more use.

    Args:
        message: why.
        late: the deadline has passed.
        for_cause: the request is to blame, and would do the same to another child.
    """

    def __init__(self, message: str, *, late: bool = False, for_cause: bool = False) -> None:
        super().__init__(message)
        self.late = late
        self.for_cause = late or for_cause


class _Child:
    """One worker process and the pipe to it, used by one thread at a time; `kill` may come from any thread."""

    def __init__(self, memory_mb: int) -> None:
        # -P: no folder of the caller's shadows a module; -W ignore: the package imports the module that -m runs
        command = [sys.executable, "-P", "-W", "ignore", "-m", "asearch.workers", str(memory_mb)]
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            bufsize=0,
        )
        _alive.add(self)

    def ready(self) -> None:
        self._receive(time.monotonic() + START_SECONDS)

    def ask(self, request: tuple[str, ...], deadline: float) -> dict[str, Any]:
        assert self._process.stdin is not None  # noqa: S101 - a pipe was asked for
        try:
            self._process.stdin.write(pack([request[0], request[1:]]))
        except OSError as failure:
            raise _Lost(str(failure)) from failure
        return self._receive(time.monotonic() + deadline)

    def kill(self) -> None:
        with contextlib.suppress(OSError):
            self._process.kill()

    def end(self) -> None:
        """Kill it, collect it, and close the pipes."""
        self.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        _alive.discard(self)

    def _receive(self, until: float) -> dict[str, Any]:
        (length,) = HEADER.unpack(self._read(HEADER.size, until))
        if length > MAX_FRAME:
            raise _Lost("a frame that is too long")
        reply: dict[str, Any] = json.loads(self._read(length, until))
        if "fatal" in reply:
            raise _Lost(str(reply["fatal"]), for_cause=True)
        return reply

    def _read(self, count: int, until: float) -> bytes:
        assert self._process.stdout is not None  # noqa: S101 - a pipe was asked for
        data = b""
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while len(data) < count:
                if not selector.select(max(0.0, until - time.monotonic())):
                    raise _Lost("the deadline has passed", late=True)
                more = os.read(self._process.stdout.fileno(), count - len(data))
                if not more:
                    raise _Lost(f"the process ended with status {self._process.wait()}")
                data += more
        return data


_alive: set[_Child] = set()
_default: AnswerWorkers | None = None


def default_workers() -> AnswerWorkers:
    """The pool of this process, for callers that bring none. It serves all event loops and ends with the interpreter."""
    global _default  # noqa: PLW0603 - one pool per process is the point
    if _default is None:
        _default = AnswerWorkers()
    return _default


def _forget_after_fork() -> None:
    """A forked process has none of the threads, and its parent's children are not its own."""
    global _default  # noqa: PLW0603 - as above
    _default = None
    _alive.clear()


@atexit.register
def _end_all() -> None:
    for child in list(_alive):
        child.end()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)

if __name__ == "__main__":
    serve(int(sys.argv[1]) if len(sys.argv) > 1 else 1024)
