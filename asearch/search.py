"""One search under way: the shared move of all strategies, and the record of what it did.

`grow` is the move: the policy writes m next steps of a path, the verifier scores each of them. Strategies decide which
path to grow next; budgets, events, failures and the explored tree are seen to here, once.
"""

from __future__ import annotations

import hashlib
import inspect
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from asearch.concurrency import together
from asearch.errors import EndpointError
from asearch.events import Event, Failed, Finished, Pruned, Sampled, Scored
from asearch.path import Path, Sampling, Step, split_steps
from asearch.scoring import Reduction, reduce_scores
from asearch.usage import BudgetSpent, Ledger

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from asearch.client import Client
    from asearch.jury import Jury
    from asearch.prm import PRM
    from asearch.problem import Problem

Fate = Literal["open", "kept", "pruned", "finished", "failed"]
BLANK_STEPS = 3  # how often a model may say nothing between two blank lines before that counts as a step


class Search:
    """What a strategy works with.

    Args:
        client: writes steps.
        prm: scores them; None where the strategy needs no verifier.
        problem: what is to be solved.
        jury: turns candidates into an answer.
        sampling: how the policy samples.
        reduction: how step scores become the value of a path.
        seed: makes the tree reproducible, whatever the order in which replies arrive.
        book: where requests and tokens are booked.
        on_event: called with each event, if given.
    """

    def __init__(
        self,
        client: Client,
        prm: PRM | None,
        problem: Problem,
        jury: Jury,
        *,
        sampling: Sampling,
        reduction: Reduction = "last",
        seed: int = 0,
        book: Ledger | None = None,
        on_event: Callable[[Event], Awaitable[None] | None] | None = None,
    ) -> None:
        self.client = client
        self.prm = prm
        self.problem = problem
        self.jury = jury
        self.sampling = sampling
        self.reduction: Reduction = reduction
        self.seed = seed
        self.book = book or Ledger()
        self.root = Path(problem)
        self.explored: dict[tuple[int, ...], Path] = {}
        self.fates: dict[tuple[int, ...], Fate] = {}
        self.failures: list[EndpointError] = []
        self.stopped_by: str | None = None
        self._on_event = on_event

    async def tell(self, event: Event) -> None:
        """Hand an event to whoever listens."""
        if self._on_event is not None:
            answer = self._on_event(event)
            if inspect.isawaitable(answer):
                await answer

    async def connect(self) -> None:
        """Find out that both servers can be used, before the first token is paid for."""
        await together(server.connect() for server in (self.client, self.prm) if server is not None)

    async def grow(self, path: Path, m: int, *, first: int = 0) -> list[Path]:
        """M children of a path, each one step longer and scored: the move that all tree searches share.

        Returns fewer, or none, where requests failed for good or the budget is spent. `first` numbers the children.
        """
        return await self.judge(await self.sample(path, m, first=first))

    async def complete(self, m: int, *, first: int = 0) -> list[Path]:
        """M whole solutions from the start, unscored, as paths of several steps."""
        return await self.sample(self.root, m, first=first, whole=True)

    async def sample(
        self, path: Path, m: int, *, first: int = 0, whole: bool = False, sampling: Sampling | None = None
    ) -> list[Path]:
        """M continuations of a path by one step (or to the end), not yet scored."""
        sampling = sampling or self.sampling
        seed = self._seed(path, "sample") + first
        try:
            steps = await self.client.extend(path, m, sampling=sampling, seed=seed, whole=whole)
            if not whole:
                steps = await together(
                    self._say_something(path, step, sampling, seed + i) for i, step in enumerate(steps)
                )
        except (EndpointError, BudgetSpent) as failure:
            await self._lose(path, failure)
            return []
        children = [descend(path, step, first + i, whole=whole, sampling=sampling) for i, step in enumerate(steps)]
        for child in children:
            self._remember(child, "open")
            await self.tell(Sampled(child, self.book.usage))
        return children

    async def peek(self, path: Path, sampling: Sampling) -> list[Path]:
        """One scored continuation that is looked at and not kept: it enters no tree and sends no events."""
        try:
            seed = self._seed(path, "peek")
            child = path.grow((await self.client.extend(path, 1, sampling=sampling, seed=seed))[0], 0)
            if self.prm is None or not child.step or not child.step.text.strip():
                return [child]
            return [child.with_scores(list(await self.prm.score(child)))]
        except BudgetSpent as spent:
            self.stopped_by = spent.what
        except EndpointError as failure:
            self.failures.append(failure)
        return []

    async def judge(self, paths: Iterable[Path]) -> list[Path]:
        """The same paths with their new steps scored; those whose scoring failed for good are left out."""
        judged = await together(self._judge_one(path) for path in paths)
        return [path for path in judged if path is not None]

    async def _judge_one(self, path: Path) -> Path | None:
        if self.prm is None or not path.unscored:
            return path
        blank = path.step is not None and not path.step.text.strip()
        try:
            if blank and path.parent is not None and path.parent.score is not None:
                scores = [path.parent.score]  # nothing was said: the verdict on what stands before is still the verdict
            else:
                scores = list(await self.prm.score(path))
        except (EndpointError, BudgetSpent) as failure:
            await self._lose(path, failure)
            return None
        scored = path.with_scores(scores)
        self._remember(scored, "finished" if scored.finished else "open")
        await self.tell(Scored(scored, self.book.usage))
        return scored

    def value(self, path: Path) -> float:
        """What a path is worth: its step scores reduced to one number; 0 where there are none."""
        return reduce_scores(path.scores, self.reduction) if path.scores else 0.0

    def rank(self, paths: Iterable[Path]) -> list[Path]:
        """Paths by value, best first; ties by their place in the tree."""
        return sorted(paths, key=lambda path: (-self.value(path), path.id))

    async def prune(self, paths: Iterable[Path]) -> None:
        """Say that these paths will not be continued."""
        for path in paths:
            self.fates[path.id] = "pruned"
            await self.tell(Pruned(path, self.book.usage))

    async def finish(self, paths: Iterable[Path]) -> None:
        """Say that these paths are candidates."""
        for path in paths:
            self._remember(path, "finished")
            await self.tell(Finished(path, self.book.usage))

    def leaves(self) -> list[Path]:
        """What there is when a search is cut short: the explored paths that end or were not continued."""
        parents = {path.id[:-1] for path in self.explored.values()}
        return [
            path for key, path in sorted(self.explored.items()) if key not in parents and self.fates[key] != "failed"
        ]

    async def _say_something(self, path: Path, step: Step, sampling: Sampling, seed: int) -> Step:
        """A step that is nothing but a blank line goes on until it says something."""
        for _ in range(BLANK_STEPS):
            if step.text.strip() or step.finish != "step":
                break
            more = (await self.client.extend(path.grow(step, 0), 1, sampling=sampling, seed=seed))[0]
            step = join(step, more)
        return step

    def _seed(self, path: Path, purpose: str) -> int:
        """A seed from the search's own, the problem's id and the place in the tree: independent of timing.

        Choice i of a request draws with seed + i, so seeds of different paths must be far apart: they are hashes.
        """
        name = f"{self.seed}|{self.problem.id}|{path.name}|{purpose}".encode()
        return int.from_bytes(hashlib.blake2b(name, digest_size=7).digest(), "big")

    def _remember(self, path: Path, fate: Fate) -> None:
        for ancestor in path.lineage():
            known = self.explored.get(ancestor.id)
            if known is ancestor:
                break
            self.explored[ancestor.id] = ancestor
            self.fates.setdefault(ancestor.id, "kept")
        self.fates[path.id] = fate

    async def _lose(self, path: Path, failure: EndpointError | BudgetSpent) -> None:
        """A path that cannot go on: for lack of budget, or because its requests failed for good."""
        if isinstance(failure, BudgetSpent):
            self.stopped_by = failure.what
            return
        self.failures.append(failure)
        self.fates[path.id] = "failed"
        await self.tell(Failed(path, self.book.usage, str(failure)))


def descend(path: Path, step: Step, index: int, *, whole: bool, sampling: Sampling) -> Path:
    """The child that a step makes; a whole solution is cut into its steps, one below the other."""
    pieces = split_steps(step.text, sampling.separator) if whole else []
    if len(pieces) < 2:
        return path.grow(step, index)
    total = sum(map(len, pieces))
    for i, piece in enumerate(pieces[:-1]):
        share = step.tokens * len(piece) // total  # the server counts tokens for the whole only
        path = path.grow(Step(piece, "step", None, share), index if i == 0 else 0)
    rest = step.tokens - (path.tokens)
    return path.grow(replace(step, text=pieces[-1], token_ids=None, tokens=rest), 0)


def join(first: Step, second: Step) -> Step:
    """Two pieces of text as one step."""
    ids = None if first.token_ids is None or second.token_ids is None else first.token_ids + second.token_ids
    return Step(first.text + second.text, second.finish, ids, first.tokens + second.tokens)
