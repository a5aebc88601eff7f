"""What an operator of the proxy may set."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from asearch.proxy.keys import Keys

if TYPE_CHECKING:
    from asearch.plan import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyOptions:
    """What an operator may set.

    Args:
        keys: who may come in.
        budgets: values of n that are listed as models.
        max_n: the largest n that may be asked for.
        max_choices: choices in one request, each of which is a search.
        max_concurrent: searches at once.
        max_waiting: searches that may wait for a place.
        max_body: bytes of a request.
        max_seconds: of one request; its own timeout may be shorter.
        plan: what `compute-optimal` follows; None: the plan that was fitted on the embedded models.
    """

    keys: Keys = field(default_factory=Keys)
    budgets: tuple[int, ...] = (4, 16, 64)
    max_n: int = 256
    max_choices: int = 8
    max_concurrent: int = 32
    max_waiting: int = 256
    max_body: int = 2**20
    max_seconds: float = 600.0
    plan: Plan | None = None
