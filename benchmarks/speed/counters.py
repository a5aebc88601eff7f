"""Counters of a server's /metrics, by their names in vLLM. Needs aiohttp only: the peer's environment reads them, too."""

from __future__ import annotations

import aiohttp

# Steps of the engine: the embedded servers count them by themselves; vLLM (0.25.1, 0.32) observes each iteration that
# gave tokens in a histogram of their number, whose count it is.
STEPS = ("engine_steps_total", "iteration_tokens_total_count")
WRITTEN = ("generation_tokens_total",)
UNDER_WAY = ("num_requests_running", "num_requests_waiting")


async def counted(url: str, *names: str) -> int:
    """The first of these counters that the server has, summed over its engines."""
    async with aiohttp.ClientSession() as session, session.get(url + "/metrics") as reply:
        lines = (await reply.text()).splitlines()
    for name in names:
        values = [float(line.split()[-1]) for line in lines if line.startswith(f"vllm:{name}{{")]
        if values:
            return round(sum(values))
    raise SystemExit(f"{url}/metrics has no vllm:{names[-1]}; is this vLLM, without --disable-log-stats?")


class Counts:
    """What a server counts from now on.

    Args:
        url: of the server.
        names: the counters, each by the names that it may have.
    """

    def __init__(self, url: str, *names: tuple[str, ...]) -> None:
        self._url, self._names = url, names
        self._before: list[int] = []

    async def begin(self) -> None:
        self._before = [await counted(self._url, *names) for names in self._names]

    async def read(self) -> list[int]:
        """How far each has come since `begin`."""
        now = [await counted(self._url, *names) for names in self._names]
        return [after - before for after, before in zip(now, self._before, strict=True)]
