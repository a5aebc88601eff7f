"""A run on the real embedded servers, replayed on the virtual clock: the same requests, the same answers."""

import asyncio

from simulation.hardware import Machine
from simulation.network import network
from simulation.trace import Hands, Recording, Replayed, blocks, key

import asearch
import virtual_clock
from asearch.embedded import embedded_problems
from asearch.prm import CausalPRM

MACHINE = Machine("test", 1e-3, 0.0, 1e-5, 1e-5, 1e-8, max_num_seqs=128, block=8)


async def searched(client, prm, problems):
    results = asearch.solve_all(asearch.BeamSearch(n=8), client, prm, problems, at_once=2)
    found = [(r.answer, r.usage.policy_tokens, r.usage.scored) async for r in results]
    await client.aclose()
    await prm.aclose()
    return found


async def test_a_recorded_run_is_replayed(servers):
    problems = [problem for problem, _ in await embedded_problems(2, 5)]
    recordings = Recording(), Recording()
    client, prm = asearch.OpenAIClient(servers.policy), CausalPRM(servers.prm, family="embedded")
    for one, recording in zip((client, prm), recordings, strict=True):
        one.endpoint.stats.on_exchange.append(recording.note)
        recording.replies[key("/v1/models", {})] = await one.endpoint.get("/v1/models")
    real = await searched(client, prm, problems)

    async def again():
        made = [Replayed(MACHINE, recording, str.encode, Hands(1e-4)) for recording in recordings]
        with network({"policy": made[0], "prm": made[1]}):
            client, prm = asearch.OpenAIClient("http://policy"), CausalPRM("http://prm", family="embedded")
            return await searched(client, prm, problems), [server.engine.counters for server in made]

    (replayed, counters), seconds = await asyncio.to_thread(virtual_clock.run, again())
    assert replayed == real
    assert sum(tokens for _, tokens, _ in real) == counters[0].generated_tokens - 1  # the client's probe
    assert seconds > sum(c.iterations for c in counters[:1]) * MACHINE.host


def test_blocks_are_named_by_all_before_them():
    one, other = blocks(list(range(20)), 8), blocks([9, *range(1, 20)], 8)
    assert [length for _, length in one] == [8, 16, 20]
    assert not {name for name, _ in one} & {name for name, _ in other}
    assert blocks(list(range(16)), 8) == one[:2]
