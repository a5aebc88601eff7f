"""asearch beside its_hub 1.2.0: beam search of the same width, on the same servers, with the same policy and PRM.

    python benchmarks/speed/peers.py
    python benchmarks/speed/peers.py --vllm .venv-vllm/bin/python

its_hub comes from PyPI into an environment of its own (`.venv-its-hub`, made on the first run). Each side is a process
whose CPU is its own; policy tokens are counted by the server. The two trees are alike, not equal: its_hub's `beam_width`
says how many beams are kept, each continued budget/beam_width times, where asearch's `width` says how often a kept one is
continued; its_hub starts with n/width first steps where asearch samples n, never samples again for beams that have
ended, reads no finish_reason, and goes on until every beam has said its answer. So tokens per second stand beside
seconds. The clock of each side runs from its first request to its last answer, which asearch has put to the vote by then.
Every run has embedded servers of its own, so that no cache is warm. With `--vllm` the same checkpoints run on real vLLM
servers (tests/vllm/run.py makes their environment), which take half a minute to start and therefore stay for all runs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import venv
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import measuring

import asearch
from asearch.answers import extract
from asearch.embedded import EmbeddedServers, embedded_problems, embedded_servers
from asearch.problem import SYSTEM_PROMPT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
PEER = "its_hub[lm]==1.2.0"
TEMPERATURE = 0.8


def peer_python(folder: Path) -> Path:
    """The Python of an environment that has its_hub; made if there is none."""
    python = folder / "bin" / "python"
    usable = [str(python), "-c", "import its_hub, aiohttp, backoff"]
    if not python.exists() or subprocess.run(usable, capture_output=True, check=False).returncode:
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", PEER], check=True, capture_output=True)
    return python


@asynccontextmanager
async def vllm_servers(python: str) -> AsyncIterator[EmbeddedServers]:
    """Both checkpoints on real vLLM, for the time of the block."""
    process = await asyncio.create_subprocess_exec(
        python, str(HERE / "vllm_pair.py"), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield EmbeddedServers(**json.loads(await process.stdout.readline()))
    finally:
        process.stdin.close()
        await process.wait()


async def child(python: str, script: str, *options: str, task: dict[str, Any]) -> dict[str, Any]:
    """Run one side and read what it found."""
    process = await asyncio.create_subprocess_exec(
        python, str(HERE / script), *options, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    out, _ = await process.communicate(json.dumps(task).encode())
    if process.returncode:
        raise SystemExit(f"{script} failed with status {process.returncode}")
    return json.loads(out)


async def side(task: dict[str, Any]) -> None:
    """asearch's half: the same task, the same kind of answer."""
    client, prm = asearch.OpenAIClient(task["policy"]), asearch.CausalPRM(task["prm"])
    strategy = asearch.BeamSearch(n=task["n"], width=task["width"], temperature=TEMPERATURE)
    problems = [asearch.Problem(text, id=str(i)) for i, text in enumerate(task["problems"])]
    try:
        await asearch.solve(strategy, client, prm, "What is $1 + 2$?")
        watch = measuring.Stopwatch()
        results = [r async for r in asearch.solve_all(strategy, client, prm, problems, at_once=len(problems))]
        cost = watch.read()
    finally:
        await client.aclose()
        await prm.aclose()
    usage = sum((result.usage for result in results), asearch.Usage())
    found = {
        "wall": cost.wall,
        "cpu": cost.cpu,
        "answers": [result.text or "" for result in results],
        "policy_requests": usage.requests,
        "prm_requests": usage.prm_requests,
        "scored": usage.scored,
        "prm_tokens": usage.prm_tokens,
    }
    print(json.dumps(found))


