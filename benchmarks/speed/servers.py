"""The pair of servers that a speed benchmark runs on: embedded ones, fresh for each run, or real vLLM, kept for all runs.

Embedded servers start in a second, so every run has its own, and no cache is warm. Real vLLM takes half a minute and more:
its servers stay, and before each run their prefix caches are emptied by POST /reset_prefix_cache, which vLLM has with
VLLM_SERVER_DEV_MODE=1 only. vLLM 0.32 says whether that was done ({"success": false} while requests hold blocks), 0.25
answers 200 either way; so both are asked for a prompt that they have just read, and must read it again.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
from counters import UNDER_WAY, counted

import asearch
from asearch.embedded import EmbeddedServers, embedded_problems, embedded_servers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PATIENCE = 60.0  # seconds for a server to become idle, and to forget
PROBE = [7] * 256  # token ids of a prompt that nothing else begins with; two blocks of 128 at least
HITS = "prefix_cache_hits_total"


class Fresh:
    """Embedded servers, a new pair for every run."""

    name = "embedded servers, fresh for each run"
    exact = True  # the same seeds give the same tokens, whatever else is in the batch
    vllm = False

    @asynccontextmanager
    async def pair(self) -> AsyncIterator[EmbeddedServers]:
        async with embedded_servers() as servers:
            yield servers


class Kept:
    """vLLM servers that stay, and forget before every run what they have read.

    Args:
        servers: their URLs.
        name: what they are, for the heading.
    """

    exact = False
    vllm = True

    def __init__(self, servers: EmbeddedServers, name: str) -> None:
        self._servers, self.name = servers, name

    @asynccontextmanager
    async def pair(self) -> AsyncIterator[EmbeddedServers]:
        for url in (self._servers.policy, self._servers.prm):
            await forget(url)
        yield self._servers


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which servers, and whether the policy's requests have seeds."""
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--vllm", metavar="PYTHON", help="start real vLLM on the CPU: the Python of its environment")
    which.add_argument(
        "--servers",
        nargs=2,
        metavar=("POLICY_URL", "PRM_URL"),
        help="vLLM servers that are running, started with VLLM_SERVER_DEV_MODE=1 (their prefix caches are reset)",
    )


@asynccontextmanager
async def chosen(arguments: argparse.Namespace) -> AsyncIterator[Fresh | Kept]:
    """The servers that the arguments name, for the time of the block."""
    if arguments.vllm:
        async with vllm_servers(arguments.vllm) as servers:
            yield await kept(servers, "started by vllm_pair.py")
    elif arguments.servers:
        yield await kept(EmbeddedServers(*map(base, arguments.servers)), "running already")
    else:
        yield Fresh()


async def kept(servers: EmbeddedServers, how: str) -> Kept:
    """Servers that can forget, and have compiled what they compile on first use."""
    answers = [await json_of(url + "/version") for url in (servers.policy, servers.prm)]
    versions = {str(answer.get("version", "of an unknown version")) for answer in answers}
    pair = Kept(servers, f"vLLM {' and '.join(sorted(versions))} ({how})")
    async with pair.pair():
        await exercise(servers)
    return pair


async def exercise(servers: EmbeddedServers) -> None:
    """A search that fills a batch of 256 sequences."""
    client, prm = asearch.OpenAIClient(servers.policy), asearch.CausalPRM(servers.prm)
    problems = [asearch.Problem(text) for text, _ in await embedded_problems(4, 1)]
    try:
        _ = [result async for result in asearch.solve_all(asearch.DVTS(n=64), client, prm, problems)]
    finally:
        await client.aclose()
        await prm.aclose()


def base(url: str) -> str:
    return url.rstrip("/").removesuffix("/v1")


@asynccontextmanager
async def vllm_servers(python: str) -> AsyncIterator[EmbeddedServers]:
    """Both embedded checkpoints on real vLLM, for the time of the block."""
    pipe = asyncio.subprocess.PIPE
    script = Path(__file__).with_name("vllm_pair.py")
    process = await asyncio.create_subprocess_exec(python, str(script), stdin=pipe, stdout=pipe)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        line = await process.stdout.readline()
        if not line:
            raise SystemExit(f"the vLLM servers did not start; does {python} have vLLM?")
        yield EmbeddedServers(**json.loads(line))
    finally:
        process.stdin.close()
        await process.wait()


# -- an empty cache ---------------------------------------------------------------------------------------------------


async def forget(url: str) -> None:
    """Empty a server's prefix cache, and see that it is empty."""
    await remembered(url)
    give_up = asyncio.get_running_loop().time() + PATIENCE
    while asyncio.get_running_loop().time() < give_up:
        if not [name for name in UNDER_WAY if await counted(url, name)]:
            await reset(url)
            if not await remembered(url):
                return
        await asyncio.sleep(0.1)
    raise SystemExit(f"{url} kept its prefix cache for {PATIENCE:.0f} s; does somebody else use this server?")


async def reset(url: str) -> None:
    async with aiohttp.ClientSession() as session, session.post(url + "/reset_prefix_cache") as reply:
        if reply.status == 404:
            raise SystemExit(
                f"{url} has no /reset_prefix_cache, so its cache would be warm and the numbers wrong:"
                " start vLLM with VLLM_SERVER_DEV_MODE=1 in its environment"
            )
        reply.raise_for_status()


async def remembered(url: str) -> bool:
    """Whether the server takes anything of a prompt from its cache; it knows the prompt afterwards."""
    before = await counted(url, HITS)
    model = (await json_of(url + "/v1/models"))["data"][0]["id"]
    body = {"model": model, "prompt": PROBE, "max_tokens": 1, "temperature": 0.0}
    async with aiohttp.ClientSession() as session, session.post(url + "/v1/completions", json=body) as reply:
        reply.raise_for_status()
        await reply.read()
    return await counted(url, HITS) > before


async def json_of(url: str) -> dict[str, Any]:
    """What a GET answers; nothing where there is no such route."""
    try:
        async with aiohttp.ClientSession() as session, session.get(url) as reply:
            return await reply.json() if reply.status == 200 else {}
    except aiohttp.ClientConnectionError:
        raise SystemExit(f"nothing answers at {url}; are the servers running?") from None


# -- seeds ------------------------------------------------------------------------------------------------------------


def add_seeds_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--seeds",
        action=argparse.BooleanOptionalAction,
        help="whether asearch's requests have seeds, as they have by default; vLLM's V1 model runner samples each"
        " sequence with a seed by itself, so that here they are left out on vLLM",
    )


def seeded(arguments: argparse.Namespace, servers: Fresh | Kept) -> bool:
    return not servers.vllm if arguments.seeds is None else arguments.seeds


def policy_client(url: str, *, seeds: bool) -> asearch.OpenAIClient:
    """The library's client; without seeds, one that leaves them out of its requests."""
    client = asearch.OpenAIClient(url)
    if not seeds:
        post = client.endpoint.post

        async def without_seed(route: str, body: Any, **options: Any) -> Any:
            return await post(route, {name: value for name, value in body.items() if name != "seed"}, **options)

        client.endpoint.post = without_seed
    return client
