"""asearch beside its_hub 1.2.0: beam search of the same width, on the same servers, with the same policy and PRM.

    python benchmarks/speed/peers.py
    python benchmarks/speed/peers.py --vllm .venv-vllm/bin/python
    python benchmarks/speed/peers.py --servers http://policy:8000 http://prm:8000   # vLLM, see servers.py

its_hub comes from PyPI into an environment of its own (`.venv-its-hub`, made on the first run; --its-hub names another
Python that has it). Each side is a process
whose CPU is its own; policy tokens are counted by the server. The two trees are alike, not equal: its_hub's `beam_width`
says how many beams are kept, each continued budget/beam_width times, where asearch's `width` says how often a kept one is
continued; its_hub starts with n/width first steps where asearch samples n, never samples again for beams that have
ended, reads no finish_reason, and goes on until every beam has said its answer. So tokens per second stand beside
seconds. The clock of each side runs from its first request to its last answer, which asearch has put to the vote by then.
No cache is warm: every run has embedded servers of its own, and the caches of vLLM are emptied before it. With `--vllm` the
same checkpoints run on real vLLM servers (tests/vllm/run.py makes their environment), which stay for all runs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import venv
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import measuring
import servers
from counters import STEPS, WRITTEN, Counts

import asearch
from asearch.answers import extract
from asearch.embedded import embedded_problems
from asearch.problem import SYSTEM_PROMPT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from servers import Fresh, Kept

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
PEER = "its_hub[lm]==1.2.0"
TEMPERATURE = 0.8


def peer_python(folder: Path) -> Path:
    """The Python of an environment that has its_hub; made if there is none."""
    python = folder / "bin" / "python"
    if not python.exists() or lacks(python):
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", PEER], check=True, capture_output=True)
    return python


def lacks(python: Path) -> str:
    """What a Python says when it has no its_hub; nothing if it has."""
    try:
        tried = subprocess.run(
            [str(python), "-c", "import its_hub, aiohttp, backoff"], capture_output=True, text=True, check=False
        )
    except OSError as failure:
        return str(failure)
    return (tried.stderr.strip() or f"status {tried.returncode}") if tried.returncode else ""


def usable(python: Path) -> Path:
    """A Python that is there; PYTHONPATH reaches it."""
    if why := lacks(python):
        raise SystemExit(f"{python} cannot import its_hub, aiohttp and backoff: {why.splitlines()[-1]}")
    return python


def peer_version(python: Path) -> str:
    """The version of its_hub there; nothing where it is on the path, but not installed."""
    command = [str(python), "-c", "from importlib.metadata import version; print(version('its_hub'))"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


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
    client, prm = servers.policy_client(task["policy"], seeds=task["seeds"]), asearch.CausalPRM(task["prm"])
    strategy = asearch.BeamSearch(n=task["n"], width=task["width"], temperature=TEMPERATURE)
    problems = [asearch.Problem(text, id=str(i)) for i, text in enumerate(task["problems"])]
    counts = Counts(task["policy"], WRITTEN, STEPS)
    try:
        await asearch.solve(strategy, client, prm, "What is $1 + 2$?")
        await counts.begin()
        watch = measuring.Stopwatch()
        results = [r async for r in asearch.solve_all(strategy, client, prm, problems, at_once=len(problems))]
        cost = watch.read()
        tokens, steps = await counts.read()
    finally:
        await client.aclose()
        await prm.aclose()
    usage = sum((result.usage for result in results), asearch.Usage())
    found = {
        "wall": cost.wall,
        "cpu": cost.cpu,
        "answers": [result.text or "" for result in results],
        "policy_tokens": tokens,
        "steps": steps,
        "policy_requests": usage.requests,
        "prm_requests": usage.prm_requests,
        "scored": usage.scored,
        "prm_tokens": usage.prm_tokens,
    }
    print(json.dumps(found))


async def measured(who: str, python: Path, task: dict[str, Any], on: Fresh | Kept) -> dict[str, Any]:
    """One side, on servers with empty caches."""
    async with AsyncExitStack() as stack:
        pair = await stack.enter_async_context(on.pair())
        client, prm = asearch.OpenAIClient(pair.policy), asearch.CausalPRM(pair.prm)
        for opened in (client, prm):
            stack.push_async_callback(opened.aclose)
            await opened.connect()
        assert prm.family is not None
        told = {
            "policy": pair.policy,
            "prm": pair.prm,
            "policy_model": client.model,
            "prm_model": prm.model,
            "verdicts": prm.verdicts,
            "system": SYSTEM_PROMPT,
            "temperature": TEMPERATURE,
            "head": prm.family.prefixes(asearch.Problem("{problem}"), ["\0"])[0].removesuffix("\0"),
        }
        command = [sys.executable, "peers.py", "--side"] if who == "asearch" else [python, "its_hub_side.py"]
        return await child(*map(str, command), task={**task, **told})


async def right(answers: Sequence[str], references: Sequence[str]) -> int:
    async with asearch.AnswerWorkers() as workers:
        found = [await workers.grade(extract(text), wanted) for text, wanted in zip(answers, references, strict=True)]
    return sum(found)


HEAD = (
    "problems",
    "n",
    "",
    "seconds",
    "policy tokens/s",
    "policy requests",
    "policy tokens",
    "engine steps",
    "tokens per engine step",
    "PRM requests",
    "PRM tokens",
    "scores",
    "client CPU, s",
    "right",
    "its_hub / asearch",
)


async def run(arguments: argparse.Namespace) -> None:
    python = usable(Path(arguments.its_hub)) if arguments.its_hub else peer_python(ROOT / ".venv-its-hub")
    async with servers.chosen(arguments) as on:
        seeds = servers.seeded(arguments, on)
        print(measuring.heading(f"Beside its_hub {peer_version(python)}".strip(), "aiohttp", servers=on.name))
        said = "have seeds, its_hub's have none" if seeds else "have no seeds, as its_hub's have none"
        print(f"Medians of {arguments.rounds} rounds, width {arguments.width}; asearch's requests {said}.\n")
        await measuring.show(HEAD, rows_of(on, python, arguments, seeds=seeds))


async def rows_of(
    on: Fresh | Kept, python: Path, arguments: argparse.Namespace, *, seeds: bool
) -> AsyncIterator[list[str]]:
    """The table, two lines for each size."""
    for count in arguments.problems:
        pairs = await embedded_problems(count, 0)
        for n in arguments.n:
            task = {"n": n, "width": arguments.width, "problems": [problem for problem, _ in pairs], "seeds": seeds}
            for row in await compare(on, python, task, [answer for _, answer in pairs], arguments.rounds):
                yield row


async def compare(
    on: Fresh | Kept, python: Path, task: dict[str, Any], answers: Sequence[str], rounds: int
) -> list[list[str]]:
    """Two lines of the table: the peer, and asearch."""
    runs: dict[str, list[dict[str, Any]]] = {"its_hub": [], "asearch": []}
    for _ in range(rounds):
        for who, found in runs.items():
            found.append(await measured(who, python, task, on))
    walls = {who: measuring.median([run["wall"] for run in found]) for who, found in runs.items()}
    ratio = f"{walls['its_hub'] / walls['asearch']:.1f}"
    return [
        [str(len(answers)), str(task["n"]), *await cells(who, found, answers), ratio if who == "asearch" else ""]
        for who, found in runs.items()
    ]


async def cells(who: str, runs: list[dict[str, Any]], answers: Sequence[str]) -> list[str]:
    def middle(name: str) -> float:
        return measuring.median([run[name] for run in runs])

    tokens, steps = middle("policy_tokens"), middle("steps")
    correct = await right(runs[-1]["answers"], answers)
    return [
        who,
        f"{middle('wall'):.2f}",
        f"{tokens / middle('wall'):,.0f}",
        f"{middle('policy_requests'):,.0f}",
        f"{tokens:,.0f}",
        f"{steps:,.0f}",
        f"{tokens / steps:.0f}",
        *(f"{middle(name):,.0f}" for name in ("prm_requests", "prm_tokens", "scored")),
        f"{middle('cpu'):.2f}",
        str(correct),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--n", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--width", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--its-hub", metavar="PYTHON", help="a Python that can import its_hub, aiohttp and backoff")
    servers.add_arguments(parser)
    servers.add_seeds_argument(parser)
    parser.add_argument("--side", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        asyncio.run(side(json.load(sys.stdin)))
    else:
        asyncio.run(run(arguments))


if __name__ == "__main__":
    main()
