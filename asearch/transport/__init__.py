"""The wire: endpoints with their limits, retries and errors."""

from asearch.transport.endpoint import Endpoint, Json
from asearch.transport.failures import error_for
from asearch.transport.policies import EndpointStats, Retry, Timeouts

__all__ = ["Endpoint", "EndpointStats", "Json", "Retry", "Timeouts", "error_for"]
