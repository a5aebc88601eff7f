"""The times of a real vLLM-like server, measured from outside, as a `Machine`: a few hundred requests, and least squares.

One iteration of the embedded engine computes parts of prompts in one pass and then a token of every running sequence, so its
time is linear in all of them: there are no weights whose reading would hide arithmetic.
"""

from __future__ import annotations

import random
import statistics
import time
from math import ceil
from typing import TYPE_CHECKING, Any

from asearch.concurrency import together
from simulation.hardware import Machine

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asearch.transport import Endpoint

BLOCK, STEP_TOKENS, PLACES = 8, 512, 128  # of the embedded engine
REPEATS = 5
GENERATED = 48
VOCABULARY = range(10, 110)


async def measured_machine(name: str, endpoint: Endpoint, model: str, extra: dict[str, Any]) -> Machine:
    """Measure a server that does nothing else.

    Args:
        name: for tables.
        endpoint: of the server.
        model: the served name.
        extra: further fields of the requests that are to be modelled.
    """
    probe = Probe(endpoint, model, extra)
    sizes = [(count, length) for count in (1, 4, 16, 48) for length in (40, 150)]
    cold = [await probe.prompts(count, length) for count, length in sizes]
    warm = [await probe.prompts(count, length, again=True) for count, length in sizes]
    latency, _, each, token = least_squares([[1.0, ceil(c * n / STEP_TOKENS), c, c * n] for c, n in sizes], cold)
    _, _, load = least_squares([[1.0, c, c * n] for c, n in sizes], warm)
    request = max(0.0, await probe.apart(16, 40) - await probe.prompts(16, 40)) / 15
    steps = [(count, length) for count in (1, 8, 32, 96) for length in (40, 200)]
    grown = [await probe.decoding(count, length) for count, length in steps]
    host, place, read = least_squares([[1.0, c, c * (n + GENERATED / 2)] for c, n in steps], grown)
    sequence = max(0.0, place - token)
    return Machine(
        name=name,
        host=host,
        weights=0.0,
        flop=token,
        sequence=sequence,
        read=read,
        prompt_sequence=max(0.0, each - sequence),
        request=request,
        load=load,
        max_num_seqs=PLACES,
        max_num_batched_tokens=STEP_TOKENS + PLACES,
        kv_tokens=100_000,
        block=BLOCK,
        latency=max(0.0, latency - host - request),
    )


class Probe:
    """Requests whose time is known to be that of the server.

    Args:
        endpoint: of the server.
        model: the served name.
        extra: further fields of the requests.
        seed: of sampled tokens; without one vLLM draws for all sequences at once.
    """

    def __init__(self, endpoint: Endpoint, model: str, extra: dict[str, Any], *, seed: int | None = 1) -> None:
        self._endpoint, self._seed = endpoint, seed
        self._body = {"model": model, "temperature": 0.0, "add_special_tokens": False, **extra}
        self._random = random.Random(0)

    async def prompts(self, count: int, length: int, *, again: bool = False) -> float:
        """Seconds for `count` prompts of one token each, in one request; new ones, or the same once more."""
        times = []
        for _ in range(REPEATS):
            prompts = self._new(count, length)
            seconds = await self._ask({"max_tokens": 1}, prompts)
            times.append(await self._ask({"max_tokens": 1}, prompts) if again else seconds)
        return statistics.median(times)

    async def apart(self, count: int, length: int) -> float:
        """Seconds for as many prompts in one request each, all at once."""
        times = []
        for _ in range(REPEATS):
            began = time.perf_counter()
            await together(self._ask({"max_tokens": 1}, [prompt]) for prompt in self._new(count, length))
            times.append(time.perf_counter() - began)
        return statistics.median(times)

    async def decoding(self, count: int, length: int) -> float:
        """Seconds per iteration in which `count` sequences grow by a token, and are watched for the end of a step."""
        watched = {"ignore_eos": True, "temperature": 0.8, "seed": self._seed, "stop": ["\n\n"]}
        plain = {name: None for name in self._body if "logprob" in name}
        times: dict[int, float] = {}
        for tokens in (1, 1 + GENERATED):
            options = {**watched, **plain, "max_tokens": tokens, "min_tokens": tokens}
            times[tokens] = statistics.median(
                [await self._ask(options, self._new(count, length)) for _ in range(REPEATS)]
            )
        return max(0.0, times[1 + GENERATED] - times[1]) / GENERATED

    def _new(self, count: int, length: int) -> list[list[int]]:
        return [self._random.choices(VOCABULARY, k=length) for _ in range(count)]

    async def _ask(self, options: dict[str, Any], prompts: list[list[int]]) -> float:
        body = {**self._body, **options, "prompt": prompts}
        began = time.perf_counter()
        await self._endpoint.post(
            "/v1/completions", {name: value for name, value in body.items() if value is not None}, units=len(prompts)
        )
        return time.perf_counter() - began


def least_squares(rows: Sequence[Sequence[float]], values: Sequence[float]) -> list[float]:
    """Coefficients that are not negative; relative errors count, so that small and large times weigh the same."""
    import numpy as np

    matrix = np.array(rows) / np.array(values)[:, None]
    kept = list(range(matrix.shape[1]))
    while True:
        found = np.linalg.lstsq(matrix[:, kept], np.ones(len(values)), rcond=None)[0]
        if (found >= 0).all():
            break
        kept.pop(int(found.argmin()))
    coefficients = [0.0] * matrix.shape[1]
    for place, value in zip(kept, found, strict=True):
        coefficients[place] = float(value)
    return coefficients
