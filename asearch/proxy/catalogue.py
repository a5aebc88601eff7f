"""The models of the proxy: names such as `dvts-64` for strategies with a budget."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Any

from asearch.calls import as_strategy, ready
from asearch.errors import UsageError
from asearch.proxy.errors import ApiError
from asearch.strategies import STRATEGIES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from asearch.client import Client
    from asearch.plan import Plan
    from asearch.prm import PRM
    from asearch.strategies import Strategy

NAME = re.compile(r"(?P<kind>[a-z]+(?:[-_][a-z]+)*)(?:-(?P<n>[0-9]{1,9}))?")


class Catalogue:
    """Which strategies the servers behind the proxy can run, under which names.

    Args:
        client: the policy, connected: one that cannot continue a beginning has no tree searches.
        prm: the verifier; without one there are no strategies that need it.
        budgets: the values of n that are listed; others are there, too.
        max_n: the largest n that may be asked for.
        plan: of `compute-optimal`; None: the one that was fitted on the embedded models.
    """

    def __init__(
        self, client: Client, prm: PRM | None, *, budgets: Sequence[int], max_n: int, plan: Plan | None = None
    ) -> None:
        self._prm, self.budgets, self.max_n = prm, tuple(budgets), max_n
        self._own: dict[str, dict[str, Any]] = {} if plan is None else {"compute-optimal": {"plan": plan}}
        stepwise = getattr(client, "can_continue", True)
        self._kinds = {
            kind.name.replace("_", "-"): kind
            for kind in STRATEGIES.values()
            if (stepwise or not kind.stepwise) and (prm is not None or not kind.needs_prm)
        }
        self.models = tuple(name for kind in self._kinds for name in self._names(kind))

    def canonical(self, name: str) -> str:
        """The name as it is listed: `best_of_n-16` is `best-of-n-16`.

        Raises:
            ApiError: 404, there is no such model here.
        """
        kind, n = self._parsed(name)
        return kind if n is None else f"{kind}-{n}"

    def strategy(self, name: str, options: Mapping[str, Any]) -> Strategy:
        """The strategy that a model name stands for, with further options, checked.

        Raises:
            ApiError: there is no such model; its budget is too large; or it has no such option, or not with such a value.
        """
        kind, n = self._parsed(name)
        budget = {} if n is None else {"n": n}
        if n is not None and options.get("n", n) != n:
            raise ApiError(f"the model {kind}-{n} has n={n}; ask for {kind}-{options['n']}", param="asearch.n")
        wanted = {**self._own.get(kind, {}), **budget, **options}
        if wanted.get("n", 1) > self.max_n:
            raise ApiError(f"n must be at most {self.max_n} here, not {wanted['n']}", param="model")
        try:
            return ready(as_strategy(kind, **wanted), self._prm)
        except UsageError as failure:
            raise ApiError(str(failure), code="invalid_value") from None

    def _parsed(self, name: str) -> tuple[str, int | None]:
        match = NAME.fullmatch(name)
        kind = match["kind"].replace("_", "-") if match else ""
        if match is None or kind not in self._kinds:
            near = difflib.get_close_matches(name[:100], self.models, n=3) or self.models[:3]
            shown = name if len(name) <= 100 else f"{name[:100]}..."
            raise ApiError(
                f"there is no model {shown!r} here; there are {', '.join(near)} and others, see /v1/models",
                status=404,
                param="model",
                code="model_not_found",
            )
        return kind, None if match["n"] is None else int(match["n"])

    def _names(self, kind: str) -> list[str]:
        """The strategy with its own n, and with each budget that it can have."""
        names = [kind]
        for n in self.budgets:
            try:
                ready(as_strategy(kind, n=n, **self._own.get(kind, {})), self._prm)
            except UsageError:
                continue
            if kind != "greedy":  # it has no budget
                names.append(f"{kind}-{n}")
        return names
