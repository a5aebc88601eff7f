"""Searches one problem after another for an evaluation: what one process needs, on this machine or on another.

A verifier remembers what it has scored. Each strategy and seed has one of its own, so that what another had scored before
does not make it look cheaper than it is.
"""

from __future__ import annotations

from asyncio import Semaphore
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from asearch.admission import Admission, admission
from asearch.calls import solve_within
from asearch.client import as_client
from asearch.concurrency import together
from asearch.errors import AsearchError, UsageError
from asearch.evaluation.records import Record, record_of
from asearch.events import Event, Sampled
from asearch.prm import PRM, as_prm
from asearch.problem import SYSTEM_PROMPT, Problem
from asearch.result import Tree, conclude
from asearch.usage import Ledger, Usage
from asearch.workers import AnswerWorkers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from types import TracebackType

    from asearch.client import Client
    from asearch.evaluation.entries import Entry, Role, Task
    from asearch.evaluation.questions import Question


@dataclass(frozen=True, slots=True)
class Model:
    """A policy or a verifier as it is named: its server and, where there are several, which of its models.

    Args:
        server: a URL, or whatever else `asearch.solve` takes.
        model: the served name; None takes the server's first.
        family: how a verifier reads a solution; None recognises it by the model's name.
        endpoint: options of its `Endpoint`, such as a limit.
    """

    server: Any
    model: str | None = None
    family: str | None = None
    endpoint: Mapping[str, Any] = field(default_factory=dict)

    @property
    def options(self) -> dict[str, Any]:
        """What was said about it."""
        given = {"model": self.model, "family": self.family}
        return {name: value for name, value in given.items() if value is not None} | dict(self.endpoint)


@dataclass(frozen=True, slots=True)
class Models:
    """Who takes part: the policy, a verifier, and a larger policy to compare with."""

    policy: Model
    prm: Model | None = None
    baseline: Model | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """Everything that a process needs to know for its searches; plain values, which can be sent elsewhere.

    Args:
        models: the servers.
        entries: the strategies with their budgets.
        system: the system prompt; None sends none.
        pattern: how to find the answer in a solution; None: as usual.
        tree: keep the explored steps of strategies that grow step by step.
        at_once: searches under way at the same time in one process; None: as many as the policy has room for.
    """

    models: Models
    entries: tuple[Entry, ...]
    system: str | None = SYSTEM_PROMPT
    pattern: str | None = None
    tree: bool = True
    at_once: int | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """A search that came to nothing, and why; `record` says the same for a log that keeps failures."""

    error: str
    record: Record


class Searcher:
    """Runs the searches of a job. An async context, which closes what it opened.

    Args:
        job: what to run.
        workers: processes that read answers; None starts some.
    """

    def __init__(self, job: Job, workers: AnswerWorkers | None = None) -> None:
        self.job = job
        self.clients: dict[Role, Client] = {}
        self.workers = workers or AnswerWorkers()
        self._own_workers = workers is None
        self._stack = AsyncExitStack()
        self._verifiers = Verifiers(job.models.prm)
        self._room = None if job.at_once is None else Semaphore(job.at_once)
        self._places: dict[int, Admission] = {}

    async def __aenter__(self) -> Self:
        try:
            await self._open()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def _open(self) -> None:
        """Find out that every server can be used, before anything is run."""
        models = self.job.models
        named: dict[Role, Model | None] = {"policy": models.policy, "baseline": models.baseline}
        for role, model in named.items():
            if model is not None:
                self.clients[role] = await self._client(model)
        if self._own_workers:
            await self._stack.enter_async_context(self.workers)
        self._stack.push_async_callback(self._verifiers.aclose)
        await together(client.connect() for client in self.clients.values())
        await self._verifiers.connect()

    async def _client(self, model: Model) -> Client:
        client = as_client(model.server, **model.options)
        if client is not model.server:  # the caller's own stays open
            self._stack.push_async_callback(client.aclose)
        return client

    async def describe(self) -> dict[str, Any]:
        """What the servers are, as far as they tell."""
        found: dict[str, Any] = {role: await description(client) for role, client in self.clients.items()}
        prm = self._verifiers.connected
        return found | ({} if prm is None else {"prm": await description(prm)})

    def model(self, role: Role) -> str:
        """The served name of a policy."""
        client = self.clients[role]
        return str(getattr(client, "model", None) or type(client).__name__)

    async def search(self, task: Task, question: Question) -> Record | Failure:
        """Search one problem and grade what was found.

        Raises:
            UsageError: the call is wrong, and so would be all others.
        """
        entry = self.job.entries[task.entry]
        try:
            async with self._place(task.entry) as book:
                return await self._searched(entry, task.seed, question, book)
        except UsageError:
            raise
        except AsearchError as failure:
            return self.failure(task, question, str(failure))

    def failure(self, task: Task, question: Question, error: str) -> Failure:
        """A search that came to nothing, for the log of a run that keeps failures."""
        return Failure(error, self._failed(self.job.entries[task.entry], task.seed, question, error))

    def most(self, entry: int) -> int:
        """Searches of an entry that may be under way together."""
        return self.job.at_once or self._admission(entry).most

    @asynccontextmanager
    async def _place(self, entry: int) -> AsyncIterator[Ledger]:
        """Wait until a search may begin; yields its ledger."""
        if self._room is None:
            async with self._admission(entry).place(None) as book:
                yield book
        else:
            async with self._room:
                yield Ledger()

    def _admission(self, entry: int) -> Admission:
        if entry not in self._places:
            of = self.job.entries[entry]
            self._places[entry] = admission(self.clients[of.role], of.strategy.n, None)
        return self._places[entry]

    async def _searched(self, entry: Entry, seed: int, question: Question, book: Ledger) -> Record:
        prompt = PromptLength()
        async with self._verifiers.of((entry.label, entry.strategy.n, seed), wanted=entry.verified) as prm:
            result = await solve_within(
                entry.strategy,
                self.clients[entry.role],
                prm,
                Problem(question.problem, system=self.job.system, id=question.id),
                book,
                seed=seed,
                workers=self.workers,
                pattern=self.job.pattern,
                on_event=prompt,
            )
        return record_of(
            result,
            question,
            label=entry.label,
            model=self.model(entry.role),
            seed=seed,
            correct=await self._graded(result.answers, question.answer),
            prompt_tokens=prompt.tokens,
            tree=self.job.tree and entry.strategy.stepwise,
        )

    async def _graded(self, answers: Sequence[str | None], reference: str) -> list[bool]:
        """Whether each answer is right; answers written alike are graded once."""
        texts = list(dict.fromkeys(answer for answer in answers if answer is not None))
        verdicts = await together(self.workers.grade(text, reference) for text in texts)
        right = dict(zip(texts, verdicts, strict=True))
        return [answer is not None and right[answer] for answer in answers]

    def _failed(self, entry: Entry, seed: int, question: Question, error: str) -> Record:
        nothing = conclude(
            problem=Problem(question.problem, system=self.job.system, id=question.id),
            strategy=entry.strategy.describe(),
            paths=(),
            values=(),
            answers=(),
            groups=(),
            usage=Usage(),
            tree=Tree(()),
            judged=False,
            stopped_by="error",
            errors=[error],
        )
        model = self.model(entry.role)
        return record_of(nothing, question, label=entry.label, model=model, seed=seed, correct=[])


