"""What the proxy counts, for Prometheus. Labels are bounded: strategies, not the model names that callers invent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from asearch.transport.metrics import EndpointCollector

if TYPE_CHECKING:
    from asearch.proxy.admission import Admission
    from asearch.usage import Usage

CONTENT_TYPE = CONTENT_TYPE_LATEST
BUCKETS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 600)
KINDS = ("policy_tokens", "policy_prompt_tokens", "policy_cached_tokens", "prm_tokens", "prm_cached_tokens")


class Metrics:
    """The counters of one proxy, in a registry of its own, together with those of the process's endpoints.

    Args:
        admission: read when the numbers are asked for.
    """

    def __init__(self, admission: Admission) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(EndpointCollector())
        own = self.registry
        self._requests = Counter("asearch_proxy_requests", "HTTP requests answered.", ("route", "status"), registry=own)
        self._searches = Counter(
            "asearch_proxy_searches", "Searches, by how they ended.", ("strategy", "outcome"), registry=own
        )
        self._seconds = Histogram(
            "asearch_proxy_search_seconds", "Wall time of searches.", ("strategy",), buckets=BUCKETS, registry=own
        )
        self._tokens = Counter(
            "asearch_proxy_tokens", "Tokens of searches, by kind.", ("strategy", "kind"), registry=own
        )
        self._gauge("running", "Searches under way.", lambda: admission.in_use)
        self._gauge("waiting", "Searches that wait for a place.", lambda: admission.waiting)
        self._gauge("limit", "Searches that may be under way at once.", lambda: admission.limit)

    def answered(self, route: str, status: int) -> None:
        """Count an HTTP request; `route` is the pattern, not the path that was asked for."""
        self._requests.labels(route, str(status)).inc()

    def searched(self, strategy: str, outcome: str, usage: Usage | None = None) -> None:
        """Count a search: "done", "stopped" (by its budget), "failed" or "cancelled"."""
        self._searches.labels(strategy, outcome).inc()
        if usage is not None:
            self._seconds.labels(strategy).observe(usage.seconds)
            for kind in KINDS:
                self._tokens.labels(strategy, kind.removesuffix("_tokens")).inc(getattr(usage, kind))

    def text(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self.registry)

    def _gauge(self, name: str, help_: str, read: object) -> None:
        Gauge(f"asearch_proxy_searches_{name}", help_, registry=self.registry).set_function(read)  # type: ignore[arg-type]
