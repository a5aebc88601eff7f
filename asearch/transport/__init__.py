"""The wire: endpoints with their replicas, limits, retries and errors."""

from asearch.transport.balancing import Trail
from asearch.transport.endpoint import Endpoint, Json
from asearch.transport.failures import error_for
from asearch.transport.policies import Probes, Retry, Timeouts
from asearch.transport.replica import Replica
from asearch.transport.sources import Address, is_source
from asearch.transport.stats import Counters, EndpointStats, cached_tokens

__all__ = [
    "Address",
    "Counters",
    "Endpoint",
    "EndpointStats",
    "Json",
    "Probes",
    "Replica",
    "Retry",
    "Timeouts",
    "Trail",
    "cached_tokens",
    "error_for",
    "is_source",
]
