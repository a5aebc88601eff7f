"""The library on simulated servers: what is asked is answered, and times obey the bounds."""

import asyncio
import statistics
from dataclasses import replace

import pytest
from simulation.bound import least_seconds
from simulation.network import network
from simulation.report import tables
from simulation.servers import Ideal, PolicyServer, PRMServer
from simulation.study import Setting, simulate

import asearch
from asearch.prm import CausalPRM
from simulation import hardware, world
from virtual_clock import run

SMALL = Setting("beam_search", n=16, problems=6)


def solve(strategy, problems, *, policies=1, prms=1):
    """Results, makespan and servers of a run on simulated replicas."""

    async def scenario():
        policy, prm = Ideal(), Ideal()
        servers = {f"policy-{i}": PolicyServer(hardware.llama_1b(), policy) for i in range(policies)}
        servers |= {f"prm-{i}": PRMServer(hardware.llama_8b(), prm) for i in range(prms)}
        with network(servers):
            client = asearch.OpenAIClient([f"http://policy-{i}" for i in range(policies)])
            verifier = CausalPRM([f"http://prm-{i}" for i in range(prms)])
            async with asearch.AnswerWorkers() as workers:
                questions = [world.question(i) for i in range(problems)]
                found = [r async for r in asearch.solve_all(strategy, client, verifier, questions, workers=workers)]
            await client.aclose()
            await verifier.aclose()
        return found, asyncio.get_running_loop().time(), servers

    return run(scenario())[0]


@pytest.mark.parametrize("name", ["best_of_n", "beam_search", "dvts", "particle_filter", "rebase"])
def test_no_run_is_faster_than_its_bound(name):
    outcome = simulate(replace(SMALL, strategy=name))
    assert outcome.candidates >= SMALL.problems
    assert outcome.ratio >= 1.0
    assert outcome.policy_busy <= 1.0
    assert outcome.prm_busy <= 1.0
    assert outcome.policy_excess == outcome.prm_excess == 1.0  # one server with room for all: nothing is computed twice


def test_the_tree_is_the_same_on_one_and_on_three_replicas():
    one, _, _ = solve(asearch.BeamSearch(n=16), 3)
    three, _, servers = solve(asearch.BeamSearch(n=16), 3, policies=3, prms=2)
    assert [sorted(node.path.id for node in r.tree.nodes) for r in one] == [
        sorted(node.path.id for node in r.tree.nodes) for r in three
    ]
    assert [r.answer for r in one] == [r.answer for r in three]
    assert all(server.requests for server in servers.values())


def test_tokens_that_the_library_books_are_those_that_the_servers_generated():
    found, _, servers = solve(asearch.DVTS(n=8), 4)
    counters = servers["policy-0"].engine.counters
    probe = 1  # of the client, when it connects
    assert sum(r.usage.policy_tokens for r in found) == counters.generated_tokens - probe
    assert sum(r.usage.scored for r in found) == servers["prm-0"].engine.counters.sequences


def test_a_cancelled_run_leaves_nothing_on_the_servers():
    async def scenario():
        servers = {
            "policy": PolicyServer(hardware.llama_1b(), Ideal()),
            "prm": PRMServer(hardware.llama_8b(), Ideal()),
        }
        with network(servers):
            task = asyncio.ensure_future(asearch.beam_search("http://policy", "http://prm", world.question(1), n=64))
            await asyncio.sleep(1.0)
            busy = servers["policy"].engine.running + servers["prm"].engine.running
            task.cancel()
            await asyncio.wait([task])
            await asyncio.sleep(5.0)
        return busy, [(s.open, s.engine.running, s.engine.waiting) for s in servers.values()]

    busy, left = run(scenario())[0]
    assert busy > 0
    assert left == [(0, 0, 0)] * 2


def test_the_reference_schedule_takes_longer_and_computes_more():
    own, lockstep, reference = (
        simulate(replace(SMALL, schedule=schedule)) for schedule in ("asearch", "lockstep", "reference")
    )
    assert own.makespan < lockstep.makespan < reference.makespan
    assert reference.prm_tokens > 3 * own.prm_tokens
    assert lockstep.prm_tokens < 1.3 * own.prm_tokens


def test_the_bound_of_a_full_batch_is_what_the_engine_takes():
    """256 equal sequences fill every iteration, so there is nothing between the bound and the run but the prompts."""
    from simulation.engine import Engine, Task

    machine, ideal, new = hardware.llama_1b(), Ideal(), 500

    async def scenario():
        engine = Engine(machine)
        for _ in range(machine.max_num_seqs):
            task = Task([(1, 100)], new, lambda: None)
            ideal.note(task.pieces, new, (), machine.block)
            engine.submit([task])
        await asyncio.sleep(1000.0)
        return engine.counters.busy

    busy = run(scenario())[0]
    bound = least_seconds(machine, ideal)
    assert bound <= busy < 1.02 * bound


class TestWorld:
    def test_steps_are_the_same_whenever_they_are_asked_for(self):
        path = [(world.SYSTEM, 190), (77, 260)]
        assert world.next_step(77, path, 5, 2048) == world.next_step(77, path, 5, 2048)
        assert len({world.next_step(77, path, seed, 2048).name for seed in range(200)}) == 200

    def test_lengths_are_those_that_the_page_states(self):
        solutions = [self.solution(number, seed) for number in range(60) for seed in range(40)]
        whole = [s for s in solutions if s[-1].finish == "eos"]
        assert 0.01 < 1 - len(whole) / len(solutions) < 0.05
        assert statistics.fmean(map(len, whole)) == pytest.approx(8.2, abs=0.6)
        assert statistics.fmean(step.tokens for s in whole for step in s) == pytest.approx(54, abs=1)
        assert max(sum(step.tokens for step in s) for s in solutions) == 2048

    @staticmethod
    def solution(number, seed):
        path, said = [(world.SYSTEM, 190), (number * 64 + 2, 250)], []
        while not said or said[-1].finish == "step":
            room = 2048 - sum(step.tokens for step in said)
            said.append(world.next_step(number, path, world.mix(seed, len(said)), room))
            path.append((said[-1].name, path[-1][1] + said[-1].tokens))
        return said

    def test_ids_and_texts_read_back_as_the_same_pieces(self):
        said = [world.next_step(9, [(1, 190), (9, 250)], seed, 2048) for seed in range(5)]
        ids = world.as_ids(said)
        assert len(ids) == sum(step.tokens for step in said)
        assert [name for name, _ in world.read_ids(ids)] == [step.name for step in said]
        text = "".join(step.text for step in said)
        assert world.read_text(text, 0, 0) == world.read_ids(ids)


def test_tables_show_what_was_run():
    runs = [(s, simulate(s)) for s in (SMALL, replace(SMALL, policies=2, prms=2), replace(SMALL, schedule="lockstep"))]
    shown = tables(runs)
    assert shown.count("| beam search | 6 x 16 |") == 5
    one, two, lockstep = (outcome.makespan for _, outcome in runs)
    assert f"| {lockstep / one:.1f} |" in shown
    assert f" ({one / 2 / two:.2f}) |" in shown
