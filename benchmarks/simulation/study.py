"""One run: a strategy over many problems on simulated replicas, and what came of it."""

from __future__ import annotations

import asyncio
import gc
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import asearch
from asearch.calls import as_strategy
from asearch.concurrency import together
from asearch.prm import CausalPRM
from simulation import clock, world
from simulation.bound import least_seconds
from simulation.hardware import llama_1b, llama_8b
from simulation.lockstep import Lockstep
from simulation.network import network
from simulation.servers import Ideal, PolicyServer, PRMServer, SimulatedServer

if TYPE_CHECKING:
    from collections.abc import Sequence

SCHEDULES = ("asearch", "lockstep", "reference")


@dataclass(frozen=True)
class Setting:
    """What is run.

    Args:
        strategy: its name in asearch.
        n: its budget.
        problems: how many.
        policies: replicas of the policy, each on a GPU of its own.
        prms: replicas of the PRM, likewise.
        schedule: "asearch", "lockstep" (the reference's order, everything scored once), or "reference" (every step is
            scored again at every level, without a prefix cache).
        at_once: problems under way together at each worker; None: as the library does it (see `asearch.admission`).
        max_num_seqs: of the policy's servers.
        limit: sequences that a worker has under way on one server.
        workers: processes that share the problems and the servers and know nothing of each other.
    """

    strategy: str
    n: int
    problems: int
    policies: int = 1
    prms: int = 1
    schedule: str = "asearch"
    at_once: int | None = None
    max_num_seqs: int = 256
    limit: int = 512
    workers: int = 1


@dataclass(frozen=True)
class Outcome:
    """What came of it; seconds are those of the virtual clock, but for `cpu`, which the simulation itself took.

    Args:
        makespan: from the first request to the last result.
        policy_bound: the least seconds for the policy's work (see `bound`), and
        prm_bound: for the PRM's.
        policy_busy: share of the makespan in which an engine computes, mean over replicas.
        prm_busy: the same for the PRM.
        policy_tokens: generated.
        prm_tokens: computed, and
        prm_excess: these over what an endless shared prefix cache would have left to compute.
        policy_excess: the same for prompts of the policy.
        first: when the first result was there.
        candidates: finished paths of all problems together.
        cpu: seconds of CPU that the simulation took.
    """

    makespan: float
    policy_bound: float
    prm_bound: float
    policy_busy: float
    prm_busy: float
    policy_tokens: int
    policy_requests: int
    policy_excess: float
    prm_tokens: int
    prm_requests: int
    prm_excess: float
    first: float
    candidates: int
    cpu: float

    @property
    def bound(self) -> float:
        """The least seconds for the whole run."""
        return max(self.policy_bound, self.prm_bound)

    @property
    def ratio(self) -> float:
        """The makespan over the bound."""
        return self.makespan / self.bound


def strategy_of(setting: Setting) -> Any:
    """The strategy; best-of-N without its early stop, so that the work is the same for every schedule."""
    fixed = {"early_stop": False} if setting.strategy in ("best_of_n", "majority") else {}
    return as_strategy(setting.strategy, n=setting.n, **fixed)


def simulate(setting: Setting) -> Outcome:
    """Run it on a virtual clock."""
    gc.set_threshold(200_000, 50, 50)  # the default spends a third of the time on looking for garbage, and finds none
    began = time.process_time()
    found = clock.run(_run(setting))
    gc.collect()
    return Outcome(**{**found, "cpu": time.process_time() - began})


def fleet(setting: Setting) -> tuple[list[SimulatedServer], list[SimulatedServer]]:
    """The servers, with the work of each kind on one account."""
    cached = setting.schedule != "reference"
    ideal_policy, ideal_prm = Ideal(), Ideal()
    policies = [PolicyServer(llama_1b(setting.max_num_seqs), ideal_policy) for _ in range(setting.policies)]
    prms = [PRMServer(llama_8b(prefix_caching=cached), ideal_prm) for _ in range(setting.prms)]
    return [*policies], [*prms]


def clients(setting: Setting) -> tuple[asearch.OpenAIClient, CausalPRM]:
    """The real clients of one worker; several servers are replicas of one endpoint."""
    policies = [f"http://policy-{i}:8000" for i in range(setting.policies)]
    prms = [f"http://prm-{i}:8000" for i in range(setting.prms)]
    shared = setting.workers > 1
    return asearch.OpenAIClient(policies, limit=setting.limit, shared=shared), CausalPRM(prms, shared=shared)


async def _run(setting: Setting) -> dict[str, Any]:
    policies, prms = fleet(setting)
    hosts = {f"policy-{i}": server for i, server in enumerate(policies)}
    hosts |= {f"prm-{i}": server for i, server in enumerate(prms)}
    questions = [world.question(i) for i in range(setting.problems)]
    search = _searched if setting.schedule == "asearch" else _locked
    with network(hosts):
        found = await together(search(setting, questions[i :: setting.workers]) for i in range(setting.workers))
        first, candidates = min(first for first, _ in found), sum(count for _, count in found)
        return measured(policies, prms, first=first, candidates=candidates)


async def _searched(setting: Setting, questions: Sequence[str]) -> tuple[float, int]:
    """One worker, by asearch; returns when its first result was there, and how many candidates there are."""
    first, candidates = 0.0, 0
    client, prm = clients(setting)
    async with asearch.AnswerWorkers() as workers:
        results = asearch.solve_all(
            strategy_of(setting), client, prm, questions, at_once=setting.at_once, workers=workers
        )
        async for result in results:
            if result.errors:
                raise RuntimeError(result.errors[0])
            first = first or asyncio.get_running_loop().time()
            candidates += len(result.paths)
    await client.aclose()
    await prm.aclose()
    return first, candidates


async def _locked(setting: Setting, questions: Sequence[str]) -> tuple[float, int]:
    """In lockstep, on one server of each kind."""
    client, prm = clients(setting)
    found = await Lockstep(client, prm, strategy_of(setting), rescore=setting.schedule == "reference").solve(questions)
    await client.aclose()
    await prm.aclose()
    return 0.0, found


def measured(
    policies: Sequence[SimulatedServer], prms: Sequence[SimulatedServer], *, first: float, candidates: int
) -> dict[str, Any]:
    """The figures of a run that is over now."""
    makespan = asyncio.get_running_loop().time()
    found: dict[str, Any] = {"makespan": makespan, "first": first, "candidates": candidates, "cpu": 0.0}
    for kind, servers in (("policy", policies), ("prm", prms)):
        ideal, counters = servers[0].ideal, [server.engine.counters for server in servers]
        computed = sum(c.computed_tokens for c in counters)
        generated = sum(c.generated_tokens for c in counters)
        found |= {
            f"{kind}_bound": least_seconds(servers[0].machine, ideal, len(servers)),
            f"{kind}_busy": sum(c.busy for c in counters) / makespan / len(servers),
            f"{kind}_tokens": generated if kind == "policy" else computed,
            f"{kind}_requests": sum(server.requests for server in servers),
            f"{kind}_excess": computed / max(1, ideal.computed_tokens),
        }
    return found


def as_line(setting: Setting, outcome: Outcome) -> dict[str, Any]:
    """A run as plain data."""
    return {"setting": asdict(setting), "outcome": asdict(outcome)}
