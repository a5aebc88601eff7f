"""What one GPU does in which time.

One iteration of a continuous-batching engine computes one token of every running sequence and, beside them, tokens of
prompts. Its time is modelled as

    host + max(weights, flop * tokens) + sequence * sequences + read * context

with the tokens computed (running sequences and prompt tokens), the sequences in it, and the tokens of context whose keys
and values the running sequences read.

Figures of an H100 SXM (80 GB, 3.35 TB/s, 989 TFLOP/s dense in bfloat16, 1979 in FP8: NVIDIA's data sheet):

- *Usable bandwidth* 78 %, and 2.4 ms for one iteration of Llama-3.2-1B with one sequence in vLLM: Hazy Research, "Look
  Ma, No Bubbles" (2025-05-27); their kernel reads the weights at 78 % of the bandwidth, in 0.95 ms, which is 2.5 times
  faster than vLLM. So vLLM's `host` share is 2.36 - 0.95 = 1.4 ms.
- *Usable arithmetic* 48 %, and 5 us per sequence: from two rows of NVIDIA's TensorRT-LLM 1.0 performance overview for
  Llama 3.1 8B in FP8 on one H100, 28,312 output tokens/s at 128 in / 128 out and 3,450 at 2048 in / 128 out. With p
  seconds per prompt token and d per output token, p + d = 1/28312 and 16 p + d = 1/3450: p = 17.0 us (58,900 prompt
  tokens/s, which is 48 % of the peak at 16.06 GFLOP per token) and d = 18.3 us. Of d, 8.5 us are arithmetic and about 5 us
  the reading of keys and values; what is left, 5 us, is taken for sampling and scheduling of one sequence.

The same shares are assumed for bfloat16 and for the 1B model (no figure was found that says otherwise).
"""

from __future__ import annotations

from dataclasses import dataclass

BANDWIDTH = 3.35e12 * 0.78  # bytes/s
ARITHMETIC = 989e12 * 0.48  # FLOP/s, bfloat16
HOST_SECONDS = 1.4e-3
SEQUENCE_SECONDS = 5e-6
MEMORY = 80e9 * 0.9  # vLLM's --gpu-memory-utilization
ACTIVATIONS = 4e9  # bytes that are neither weights nor cache; an assumption


@dataclass(frozen=True, slots=True)
class Machine:
    """One server as its times and sizes.

    Args:
        name: for tables.
        host: seconds per iteration that depend on nothing.
        weights: seconds to read the weights once, in the shadow of which arithmetic is free.
        flop: seconds of arithmetic per token.
        sequence: seconds per sequence in an iteration.
        read: seconds to read the keys and values of one token of context.
        prompt_sequence: seconds once per sequence, when its prompt is computed; 0 where the host does that beside.
        request: seconds of the engine's processor per HTTP request; 0 where the HTTP server has one of its own.
        load: seconds per token that is taken from the prefix cache; 0 where blocks are shared and not copied.
        max_num_seqs: sequences in the batch.
        max_num_batched_tokens: tokens computed in one iteration.
        kv_tokens: tokens whose keys and values fit into memory.
        block: tokens per block of the prefix cache; only whole blocks are found again.
        prefix_caching: whether there is one.
        latency: seconds that a request and its reply spend outside the engine.
    """

    name: str
    host: float
    weights: float
    flop: float
    sequence: float
    read: float
    prompt_sequence: float = 0.0
    request: float = 0.0
    load: float = 0.0
    max_num_seqs: int = 256
    max_num_batched_tokens: int = 8192
    kv_tokens: int = 1_000_000
    block: int = 16
    prefix_caching: bool = True
    latency: float = 2e-3

    def iteration(self, computed: int, sequences: int, context: float) -> float:
        """Seconds of one iteration."""
        busy = max(self.weights, self.flop * computed) + self.sequence * sequences + self.read * context
        return self.host + busy

    def decoding(self, iterations: int, sequences: int, context: float) -> float:
        """Seconds of iterations in which every sequence only grows by a token each; `context` is that of the first."""
        grown = iterations * context + sequences * iterations * (iterations - 1) / 2
        return iterations * self.iteration(sequences, sequences, 0.0) + self.read * grown


def h100(name: str, parameters: float, kv_bytes: int, *, max_num_seqs: int, prefix_caching: bool = True) -> Machine:
    """A model in bfloat16 on one H100.

    Args:
        name: of the model.
        parameters: of the model; 2 bytes and 2 FLOP per token each.
        kv_bytes: keys and values of one token, all layers.
        max_num_seqs: as the server is started.
        prefix_caching: as the server is started.
    """
    return Machine(
        name=name,
        host=HOST_SECONDS,
        weights=2 * parameters / BANDWIDTH,
        flop=2 * parameters / ARITHMETIC,
        sequence=SEQUENCE_SECONDS,
        read=kv_bytes / BANDWIDTH,
        max_num_seqs=max_num_seqs,
        kv_tokens=int((MEMORY - 2 * parameters - ACTIVATIONS) / kv_bytes),
        prefix_caching=prefix_caching,
    )


def llama_1b(max_num_seqs: int = 256) -> Machine:
    """Llama-3.2-1B: 1.24e9 parameters; 16 layers with 8 key-value heads of 64 numbers: 32 KiB per token."""
    return h100("Llama-3.2-1B on one H100", 1.24e9, 2 * 16 * 8 * 64 * 2, max_num_seqs=max_num_seqs)


def llama_8b(max_num_seqs: int = 256, *, prefix_caching: bool = True) -> Machine:
    """Llama-3.1-8B, the PRM: 8.03e9 parameters; 32 layers with 8 key-value heads of 128 numbers: 128 KiB per token."""
    return h100(
        "Llama-3.1-8B (PRM) on one H100",
        8.03e9,
        2 * 32 * 8 * 128 * 2,
        max_num_seqs=max_num_seqs,
        prefix_caching=prefix_caching,
    )
