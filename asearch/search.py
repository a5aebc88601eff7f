"""One search under way: the shared move of all strategies, and the record of what it did.

`grow` is the move: the policy writes m next steps of a path, the verifier scores each of them. Strategies decide which
path to grow next; budgets, events, failures and the explored tree are seen to here, once.
"""

from __future__ import annotations

import asyncio
import hashlib
import inspect
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from asearch.concurrency import together
from asearch.errors import EndpointError, ProtocolError, UsageError
from asearch.events import Event, Failed, Finished, Pruned, Sampled, Scored
from asearch.path import Path, Sampling, Step, split_steps
from asearch.scoring import Reduction, reduce_scores
from asearch.usage import Budget, BudgetSpent, Ledger, Usage

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from asearch.client import Client
    from asearch.jury import Jury
    from asearch.prm import PRM
    from asearch.problem import Problem

    ScoreAll = Callable[[Sequence[Path]], Awaitable[Sequence[Sequence[float] | Exception]]]

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
        self.first_child = (
            0  # the root's children that a strategy numbers itself begin here: others were there before it
        )
        self._born: dict[tuple[int, ...], int] = {}  # path -> number of its next child
        self._on_event = on_event
        self._began = asyncio.get_running_loop().time()

    # -- the record ---------------------------------------------------------------------------------------------------

    @property
    def usage(self) -> Usage:
        """What has been spent so far."""
        return replace(self.book.usage, seconds=asyncio.get_running_loop().time() - self._began)

    async def tell(self, kind: type[Event], path: Path, *details: Any) -> None:
        """Hand an event to whoever listens; nothing is made where nobody does."""
        if self._on_event is not None:
            answer = self._on_event(kind(path, self.usage, *details))
            if inspect.isawaitable(answer):
                await answer

    async def prune(self, paths: Iterable[Path]) -> None:
        """Say that these paths will not be continued."""
        for path in paths:
            self.fates[path.id] = "pruned"
            await self.tell(Pruned, path)

    async def finish(self, paths: Iterable[Path]) -> None:
        """Say that these paths are candidates."""
        for path in paths:
            self._remember(path, "finished")
            await self.tell(Finished, path)

    def forget(self, first: int) -> None:
        """Strike out what grew from the root's children from number `first` on: samples that were not needed."""
        self.explored = {key: path for key, path in self.explored.items() if key[0] < first}

    def failed(self, path: Path) -> bool:
        """Whether the path's own requests failed for good."""
        return self.fates.get(path.id) == "failed"

    def leaves(self) -> list[Path]:
        """What there is when a search is cut short: the explored paths that end or were not continued."""
        parents = {path.id[:-1] for path in self.explored.values()}
        return [path for key, path in sorted(self.explored.items()) if key not in parents and not self.failed(path)]

    def _remember(self, path: Path, fate: Fate) -> None:
        for ancestor in path.lineage():
            if self.explored.get(ancestor.id) is ancestor:
                break
            self.explored[ancestor.id] = ancestor
            self.fates.setdefault(ancestor.id, "kept")
        self.fates[path.id] = fate
        if path.parent is not None and self.fates.get(path.parent.id) == "open":
            self.fates[path.parent.id] = "kept"

    async def _lose(self, path: Path, failure: EndpointError | BudgetSpent) -> None:
        """A path that cannot go on: for lack of budget, or because its requests failed for good."""
        if isinstance(failure, BudgetSpent):
            self.stopped_by = self.stopped_by or failure.what
            return
        self.failures.append(failure)
        self.fates[path.id] = "failed"
        await self.tell(Failed, path, str(failure))

    # -- the move -----------------------------------------------------------------------------------------------------

    async def connect(self, *, stepwise: bool = True) -> None:
        """Find out that both servers can be used, before the first token is paid for.

        Raises:
            UsageError: the strategy grows step by step, and the policy's server cannot continue a given beginning.
        """
        await together(server.connect() for server in (self.client, self.prm) if server is not None)
        if stepwise and not getattr(self.client, "can_continue", True):
            raise UsageError(
                "this policy server cannot continue a solution that has been begun; use majority, best_of_n or greedy, "
                "which sample whole solutions, or a server such as vLLM"
            )

    async def grow(self, path: Path, m: int, *, first: int | None = None) -> list[Path]:
        """M children of a path, each one step longer and scored: the move that all tree searches share.

        Equal siblings count once: they would fill the pool and vote twice, and the verifier would say the same again.
        Returns fewer, or none, where requests failed for good or the budget is spent.

        Args:
            path: an unfinished path.
            m: how many continuations are drawn.
            first: the number of the first child; None continues the count.
        """
        families = await self.families(path, m, first=first)
        return [child for child, _ in families]

    async def families(self, path: Path, m: int, *, first: int | None = None) -> list[tuple[Path, int]]:
        """As `grow`, with the number of equal siblings for which each child stands."""
        children, again = distinct(await self.sample(path, m, first=first))
        await self.prune(again)
        judged = await self.judge(children)
        if not again:
            return [(child, 1) for child in judged]
        said = Counter(says(child) for child in (*children, *again))
        return [(child, said[says(child)]) for child in judged]

    async def complete(self, m: int, *, first: int | None = None) -> list[Path]:
        """M whole solutions from the start, unscored, as paths of several steps."""
        return await self.sample(self.root, m, first=first, whole=True)

    async def sample(
        self, path: Path, m: int, *, first: int | None = None, whole: bool = False, source: Path | None = None
    ) -> list[Path]:
        """M continuations of a path by one step (or to the end), not yet scored.

        Args:
            path: where the children will hang.
            m: how many.
            first: the number of the first child; None continues the count.
            whole: go on to the end of the solution.
            source: what the policy is to continue, where that is not `path` itself (a revision, say).
        """
        if self.stopped_by is not None:
            return []
        if first is None:
            first = self._born.get(path.id, 0)
        elif path is self.root:
            first += self.first_child
        self._born[path.id] = max(self._born.get(path.id, 0), first + m)
        seed = self._seed(path, "sample") + first
        try:
            steps = await self.client.extend(source or path, m, sampling=self.sampling, seed=seed, whole=whole)
        except (EndpointError, BudgetSpent) as failure:
            await self._lose(path, failure)
            return []
        self._note_shortage(steps)
        children = [
            descend(path, step, first + i, self.sampling.separator) if whole else path.grow(step, first + i)
            for i, step in enumerate(steps)
        ]
        if not whole and any(is_blank(child) for child in children):
            children = await together(self._voiced(child, seed + i) for i, child in enumerate(children))
        for child in children:
            self._remember(child, self.fates.get(child.id, "open"))
            await self.tell(Sampled, child)
        return [child for child in children if not self.failed(child)]

    async def judge(self, paths: Iterable[Path]) -> list[Path]:
        """The same paths with their new steps scored; those whose scoring failed for good are left out."""
        paths = list(paths)
        score_all = getattr(self.prm, "score_all", None)
        if len(paths) > 1 and score_all is not None and unlimited(self.book.budget):
            judged = await self._judge_all(paths, score_all)
        else:
            judged = await together(self._judge_one(path) for path in paths)
        return [path for path in judged if path is not None]

    async def _judge_all(self, paths: list[Path], score_all: ScoreAll) -> list[Path | None]:
        """As `_judge_one` for each, without a task for each: a search scores all of its steps, most of them in fours."""
        open_ = [path for path in paths if path.unscored and not is_blank(path)]
        scores = dict(zip(open_, await score_all(open_), strict=True))
        return [await self._judge_one(path, scores.get(path)) for path in paths]

    async def _judge_one(self, path: Path, scores: Sequence[float] | Exception | None = None) -> Path | None:
        new = len(path.unscored)
        if self.prm is None or not new:
            return path
        try:
            if scores is None:
                scores = [silence(path)] if is_blank(path) else await self.prm.score(path)
            if isinstance(scores, Exception):
                raise scores
            scored = path.with_scores(checked(scores, new))
        except (EndpointError, BudgetSpent) as failure:
            await self._lose(path, failure)
            return None
        self._remember(scored, "finished" if scored.finished else "open")
        await self.tell(Scored, scored)
        return scored

    async def look_ahead(self, path: Path, k: int) -> Path:
        """The path continued by up to k greedy steps, and scored: it is looked at, and enters no tree.

        Where that fails, or the budget ends, what could be seen counts; at worst that is the path itself.
        """
        ahead, greedy = path, replace(self.sampling, temperature=0.0)
        try:
            for _ in range(k):
                if ahead.finished or self.stopped_by is not None:
                    break
                steps = await self.client.extend(ahead, 1, sampling=greedy, seed=self._seed(path, "ahead"))
                self._note_shortage(steps)
                ahead = ahead.grow(steps[0], 0)
            while ahead is not path and is_blank(ahead) and ahead.parent is not None:
                ahead = ahead.parent
            if self.prm is None or not ahead.unscored:
                return ahead
            return ahead.with_scores(checked(await self.prm.score(ahead), len(ahead.unscored)))
        except BudgetSpent as spent:
            self.stopped_by = self.stopped_by or spent.what
        except EndpointError as failure:
            self.failures.append(failure)
        return path

    async def _voiced(self, child: Path, seed: int) -> Path:
        """A step that is nothing but a blank line goes on until it says something."""
        try:
            for _ in range(BLANK_STEPS):
                if child.finished or not is_blank(child) or child.parent is None or child.step is None:
                    break
                more = await self.client.extend(child, 1, sampling=self.sampling, seed=seed)
                child = child.parent.grow(join(child.step, more[0]), child.id[-1])
        except (EndpointError, BudgetSpent) as failure:
            await self._lose(child, failure)
        return child

    def _note_shortage(self, steps: Iterable[Step]) -> None:
        """A step that broke off because the budget had no more tokens to grant ends the search."""
        if self.book.short and any(step.finish == "length" for step in steps):
            self.stopped_by = self.stopped_by or "tokens"

    # -- judgement and chance -----------------------------------------------------------------------------------------

    def value(self, path: Path) -> float:
        """What a path is worth: its step scores reduced to one number; 0 where there are none."""
        scores = path.scores
        return reduce_scores(scores, self.reduction) if scores else 0.0

    def rank(self, paths: Iterable[Path]) -> list[Path]:
        """Paths by value, best first; ties by their place in the tree."""
        return sorted(paths, key=lambda path: (-self.value(path), path.id))

    def chance(self, purpose: str) -> float:
        """A number in [0, 1) that the seed and the purpose determine."""
        return self._seed(self.root, purpose) / float(256**SEED_BYTES)

    def _seed(self, path: Path, purpose: str) -> int:
        """A seed from the search's own, the problem and the place in the tree: independent of timing.

        Choice i of a request draws with seed + i, so seeds of different paths must be far apart: they are hashes.
        """
        name = f"{self.seed}|{self.problem.id}|{self.problem.text}|{path.name}|{purpose}".encode()
        return int.from_bytes(hashlib.blake2b(name, digest_size=SEED_BYTES).digest(), "big")


