"""Process reward models: whatever can say how likely a solution is right so far, step by step.

The models are causal: the score of a step depends only on what stands before it. So a path keeps the scores that it
has, and only its new steps are scored.
"""

from asearch.prm.base import PRM, ServedPRM, as_family
from asearch.prm.causal import CausalPRM
from asearch.prm.detect import DetectedPRM, as_prm
from asearch.prm.function import FunctionPRM
from asearch.prm.pooling import OutcomePRM, PoolingPRM

__all__ = [
    "PRM",
    "CausalPRM",
    "DetectedPRM",
    "FunctionPRM",
    "OutcomePRM",
    "PoolingPRM",
    "ServedPRM",
    "as_family",
    "as_prm",
]
