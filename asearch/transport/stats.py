"""What an endpoint, and each of its replicas, counts: cheap enough to be always on."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from asearch.errors import EndpointError


@dataclass(slots=True)
class Counters:
    """What went over the wire since it was opened.

    `sequences` are units asked for (n completions count as n). `reconnects` counts requests sent again at once, because
    a kept connection turned out to be closed; `moves` those sent on to another replica; `refusals` answers that asked
    to come back later. Tokens are as the server reports them. `queue_seconds` is the sum of all waits for a permit,
    `service_seconds` that of all requests from sending to answer, and `busy_seconds` the time in which there was work
    in flight.
    """

    requests: int = 0
    sequences: int = 0
    retries: int = 0
    reconnects: int = 0
    moves: int = 0
    refusals: int = 0
    failures: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    queue_seconds: float = 0.0
    service_seconds: float = 0.0
    in_flight: int = 0
    _busy: float = 0.0
    _since: float = 0.0  # when the first of what is in flight began
    _first: float | None = None

    def begin(self, now: float) -> None:
        """A request is on its way."""
        if self._first is None:
            self._first = now
        if not self.in_flight:
            self._since = now
        self.in_flight += 1

    def end(self, now: float) -> None:
        """It is over, whatever way."""
        self.in_flight -= 1
        if not self.in_flight:
            self._busy += now - self._since

    def book_tokens(self, usage: Any) -> None:
        """Tokens as an OpenAI-like server reports them; what it does not report is not counted."""
        if isinstance(usage, dict):
            self.prompt_tokens += usage.get("prompt_tokens") or 0
            self.completion_tokens += usage.get("completion_tokens") or 0
            self.cached_tokens += cached_tokens(usage) or 0

    def busy_seconds(self, now: float) -> float:
        """Seconds with work in flight until now (a time of the event loop)."""
        return self._busy + (now - self._since if self.in_flight else 0.0)

    def utilisation(self, now: float) -> float:
        """The share of time since the first request with work in flight; 0 where there was none."""
        if self._first is None or now <= self._first:
            return 0.0
        return self.busy_seconds(now) / (now - self._first)

    def totals(self) -> dict[str, float]:
        """The counters that only grow, by name."""
        grow = {f.name: getattr(self, f.name) for f in fields(Counters) if not f.name.startswith("_")}
        del grow["in_flight"]
        return grow | {"busy_seconds": self._busy}


def cached_tokens(usage: Any) -> int | None:
    """Prompt tokens that came from the server's prefix cache; None where its reply does not say.

    vLLM says it with --enable-prompt-tokens-details, of a list of prompts only for the last one.
    """
    details = usage.get("prompt_tokens_details") if isinstance(usage, dict) else None
    cached = details.get("cached_tokens") if isinstance(details, dict) else None
    return cached if isinstance(cached, int) else None


@dataclass(slots=True)
class EndpointStats(Counters):
    """The same for a whole endpoint, and hooks to look on: at retries, and at each request with its answer."""

    on_retry: list[Callable[[EndpointError, int], None]] = field(default_factory=list)
    on_exchange: list[Callable[[str, Mapping[str, Any], dict[str, Any]], None]] = field(default_factory=list)
