"""Policies of an endpoint as data: retries, timeouts, probes, rate."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from asyncio_throttle import Throttler

from asearch.errors import EndpointError, UsageError

if TYPE_CHECKING:
    from collections.abc import Collection


@dataclass(frozen=True, slots=True)
class Retry:
    """When and how often a failed request is sent again.

    Waits are `first * 2**k`, at most `longest`, with jitter, or what the server's Retry-After asks for. Where another
    replica is alive, the next attempt goes there without a wait.

    Args:
        attempts: how often a request is sent at most.
        total: seconds after the first failure after which no further attempt is started.
        first: the first wait, seconds.
        longest: the longest wait, seconds.
        on: which failures: kinds of EndpointError, and HTTP statuses; None: those that may pass (see asearch.errors).
    """

    attempts: int = 6
    total: float = 120.0
    first: float = 0.25
    longest: float = 15.0
    on: Collection[type[EndpointError] | int] | None = None

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise UsageError(f"attempts counts the first one, too, and must be at least 1, not {self.attempts}")
        for name in ("total", "first", "longest"):
            if not getattr(self, name) >= 0:
                raise UsageError(f"{name} is in seconds and must not be negative, not {getattr(self, name)}")
        for kind in self.on or ():
            if not isinstance(kind, int) and not (isinstance(kind, type) and issubclass(kind, EndpointError)):
                raise UsageError(f"on= lists kinds of EndpointError and HTTP statuses, not {kind!r}")

    def covers(self, failure: EndpointError) -> bool:
        """Whether a failure of this kind is worth another attempt."""
        if self.on is None:
            return failure.retryable
        return failure.status in self.on or isinstance(failure, tuple(k for k in self.on if isinstance(k, type)))

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


@dataclass(frozen=True, slots=True)
class Probes:
    """How a replica that went down is watched until it is back.

    It is asked for its health after `first` seconds, then twice as late each time, up to `longest`, with jitter.

    Args:
        first: the first wait, seconds.
        longest: the longest wait, seconds.
        timeout: for an answer, seconds (a vLLM under a load of thousands takes up to 3 s).
        strikes: failures in a row, of a server that can be reached, after which it counts as down.
    """

    first: float = 0.25
    longest: float = 15.0
    timeout: float = 10.0
    strikes: int = 3

    def wait(self, failures: int) -> float:
        """Seconds until the next question, after so many that failed."""
        return random.uniform(0.75, 1.0) * min(self.longest, self.first * 2.0 ** min(failures, 30))


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
