"""Beyond one machine: evaluation and data generation on a Ray cluster (extra `[ray]`)."""

from asearch.ray.data import map_problems
from asearch.ray.engine import RayEngine

__all__ = ["RayEngine", "map_problems"]
