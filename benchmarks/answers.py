"""How fast answers are read and grouped, and whether the event loop stays free: one run, medians, printed as Markdown.

    python benchmarks/answers.py [path/to/math500.jsonl]

Beside ours, in the same run on the same inputs: the reference's way (every answer through latex2sympy, simplify and back
to LaTeX, one after the other) and pairwise comparison by math-verify (each candidate against one of each group so far).
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from asearch.answers import fast_form
from asearch.workers import AnswerWorkers

if TYPE_CHECKING:
    from collections.abc import Awaitable

DATA = Path(os.environ.get("ASEARCH_DATA", Path(__file__).parents[2] / "shared" / "data")) / "math500.jsonl"
CANDIDATES, DISTINCT, PROBLEMS, RUNS = 256, 26, 30, 5
HOSTILE = (
    r"9^{9^{9^{%d}}}", r"\frac{%d}{0}", "((((%d!)!)!)!)!", "%d0000000!", "__import__('os').system('touch hacked%d')",
    r"\text{__import__('os').getenv('%d')}", "x_{__import__('os').getpid()%d}", "\ud800\udfff%d", "$$$%d$", "%de99999999",
    "10^{99999%d}", "(x+y+z+w)^{20%d}", r"\operatorname{eval}(%d)", "-" * 1900 + "%d", "½" * 1900 + "%d", r"\pm" * 600 + "%d",
    "|" * 300 + "%d", "1," * 900 + "%d", "9" * 1900 + "%d", r"\begin{pmatrix}" + "1&" * 900 + r"%d\end{pmatrix}",
    "{" * 10_000 + "%d" + "}" * 10_000, "1+" * 50_000 + "%d", "word " * 20_000 + "%d", r"\boxed{" * 14_000 + "%d",
    r"\frac" * 390 + "%d", "x<" * 190 + "%d",
)  # fmt: skip
ENDLESS = r"\binom{%d00000000}{500000000}"


def problems(rows: list[dict[str, str]]) -> list[list[str]]:
    """256 candidates for each of some problems: the right answer in four spellings, and wrong answers of the same kind (the
    right answers of other problems of its subject and kind), with frequencies that fall off like 1/rank.
    """
    rng = random.Random(0)
    found = []
    for row in rng.sample(rows, PROBLEMS):
        answer, symbolic = row["answer"], fast_form(row["answer"]) is None
        others = [r["answer"] for r in rows if (fast_form(r["answer"]) is None) == symbolic and r["answer"] != answer]
        spellings = [answer, f" {answer}.", answer.replace(r"\frac", r"\dfrac") + " ", f"x = {answer}"]
        distinct = spellings + rng.sample(sorted(set(others)), DISTINCT - len(spellings))
        weights = [1 / rank for rank in range(1, DISTINCT + 1)]
        candidates = distinct + rng.choices(distinct, weights, k=CANDIDATES - DISTINCT)
        rng.shuffle(candidates)
        found.append(candidates)
    return found


async def timed(awaitable: Awaitable[object]) -> float:
    began = time.perf_counter()
    await awaitable
    return time.perf_counter() - began


async def read_all(answers: list[str]) -> tuple[float, float]:
    """Seconds for all answers, cold (processes started, nothing known) and memoised; medians of some pools."""
    cold, known = [], []
    for _ in range(RUNS):
        async with AnswerWorkers(2) as workers:
            await asyncio.gather(*(workers.canonical(f"x+{i}") for i in range(8)))
            cold.append(await timed(workers.group(answers)))
            known.append(await timed(workers.group(answers)))
    return statistics.median(cold), statistics.median(known)


async def group_all(sets: list[list[str]]) -> list[float]:
    """Seconds per problem: processes run, but none of the answers has been seen."""
    async with AnswerWorkers(2) as workers:
        await asyncio.gather(*(workers.canonical(rf"\sqrt{{{i}}}x+\frac{{\pi}}{{{i}}}") for i in range(2, 40)))
        return [await timed(workers.group(candidates)) for candidates in sets]


def reference_way(answers: list[str]) -> tuple[float, int]:
    """Seconds to simplify every form, as search-and-learn does (without its timeouts, which need signals), and failures."""
    import sympy
    from latex2sympy2_extended import latex2sympy

    failed, began = 0, time.perf_counter()
    for answer in answers:
        try:
            sympy.latex(sympy.simplify(latex2sympy(answer)))
        except Exception:  # noqa: BLE001 - it keeps the string then
            failed += 1
    return time.perf_counter() - began, failed


def pairwise_way(candidates: list[str]) -> float:
    """Seconds to group by math-verify: each candidate against the first of each group so far, each text parsed once."""
    from math_verify import LatexExtractionConfig, parse, verify

    began = time.perf_counter()
    parsed = {
        text: parse(f"${text}$", (LatexExtractionConfig(),), parsing_timeout=None) for text in dict.fromkeys(candidates)
    }
    groups: list[str] = []
    for text in candidates:
        if not any(verify(parsed[first], parsed[text], timeout_seconds=None) for first in groups):
            groups.append(text)
    return time.perf_counter() - began


async def stalls() -> None:
    """The longest time for which the event loop was held while 1,000 hostile answers were read.

    By the clock of the machine and by the loop's own CPU time, which other programs on the machine do not lengthen.
    """
    texts = [HOSTILE[i % len(HOSTILE)] % i for i in range(996)] + [ENDLESS % i for i in range(11, 15)]
    gaps: list[tuple[float, float]] = []

    async def heartbeat() -> None:
        wall, own = time.perf_counter(), time.thread_time()
        while True:
            await asyncio.sleep(0.001)
            now, used = time.perf_counter(), time.thread_time()
            gaps.append((now - wall - 0.001, used - own))
            wall, own = now, used

    async with AnswerWorkers(2, deadline=1.0) as workers:
        await workers.canonical("x+1")
        beat = asyncio.create_task(heartbeat())
        await asyncio.sleep(1.0)
        idle = max(gap for gap, _ in gaps)
        gaps.clear()
        took = await timed(workers.group(texts))
        beat.cancel()
        wall, own = (max(values) for values in zip(*gaps, strict=True))
        print("\n| 1,000 hostile answers | |\n|---|---|")
        print(f"| longest stall of the loop, CPU time | {own * 1e3:.1f} ms |")
        print(f"| longest stall, by the clock (idle, before: {idle * 1e3:.1f} ms) | {wall * 1e3:.1f} ms |")
        print(f"| all of them (two processes, deadline 1 s) | {took:.1f} s |")
        print(f"| kills, deaths, replacements, failures | {workers.stats.kills}, {workers.stats.deaths}, "
              f"{workers.stats.replacements}, {workers.stats.failures} |")  # fmt: skip


def main() -> None:
    if sys.argv[1:] == ["--stalls"]:
        asyncio.run(stalls())
        return
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else DATA
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    answers = [row["answer"] for row in rows]
    print(f"{platform.machine()}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}, Python {platform.python_version()}, "
          + ", ".join(f"{name} {version(name)}" for name in ("sympy", "latex2sympy2_extended", "math-verify")))  # fmt: skip

    cold, known = asyncio.run(read_all(answers))
    reference, failed = reference_way(answers)
    print("\n| MATH-500 answers | per second | against the reference |\n|---|---|---|")
    print(f"| ours, cold | {len(answers) / cold:,.0f} | {reference / cold:,.1f} x |")
    print(f"| ours, memoised | {len(answers) / known:,.0f} | {reference / known:,.0f} x |")
    print(f"| the reference's way ({failed} not parsed) | {len(answers) / reference:,.0f} | 1 |")

    sets = problems(rows)
    ours = asyncio.run(group_all(sets))
    theirs = [pairwise_way(candidates) for candidates in sets[:10]]
    symbolic = [
        seconds for seconds, candidates in zip(ours, sets, strict=True) if any(fast_form(c) is None for c in candidates)
    ]
    plain = [
        seconds
        for seconds, candidates in zip(ours, sets, strict=True)
        if all(fast_form(c) is not None for c in candidates)
    ]
    print(f"\n| {CANDIDATES} candidates, {DISTINCT} different texts | median |\n|---|---|")
    print(f"| ours, {PROBLEMS} problems | {statistics.median(ours) * 1e3:.1f} ms |")
    for name, part in (("numbers and words", plain), ("expressions", symbolic)):
        if part:
            print(f"| of these {len(part)} with {name} only | {statistics.median(part) * 1e3:.1f} ms |")
    print(f"| pairwise math-verify, {len(theirs)} of them | {statistics.median(theirs) * 1e3:,.0f} ms |")
    print(
        f"| ratio on these {len(theirs)} | {statistics.median(t / o for t, o in zip(theirs, ours, strict=False)):,.0f} x |"
    )

    subprocess.run([sys.executable, __file__, "--stalls"], check=True)  # a process like a user's: without sympy


if __name__ == "__main__":
    main()
