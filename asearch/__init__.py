r"""Make small language models answer like large ones by spending compute at inference time.

    import asyncio, asearch

    result = asyncio.run(asearch.dvts("http://localhost:8000", "http://localhost:8001", "What is $3 + 4 \cdot 5$?", n=16))
    print(result.answer, result.score)

The first URL is a policy (vLLM or any server that speaks its protocol), the second a process reward model.
"""

from asearch.calls import (
    beam_search,
    best_of_n,
    compute_optimal,
    dvts,
    greedy,
    majority,
    particle_filter,
    rebase,
    self_refine,
    self_verify,
    solve,
    solve_all,
    stream,
)
from asearch.client import Client, OpenAIClient, TGIClient
from asearch.errors import (
    AsearchError,
    AuthError,
    BadRequest,
    Closed,
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
from asearch.evaluation import Question, Record, evaluate
from asearch.events import Event, Failed, Finished, Pruned, Sampled, Scored, Stopped
from asearch.families import Family
from asearch.path import Path, Sampling, Step
from asearch.prm import PRM, CausalPRM, FunctionPRM, OutcomePRM, PoolingPRM
from asearch.problem import Problem
from asearch.result import Node, Result, Tree
from asearch.strategies import (
    DVTS,
    BeamSearch,
    BestOfN,
    ComputeOptimal,
    Greedy,
    Majority,
    ParticleFilter,
    Rebase,
    SelfRefine,
    SelfVerifier,
    SelfVerify,
    Strategy,
    TreeStrategy,
)
from asearch.transport import Endpoint, Probes, Retry, Timeouts
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
    "Closed",
    "ComputeOptimal",
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
    "OutcomePRM",
    "Overloaded",
    "ParticleFilter",
    "Path",
    "PoolingPRM",
    "Probes",
    "Problem",
    "ProtocolError",
    "Pruned",
    "Question",
    "Rebase",
    "Record",
    "RequestTimeout",
    "Result",
    "Retry",
    "Sampled",
    "Sampling",
    "Scored",
    "SearchFailed",
    "SelfRefine",
    "SelfVerifier",
    "SelfVerify",
    "ServerError",
    "Step",
    "Stopped",
    "Strategy",
    "TGIClient",
    "Timeouts",
    "Tree",
    "TreeStrategy",
    "Unreachable",
    "Usage",
    "UsageError",
    "WorkerError",
    "beam_search",
    "best_of_n",
    "compute_optimal",
    "dvts",
    "evaluate",
    "greedy",
    "majority",
    "particle_filter",
    "rebase",
    "self_refine",
    "self_verify",
    "solve",
    "solve_all",
    "stream",
]
