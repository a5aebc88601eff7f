"""All endpoints of the process for Prometheus (`pip install 'asearch[serve]'`).

    from prometheus_client import REGISTRY
    from asearch.transport.metrics import EndpointCollector

    REGISTRY.register(EndpointCollector())

Nothing is computed before somebody looks: a collector reads the counters that the transport keeps in any case. What
endpoints counted that have been closed and let go stays in the totals, so that counters never fall.
"""

from __future__ import annotations

import weakref
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.core import Metric

    from asearch.transport.endpoint import Endpoint
    from asearch.transport.replica import Replica
    from asearch.transport.stats import Counters

Labels = tuple[str, str]
LABELS = ("role", "replica")

COUNTERS = {
    "requests": "HTTP requests sent",
    "sequences": "sequences asked for (n completions count as n)",
    "retries": "requests sent again",
    "reconnects": "requests sent again at once, on a new connection",
    "moves": "requests sent on to another replica",
    "refusals": "answers that asked to come back later, and timeouts",
    "failures": "requests that failed for good",
    "prompt_tokens": "tokens read, as the server reports them",
    "cached_tokens": "tokens read from the prefix cache, as the server reports them",
    "completion_tokens": "tokens written, as the server reports them",
    "queue_seconds": "time that requests waited for a permit",
    "service_seconds": "time from sending a request to its answer",
    "busy_seconds": "time with work in flight; its rate is the utilisation",
}
GAUGES = {
    "limit": "sequences that may be under way at once, as of now",
    "in_use": "sequences under way",
    "waiting": "sequences that wait for a permit",
    "up": "1 while requests are sent there",
}

_endpoints: weakref.WeakSet[Endpoint] = weakref.WeakSet()
_past: dict[Labels, Counter[str]] = {}


def note_endpoint(endpoint: Endpoint) -> None:
    """Let an endpoint be seen by collectors, for as long as it is there."""
    _endpoints.add(endpoint)


def note_replica(replica: Replica, role: str) -> None:
    """Keep what a replica has counted when it is let go."""
    weakref.finalize(replica, _keep, (role, replica.name), replica.stats).atexit = False


def _keep(labels: Labels, stats: Counters) -> None:
    _past.setdefault(labels, Counter()).update(stats.totals())


def snapshot() -> dict[Labels, dict[str, float]]:
    """All counters and gauges by (role, replica), those of equal names added up."""
    seen: dict[Labels, Counter[str]] = {labels: Counter(past) for labels, past in _past.items()}
    for endpoint in list(_endpoints):
        now = endpoint.now()
        for replica in endpoint.replicas:
            values = seen.setdefault((endpoint.role, replica.name), Counter())
            values.update(replica.stats.totals() | {"busy_seconds": replica.stats.busy_seconds(now)})
            limiter = replica.limiter
            values.update(limit=limiter.limit, in_use=limiter.in_use, waiting=limiter.waiting)
            values["up"] = max(values["up"], int(replica.up))
    return {labels: dict(values) for labels, values in seen.items()}


class EndpointCollector:
    """A collector of prometheus_client over every endpoint of the process: one series per role and replica."""

    def collect(self) -> Iterator[Metric]:
        """The metrics, as of now."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        seen = snapshot()
        for name, help_text in COUNTERS.items():
            counter = CounterMetricFamily(f"asearch_endpoint_{name}", help_text, labels=LABELS)
            for labels, values in seen.items():
                counter.add_metric(labels, values.get(name, 0.0))
            yield counter
        for name, help_text in GAUGES.items():
            gauge = GaugeMetricFamily(f"asearch_endpoint_{name}", help_text, labels=LABELS)
            for labels, values in seen.items():
                gauge.add_metric(labels, values.get(name, 0.0))
            yield gauge
