"""The strategies: each a frozen value with its options, and a paragraph over the shared move `Search.grow`.

Defaults are the article's ("Scaling test-time compute with open models"): width M = 4, T = 0.8, 40 steps, the last step
score as the value of a path, 2,048 tokens for a solution.
"""

from __future__ import annotations

from asearch.strategies.base import Strategy, TreeStrategy
from asearch.strategies.particles import ParticleFilter
from asearch.strategies.planned import ComputeOptimal
from asearch.strategies.revisions import SelfRefine
from asearch.strategies.samples import BestOfN, Greedy, Majority
from asearch.strategies.trees import DVTS, BeamSearch, Rebase
from asearch.strategies.verification import SelfVerifier, SelfVerify

STRATEGIES: dict[str, type[Strategy]] = {
    kind.name: kind
    for kind in (
        Greedy,
        Majority,
        BestOfN,
        BeamSearch,
        DVTS,
        ParticleFilter,
        Rebase,
        SelfRefine,
        SelfVerify,
        ComputeOptimal,
    )
}

__all__ = [
    "DVTS",
    "STRATEGIES",
    "BeamSearch",
    "BestOfN",
    "ComputeOptimal",
    "Greedy",
    "Majority",
    "ParticleFilter",
    "Rebase",
    "SelfRefine",
    "SelfVerifier",
    "SelfVerify",
    "Strategy",
    "TreeStrategy",
]
