"""What a search has spent, and what it may spend.

Servers' replies are booked where they arrive (the clients), for the search that asked: a context variable carries the
ledger of the search down to the wire, so that clients and verifiers written by users need no extra argument.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, get_args

from asearch.errors import AsearchError, UsageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from contextlib import AbstractAsyncContextManager, AbstractContextManager


@dataclass(frozen=True, slots=True)
class Usage:
    """Requests, tokens and time of a search, policy and PRM apart.

    `policy_tokens` are generated tokens; `policy_prompt_tokens` and `prm_tokens` are tokens read, of which the
    `cached` ones came from the server's prefix cache, where it reports them (of a batch, vLLM reports those of the last
    prompt only, so `prm_cached_tokens` is then less than it was). `scored` counts steps scored; `prm_retries` are those
    of the `retries` that the PRM needed.

    Of each server, `queue_seconds` is the sum of what requests waited for a permit, and `service_seconds` of what they
    took from there to the answer; a batch of several searches' scores is booked for the search whose item is its first.
    `busy_seconds` is the time in which anything of this search was outstanding there: the share of `seconds` that its
    work kept the server busy, waiting included.
    """

    requests: int = 0
    policy_tokens: int = 0
    policy_prompt_tokens: int = 0
    policy_cached_tokens: int = 0
    prm_requests: int = 0
    prm_tokens: int = 0
    prm_cached_tokens: int = 0
    scored: int = 0
    retries: int = 0
    prm_retries: int = 0
    seconds: float = 0.0
    policy_queue_seconds: float = 0.0
    policy_service_seconds: float = 0.0
    policy_busy_seconds: float = 0.0
    prm_queue_seconds: float = 0.0
    prm_service_seconds: float = 0.0
    prm_busy_seconds: float = 0.0

    def __add__(self, other: Usage) -> Usage:
        return Usage(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)})

    @property
    def tokens(self) -> int:
        """Tokens that a budget counts: those generated and those read by the PRM."""
        return self.policy_tokens + self.prm_tokens

    @property
    def policy_utilisation(self) -> float:
        """The share of the time in which the policy had work of this search, waiting included; 0 where none passed."""
        return self.policy_busy_seconds / self.seconds if self.seconds else 0.0

    @property
    def prm_utilisation(self) -> float:
        """The same of the PRM."""
        return self.prm_busy_seconds / self.seconds if self.seconds else 0.0


@dataclass(frozen=True, slots=True)
class Budget:
    """A hard limit on a search, over policy and PRM together.

    Args:
        tokens: generated tokens plus tokens read by the PRM.
        seconds: wall time; what is in flight at the deadline is cancelled.
        requests: calls for steps and for scores, and further attempts at them. (Scores of several searches may travel in
            one HTTP request; another attempt at that is counted for one of them, and refused to none.)
    """

    tokens: int | None = None
    seconds: float | None = None
    requests: int | None = None

    def __post_init__(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            if value is not None and not value > 0:
                raise UsageError(f"a budget of {f.name} must be positive, not {value}")


class BudgetSpent(AsearchError):
    """Raised inside a search when its next request would pass the budget; the search turns it into `stopped_by`."""

    def __init__(self, what: str) -> None:
        super().__init__(f"the budget of {what} is spent")
        self.what = what


Role = Literal["policy", "prm"]
ROLES: tuple[Role, ...] = get_args(Role)


@dataclass(slots=True)
class _Outstanding:
    """How long anything has been outstanding: as long as anybody is inside the block."""

    count: int = 0
    since: float = 0.0
    before: float = 0.0

    def __enter__(self) -> None:
        if not self.count:
            self.since = asyncio.get_running_loop().time()
        self.count += 1

    def __exit__(self, *_: object) -> None:
        self.count -= 1
        if not self.count:
            self.before += asyncio.get_running_loop().time() - self.since

    def seconds(self) -> float:
        return self.before + (asyncio.get_running_loop().time() - self.since if self.count else 0.0)


class Ledger:
    """Books what a search spends, and refuses the request that would pass its budget.

    Tokens still on their way are held as reservations, so that concurrent requests cannot pass the limit together.
    """

    def __init__(self, budget: Budget | None = None) -> None:
        self.budget = budget or Budget()
        self._spent: dict[str, Any] = {f.name: f.default for f in fields(Usage)}
        self._outstanding = {role: _Outstanding() for role in ROLES}
        self.short = False  # somebody was granted fewer tokens than asked for
        self._calls = 0
        self._reserved = 0
        self._waiting: list[asyncio.Future[None]] = []

    def book(self, **amounts: float) -> None:
        """Add amounts to the usage, by field name. A retry counts as a call, too."""
        for name, amount in amounts.items():
            self._spent[name] += amount
        self._calls += int(amounts.get("retries", 0))

    def book_times(self, role: str, queued: float, served: float) -> None:
        """Add what a request to the policy or the PRM waited for its permit, and took from there."""
        if role in self._outstanding:
            self._spent[f"{role}_queue_seconds"] += queued
            self._spent[f"{role}_service_seconds"] += served

    def outstanding(self, role: Role) -> AbstractContextManager[None]:
        """Something of this search is at the policy or the PRM inside the block, or waits to be."""
        return self._outstanding[role]

    @property
    def usage(self) -> Usage:
        """What has been spent so far."""
        busy = {f"{role}_busy_seconds": mine.seconds() for role, mine in self._outstanding.items()}
        return Usage(**{**self._spent, **busy})

    def open_call(self) -> None:
        """Count a call that is about to need a request.

        Raises:
            BudgetSpent: when it would be one too many.
        """
        if self.budget.requests is not None and self._calls >= self.budget.requests:
            raise BudgetSpent("requests")
        self._calls += 1

    def open_retry(self, *, bounded: bool, role: str = "policy") -> None:
        """Count another attempt at a call, which is a call, too.

        Args:
            bounded: it may be refused. One that serves several searches is counted for the first of them, and is not.
            role: whose server it goes to.

        Raises:
            BudgetSpent: when it would be one too many.
        """
        if bounded and self.budget.requests is not None and self._calls >= self.budget.requests:
            raise BudgetSpent("requests")
        self.book(retries=1, prm_retries=int(role == "prm"))

    def reserved(
        self, tokens: int, *, at_least: int | None = None, exact: Callable[[], Awaitable[int]] | None = None
    ) -> AbstractAsyncContextManager[int]:
        """Set aside up to `tokens` tokens inside the block, and say how many there are.

        Waits while others hold what would be needed, and takes what is left when nobody does.

        Args:
            tokens: the most that the block can spend.
            at_least: with how many it can do, because it can be cut short; None: only with all.
            exact: finds out how many tokens it will be at most; asked only where `tokens`, a bound, are not free.

        Raises:
            BudgetSpent: when fewer are left and nobody will give any back.
        """
        if self.budget.tokens is None:
            return nullcontext(tokens)
        return self._set_aside(self.budget.tokens, tokens, at_least, exact)

    @asynccontextmanager
    async def _set_aside(
        self, limit: int, tokens: int, at_least: int | None, exact: Callable[[], Awaitable[int]] | None
    ) -> AsyncIterator[int]:
        if exact is not None and self._left(limit) < tokens:
            tokens = min(tokens, await exact())
        while (left := self._left(limit)) < tokens and self._reserved:
            await self._wait_for_release()
        if left < (tokens if at_least is None else at_least):
            raise BudgetSpent("tokens")
        granted = min(tokens, left)
        self.short = self.short or granted < tokens
        self._reserved += granted
        try:
            yield granted
        finally:
            self._reserved -= granted
            waiting, self._waiting = self._waiting, []
            for future in waiting:
                if not future.done():
                    future.set_result(None)

    def _left(self, limit: int) -> int:
        return int(limit - self._spent["policy_tokens"] - self._spent["prm_tokens"] - self._reserved)

    async def _wait_for_release(self) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        await future


_NOBODY = Ledger()
ledger: ContextVar[Ledger] = ContextVar("ledger", default=_NOBODY)
