"""How fast a set of replicas could have done its work: the lower bound that makespans are held against.

The work is what the replies to all requests of the run need, with an endless prefix cache that all replicas share (a
prompt token that anybody has computed before is free, in whole blocks). A set of R replicas takes at least

    (host * iterations + max(weights * iterations, flop * tokens) + sequence * places + read * context) / R

where a sequence of g generated tokens takes a place in g iterations, iterations >= places / max_num_seqs, tokens are the
prompt tokens to be computed and those generated (the first of each sequence comes with its prompt), and context is the sum
over generated tokens of what stands before them. Policy and PRM work at the same time, so the bound of a run is the larger
of the two. No schedule can be below it; waiting of beams for each other, and the ends of runs, are not in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from simulation.hardware import Machine
    from simulation.servers import Ideal


def least_seconds(machine: Machine, work: Ideal, replicas: int = 1) -> float:
    """The lower bound for one kind of server."""
    places = work.generated_tokens
    tokens = work.computed_tokens + work.generated_tokens - work.sequences
    iterations = max(places / machine.max_num_seqs, tokens / machine.max_num_batched_tokens)
    seconds = machine.host * iterations + max(machine.weights * iterations, machine.flop * tokens)
    seconds += machine.sequence * places + machine.prompt_sequence * work.sequences
    return (seconds + machine.read * work.context_read) / replicas
