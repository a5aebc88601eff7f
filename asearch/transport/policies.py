"""Policies of an endpoint as data: retries, timeouts, rate; and what it counts."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from asyncio_throttle import Throttler

from asearch.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from asearch.errors import EndpointError


@dataclass(frozen=True, slots=True)
class Retry:
    """When and how often a failed request is sent again.

    Waits are `first * 2**k`, at most `longest`, with jitter, or what the server's Retry-After asks for.

    Args:
        attempts: how often a request is sent at most.
        total: seconds after which no further attempt is started.
        first: the first wait, seconds.
        longest: the longest wait, seconds.
    """

    attempts: int = 6
    total: float = 120.0
    first: float = 0.25
    longest: float = 15.0

    def wait(self, failures: int, asked: float | None) -> float:
        """Seconds to wait after the given number of failures."""
        if asked is not None:  # a little later, so that those who were sent away together do not return together
            return asked + random.uniform(0.0, self.first)
        return random.uniform(0.5, 1.0) * min(self.longest, self.first * 2.0 ** (failures - 1))


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds to connect, between two reads, and for a whole request (None: no bound).

    `first` bounds the first question to a server: one that takes connections and says nothing is found out soon. (vLLM
    under a load of thousands takes up to 3 s to say that it is well.)
    """

    connect: float | None = 10.0
    read: float | None = 600.0
    total: float | None = None
    first: float | None = 30.0


@dataclass(slots=True)
class EndpointStats:
    """What went over one endpoint since it was opened, and hooks to look on.

    `reconnects` counts requests sent again at once, because a kept connection turned out to be closed.
    """

    requests: int = 0
    retries: int = 0
    reconnects: int = 0
    failures: int = 0
    on_retry: list[Callable[[EndpointError, int], None]] = field(default_factory=list)
    on_exchange: list[Callable[[str, Mapping[str, Any], dict[str, Any]], None]] = field(default_factory=list)


def throttler(rate: float | None) -> Throttler | None:
    """A throttle for `rate` requests per second, in bursts of at most a second's worth."""
    if rate is None:
        return None
    if not (rate > 0 and math.isfinite(rate)):
        raise UsageError(f"rate is in requests per second and must be positive, not {rate}")
    burst = max(1, int(rate))
    return Throttler(rate_limit=burst, period=burst / rate)


def check_limit(limit: int) -> int:
    """A limit that lets something through."""
    if limit < 1:
        raise UsageError(f"limit counts sequences under way at once and must be at least 1, not {limit}")
    return limit