SEED_BYTES = 7  # room for seed + i below the 63 bits that servers take


def descend(path: Path, step: Step, index: int, separator: str) -> Path:
    """The child that a whole solution makes: it is cut into its steps, one below the other."""
    pieces = split_steps(step.text, separator)
    if len(pieces) < 2:
        return path.grow(step, index)
    total, left = sum(map(len, pieces)), step.tokens
    for i, piece in enumerate(pieces[:-1]):
        share = step.tokens * len(piece) // total  # the server counts tokens for the whole only
        left -= share
        path = path.grow(Step(piece, "step", None, share), index if i == 0 else 0)
    return path.grow(replace(step, text=pieces[-1], token_ids=None, tokens=left), 0)


def distinct(children: Iterable[Path]) -> tuple[list[Path], list[Path]]:
    """Each text once, first come first kept; and the siblings that said it again."""
    seen: dict[tuple[str, bool], Path] = {}
    again = [child for child in children if seen.setdefault(says(child), child) is not child]
    return list(seen.values()), again


def says(path: Path) -> tuple[str, bool]:
    """What tells siblings apart."""
    return path.step.text if path.step else "", path.finished


def unlimited(budget: Budget) -> bool:
    """Whether nothing has to be asked before a request is sent."""
    return budget.tokens is None and budget.requests is None


def join(first: Step, second: Step) -> Step:
    """Two pieces of text as one step."""
    ids = None if first.token_ids is None or second.token_ids is None else first.token_ids + second.token_ids
    return Step(first.text + second.text, second.finish, ids, first.tokens + second.tokens)


def is_blank(path: Path) -> bool:
    """Whether the last step says nothing."""
    return path.step is not None and (not path.step.text or path.step.text.isspace())


def silence(path: Path) -> float:
    """The score of a step that says nothing: the verdict on what stands before it still stands."""
    before = path.parent.score if path.parent is not None else None
    return 0.0 if before is None else before


def checked(scores: Sequence[float], wanted: int) -> list[float]:
    """Scores as a search can use them.

    Raises:
        ProtocolError: another number of them than steps, or one that is no probability. Products, votes, weights and
            early stopping all rest on scores between 0 and 1.
    """
    if len(scores) != wanted:
        raise ProtocolError(f"the verifier gave {len(scores)} scores for {wanted} new steps")
    for score in scores:
        if not 0 <= score <= 1:
            raise ProtocolError(f"the verifier gave the score {score}; scores are probabilities from 0 to 1")
    return [float(score) for score in scores]
