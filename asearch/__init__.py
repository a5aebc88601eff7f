r"""Make small language models answer like large ones by spending compute at inference time.

    import asyncio, asearch

    result = asyncio.run(asearch.dvts("http://localhost:8000", "http://localhost:8001", "What is $3 + 4 \cdot 5$?", n=16))
    print(result.answer, result.score)

The first URL is a policy (vLLM or any server that speaks its protocol), the second a process reward model.
"""

from asearch.calls import beam_search, best_of_n, dvts, greedy, majority, solve
from asearch.client import Client, OpenAIClient
from asearch.errors import (
    AsearchError,
    AuthError,
    BadRequest,
    EndpointError,
    ModelNotFound,
    NotFound,
    Overloaded,
    ProtocolError,
    RequestTimeout,
    SearchFailed,
    ServerError,
    Unreachable,
    UsageError,
    WorkerError,
)
from asearch.events import Event, Failed, Finished, Pruned, Sampled, Scored, Stopped
from asearch.families import Family
from asearch.path import Path, Sampling, Step
from asearch.prm import PRM, CausalPRM, FunctionPRM
from asearch.problem import Problem
from asearch.result import Node, Result, Tree
from asearch.strategies import DVTS, BeamSearch, BestOfN, Greedy, Majority, Strategy
from asearch.transport import Endpoint, Retry, Timeouts
from asearch.usage import Budget, Usage
from asearch.workers import AnswerWorkers

__all__ = [
    "DVTS",
    "PRM",
    "AnswerWorkers",
    "AsearchError",
    "AuthError",
    "BadRequest",
    "BeamSearch",
    "BestOfN",
    "Budget",
    "CausalPRM",
    "Client",
    "Endpoint",
    "EndpointError",
    "Event",
    "Failed",
    "Family",
    "Finished",
    "FunctionPRM",
    "Greedy",
    "Majority",
    "ModelNotFound",
    "Node",
    "NotFound",
    "OpenAIClient",
    "Overloaded",
    "Path",
    "Problem",
    "ProtocolError",
    "Pruned",
    "RequestTimeout",
    "Result",
    "Retry",
    "Sampled",
    "Sampling",
    "Scored",
    "SearchFailed",
    "ServerError",
    "Step",
    "Stopped",
    "Strategy",
    "Timeouts",
    "Tree",
    "Unreachable",
    "Usage",
    "UsageError",
    "WorkerError",
    "beam_search",
    "best_of_n",
    "dvts",
    "greedy",
    "majority",
    "solve",
]