async def measured(who: str, python: Path, task: dict[str, Any], kept: EmbeddedServers | None) -> dict[str, Any]:
    """One side, with the tokens that the policy's server counted meanwhile (those of the warm-up included)."""
    async with AsyncExitStack() as stack:
        servers = kept or await stack.enter_async_context(embedded_servers())
        client, prm = asearch.OpenAIClient(servers.policy), asearch.CausalPRM(servers.prm)
        for opened in (client, prm):
            stack.push_async_callback(opened.aclose)
            await opened.connect()
        assert prm.family is not None
        told = {
            "policy": servers.policy,
            "prm": servers.prm,
            "policy_model": client.model,
            "prm_model": prm.model,
            "verdicts": prm.verdicts,
            "system": SYSTEM_PROMPT,
            "temperature": TEMPERATURE,
            "head": prm.family.prefixes(asearch.Problem("{problem}"), ["\0"])[0].removesuffix("\0"),
        }
        before = await measuring.counted(servers.policy, "generation_tokens_total")
        command = [sys.executable, "peers.py", "--side"] if who == "asearch" else [python, "its_hub_side.py"]
        found = await child(*map(str, command), task={**task, **told})
        found["policy_tokens"] = await measuring.counted(servers.policy, "generation_tokens_total") - before
    return found


async def right(answers: Sequence[str], references: Sequence[str]) -> int:
    async with asearch.AnswerWorkers() as workers:
        found = [await workers.grade(extract(text), wanted) for text, wanted in zip(answers, references, strict=True)]
    return sum(found)


async def run(arguments: argparse.Namespace) -> None:
    python = peer_python(ROOT / ".venv-its-hub")
    servers = "real vLLM" if arguments.vllm else "embedded servers"
    print(measuring.heading(f"Beside its_hub, {servers}", "aiohttp"))
    rows = []
    async with AsyncExitStack() as stack:
        kept = await stack.enter_async_context(vllm_servers(arguments.vllm)) if arguments.vllm else None
        for count in arguments.problems:
            pairs = await embedded_problems(count, 0)
            for n in arguments.n:
                rows += await compare(python, n, pairs, arguments, kept)
    head = [
        "problems",
        "n",
        "",
        "seconds",
        "policy tokens/s",
        "policy requests",
        "policy tokens",
        "PRM requests",
        "PRM tokens",
        "scores",
    ]
    print(f"Medians of {arguments.rounds} rounds, width {arguments.width}.\n")
    print(measuring.table([*head, "client CPU, s", "right", "its_hub / asearch"], rows))


async def compare(
    python: Path,
    n: int,
    pairs: Sequence[tuple[str, str]],
    arguments: argparse.Namespace,
    kept: EmbeddedServers | None,
) -> list[list[str]]:
    """Two lines of the table: the peer, and asearch."""
    task = {"n": n, "width": arguments.width, "problems": [problem for problem, _ in pairs]}
    runs: dict[str, list[dict[str, Any]]] = {"its_hub": [], "asearch": []}
    for _ in range(arguments.rounds):
        for who, found in runs.items():
            found.append(await measured(who, python, task, kept))
    walls = {who: measuring.median([run["wall"] for run in found]) for who, found in runs.items()}
    ratio = walls["its_hub"] / walls["asearch"]
    return [
        [str(len(pairs)), str(n), *await cells(who, runs[who], pairs), f"{ratio:.1f}" if who == "asearch" else ""]
        for who in runs
    ]


async def cells(who: str, runs: list[dict[str, Any]], pairs: Sequence[tuple[str, str]]) -> list[str]:
    def middle(name: str) -> float:
        return measuring.median([run[name] for run in runs])

    counts = ("policy_requests", "policy_tokens", "prm_requests", "prm_tokens", "scored")
    correct = await right(runs[-1]["answers"], [answer for _, answer in pairs])
    speed = middle("policy_tokens") / middle("wall")
    return [
        who,
        f"{middle('wall'):.2f}",
        f"{speed:,.0f}",
        *(f"{middle(name):,.0f}" for name in counts),
        f"{middle('cpu'):.2f}",
        str(correct),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--n", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--width", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--vllm", metavar="PYTHON", help="the Python of an environment with vLLM: use real servers")
    parser.add_argument("--side", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        asyncio.run(side(json.load(sys.stdin)))
    else:
        asyncio.run(run(arguments))


if __name__ == "__main__":
    main()
