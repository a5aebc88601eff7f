"""How long a server's own queue is, by its /metrics: the signal of latency for clients that share a server.

Latency itself says little: the time per token grows with the batch on a healthy server, too, and depends on the lengths
of prompts. A queue is unambiguous. While no more requests wait inside the server than run there, its batch is refilled
at once and the queue does no harm; beyond that it only makes everybody wait, evicts prefixes from the cache, and
keeps the order in which searches should go first out of our hands.
"""

from __future__ import annotations

import re

# (running, waiting): vLLM, SGLang, TGI
GAUGES = (
    ("vllm:num_requests_running", "vllm:num_requests_waiting"),
    ("sglang:num_running_reqs", "sglang:num_queue_reqs"),
    ("tgi_batch_current_size", "tgi_queue_size"),
)


def queue_of(page: str) -> tuple[float, float] | None:
    """(running, waiting) from a page of metrics in Prometheus' text format; None where the server tells neither.

    Engines of one server (data parallel ranks) add up.
    """
    for running, waiting in GAUGES:
        found = [gauge(page, name) for name in (running, waiting)]
        if found[0] is not None and found[1] is not None:
            return found[0], found[1]
    return None


def crowded(running: float, waiting: float) -> bool:
    """Whether the queue is longer than what runs, so that less would do."""
    return waiting > max(running, 1.0)


def gauge(page: str, name: str) -> float | None:
    """The sum of a gauge over its labels; None where it is not there."""
    values = re.findall(rf"^{re.escape(name)}(?:\{{[^}}\n]*\}})?\s+(\S+)", page, re.MULTILINE)
    try:
        return sum(float(value) for value in values) if values else None
    except ValueError:
        return None
