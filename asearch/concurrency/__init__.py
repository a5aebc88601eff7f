"""Structured concurrency without HTTP: run together, limit, gather into batches, compute once.

Each of these decides synchronously and does I/O afterwards: one plain function moves the queue and the counters, and
the awaiting code calls it on entry, on exit and on cancellation. No locks are needed on one event loop.
"""

from asearch.concurrency.batch_memo import BatchMemo
from asearch.concurrency.batcher import Batcher
from asearch.concurrency.limiter import AdaptiveLimiter, Evicted, Limiter, seniority
from asearch.concurrency.memo import Memo
from asearch.concurrency.together import (
    as_completed,
    cancel_and_wait,
    cancel_when_done,
    first_failure,
    together,
)

__all__ = [
    "AdaptiveLimiter",
    "BatchMemo",
    "Batcher",
    "Evicted",
    "Limiter",
    "Memo",
    "as_completed",
    "cancel_and_wait",
    "cancel_when_done",
    "first_failure",
    "seniority",
    "together",
]
