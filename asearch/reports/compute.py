"""What a search computes: tokens of policy and verifier together, and the floating point operations that they take.

With a prefix cache each of the two models reads every token of a search tree once: the prompt, and each explored step. That
is what is counted, whatever a server's cache did; 2 x parameters x tokens operations are the usual estimate for a forward
pass (Kaplan et al., arXiv 2001.08361). Self-refinement and self-verification ask anew for each solution; there the tokens
that the policy read are counted as the server reports them, without those that its cache had.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from asearch.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asearch.evaluation import Outcome, Record

REREADING = ("self_refine", "self_verify")
# The parameters of the models that this project trained; a test compares them with the checkpoints.
EMBEDDED = {"asearch-policy": 208_896, "asearch-policy-large": 843_776, "asearch-prm": 1_236_352}
SIZE = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?)\s?([bBmM])(?![a-zA-Z0-9])")


@dataclass(frozen=True, slots=True)
class Parameters:
    """How large the models are, in parameters; None where nobody says."""

    policy: float | None = None
    prm: float | None = None
    baseline: float | None = None

    def flops(self, policy_tokens: float, prm_tokens: float, *, baseline: bool = False) -> float | None:
        """Operations of a search; None where a size that is needed is not known."""
        policy = self.baseline if baseline else self.policy
        if policy is None or (prm_tokens and self.prm is None):
            return None
        return 2.0 * (policy * policy_tokens + (self.prm or 0.0) * prm_tokens)


def parameters_of(config: Mapping[str, Any], given: Parameters) -> Parameters:
    """Model sizes: as given, else of the embedded models, else as the served names say ("...-1B-...").

    Raises:
        UsageError: a given size is no positive number.
    """
    sizes: dict[str, float | None] = {}
    for role in ("policy", "prm", "baseline"):
        said = getattr(given, role)
        if said is not None and not said > 0:
            raise UsageError(f"the parameters of the {role} must be a positive number, not {said}")
        model = (config.get("models") or {}).get(role) or {}
        sizes[role] = said or size_in(str(model.get("model", "")))
    return Parameters(**sizes)


def size_in(model: str) -> float | None:
    """The number of parameters that a model's name states.

    >>> size_in("meta-llama/Llama-3.2-1B-Instruct")
    1000000000.0
    """
    if model in EMBEDDED:
        return float(EMBEDDED[model])
    found = SIZE.search(model)
    if found is None:
        return None
    return float(found[1]) * (1e9 if found[2] in "bB" else 1e6)


def spent_by(record: Record, outcome: Outcome) -> tuple[float, float]:
    """Tokens that the policy and the verifier computed for an outcome, those with a common beginning once."""
    usage, share = record.usage, outcome.n / outcome.sampled
    if record.strategy["name"] in REREADING:
        read = (usage.policy_prompt_tokens - usage.policy_cached_tokens) * share
        return read + outcome.cost.policy_tokens, outcome.cost.prm_tokens
    tree = (record.prompt_tokens or 0) + outcome.cost.policy_tokens
    return tree, tree if outcome.cost.prm_tokens else 0.0