class PromptLength:
    """Listens for the length of the policy's prompt: at the first step, all requests so far had read just that."""

    def __init__(self) -> None:
        self.tokens: int | None = None
        self._heard = False

    def __call__(self, event: Event) -> None:
        """Take note of the first step."""
        if not self._heard and isinstance(event, Sampled):
            self._heard = True
            read = event.usage.policy_prompt_tokens // max(1, event.usage.requests)
            self.tokens = read or None


@dataclass(slots=True)
class _Verifier:
    prm: PRM
    users: int = 0


@dataclass(slots=True)
class Verifiers:
    """A verifier for each strategy and seed, closed when the next one is in use and its own searches are done.

    A PRM that the caller made is used as it is, with all that it remembers.
    """

    model: Model | None
    connected: PRM | None = None
    _open: dict[Any, _Verifier] = field(default_factory=dict)
    _latest: Any = None

    async def connect(self) -> None:
        """Find out that the verifier can be used."""
        if self.model is not None:
            self.connected = self._made()
            await self.connected.connect()

    @asynccontextmanager
    async def of(self, key: Any, *, wanted: bool = True) -> AsyncIterator[PRM | None]:
        """The verifier of a strategy and seed; None where there is none, or none is wanted."""
        if self.model is None or not wanted:
            yield None
            return
        if key not in self._open:
            self._open[key] = _Verifier(self._made())
            self._latest = key
        held = self._open[key]
        held.users += 1
        try:
            yield held.prm
        finally:
            held.users -= 1
            await self._close_those_done()

    async def aclose(self) -> None:
        """Close them all."""
        self._latest = None
        await self._close_those_done()
        if self.connected is not None:
            await self._close(self.connected)

    def _made(self) -> PRM:
        assert self.model is not None  # noqa: S101 - both callers have looked
        return as_prm(self.model.server, **self.model.options)

    async def _close_those_done(self) -> None:
        for key in [key for key, held in self._open.items() if held.users == 0 and key != self._latest]:
            await self._close(self._open.pop(key).prm)

    async def _close(self, prm: PRM) -> None:
        if self.model is not None and prm is not self.model.server:
            await prm.aclose()


async def description(server: Any) -> dict[str, Any]:
    """What a client or verifier says of its server: the model, how it is spoken to, and the server's version."""
    told = {name: getattr(server, name, None) for name in ("model", "mode", "max_model_len", "server")}
    family = getattr(server, "family", None)
    told |= {"client": type(server).__name__, "family": getattr(family, "name", None)}
    endpoint = getattr(server, "endpoint", None)
    if endpoint is not None:
        told |= {"url": str(endpoint.url), "version": await _version(endpoint)}
    return {name: value for name, value in told.items() if value is not None}


async def _version(endpoint: Any) -> str | None:
    """The version of the server's engine, where it tells (vLLM, TGI, the embedded server)."""
    for route in ("/version", "/info"):
        try:
            version = (await endpoint.get(route, patient=False)).get("version")
        except AsearchError:
            continue
        if version is not None:
            return str(version)
    return None
