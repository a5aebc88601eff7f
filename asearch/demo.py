"""The demo: held-out problems, every strategy, the embedded servers; a table, a tree and a picture at the end."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from asearch.calls import solve_all
from asearch.client import OpenAIClient
from asearch.display import progress_bars, search_tree, strategy_table
from asearch.embedded import embedded_problems, embedded_servers
from asearch.errors import AsearchError
from asearch.plots import plot_accuracy
from asearch.problem import Problem
from asearch.strategies import DVTS, BeamSearch, BestOfN, Greedy, Majority, Strategy
from asearch.usage import Usage
from asearch.workers import AnswerWorkers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from rich.console import Console

    from asearch.result import Result

AT_ONCE = 8  # problems searched at the same time: enough to keep both servers busy, and few enough that results flow
BUDGETS = (1, 4, 16, 64, 256)


@dataclass(slots=True)
class Row:
    """One strategy over all problems: the finished searches, and the time they took together."""

    label: str
    strategy: Strategy
    results: dict[int, Result] = field(default_factory=dict)
    right: dict[int, bool] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def accuracy(self) -> float:
        return sum(self.right.values()) / max(1, len(self.right))

    @property
    def usage(self) -> Usage:
        return sum((result.usage for result in self.results.values()), Usage())


@dataclass(slots=True)
class Bench:
    """What the strategies of a run share: the servers, the problems with their answers, the answer workers."""

    client: OpenAIClient
    prm_url: str
    workers: AnswerWorkers
    problems: Sequence[tuple[str, str]]
    seed: int

    async def run(self, row: Row, on_result: Callable[[], None]) -> None:
        """Search all problems with one strategy, several at once.

        Each strategy has a verifier of its own: one that remembers what another strategy had scored would make it look
        cheaper than it is.

        Raises:
            AsearchError: a search failed, which the embedded servers give no reason for.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        verifier = self.prm_url if row.strategy.needs_prm else None
        problems = [Problem(text, id=str(i)) for i, (text, _) in enumerate(self.problems)]
        results = solve_all(
            row.strategy, self.client, verifier, problems, at_once=AT_ONCE, seed=self.seed, workers=self.workers
        )
        async with aclosing(results):
            async for result in results:
                if result.stopped_by == "error":
                    raise AsearchError(f"{row.label} failed at a problem: {result.errors[0]}")
                i = len(row.results)  # they come in order
                row.right[i] = await self.right(result, i)
                row.results[i] = result
                row.seconds = loop.time() - began
                on_result()

    async def right(self, result: Result, i: int) -> bool:
        return await self.workers.grade(result.answer, self.problems[i][1])

    async def accuracy_at(self, row: Row, n: int) -> float:
        """What the first n candidates of each finished search would have reached."""
        verdicts = [await self.right(result.at(n), i) for i, result in row.results.items()]
        return sum(verdicts) / max(1, len(verdicts))


class Demo:
    """Runs the strategies one after another over the same problems, and keeps what is finished.

    Args:
        n: the budget.
        problems: how many held-out problems.
        seed: of the problems and of all searches.
        picture: where the curve goes.
        console: where to show what happens.
    """

    def __init__(self, *, n: int, problems: int, seed: int, picture: Path, console: Console) -> None:
        self.n, self.problems, self.seed = n, problems, seed
        self.picture = picture
        self.console = console
        self.curves: dict[str, dict[int, float]] = {}
        self.rows = [
            Row("greedy", Greedy()),
            Row("majority", Majority(n=n, early_stop=False)),
            Row("best-of-N, weighted", BestOfN(n=n, early_stop=False)),
            Row("beam search", BeamSearch(n=n)),
            Row("DVTS", DVTS(n=n)),
        ]
        for row in self.rows:
            row.strategy.check()

    async def run(self) -> None:
        """The whole demo, with the embedded servers of its own."""
        async with AnswerWorkers() as workers, embedded_servers() as servers:
            problems = await embedded_problems(self.problems, self.seed)
            self.console.print(f"{len(problems)} held-out problems such as: {problems[0][0]}", markup=False)
            await workers.grade(r"\frac{1}{2}", "0.5")  # so that no strategy pays for their start
            client = OpenAIClient(servers.policy)
            bench = Bench(client, servers.prm, workers, problems, self.seed)
            try:
                smaller = [Row(f"beam search, N={n}", BeamSearch(n=n)) for n in BUDGETS[1:] if n < self.n]
                await self._run_rows(bench, [*self.rows, *smaller])
                self.curves = await self._curves(bench, smaller)
            finally:
                await client.aclose()
        plot_accuracy(
            self.picture,
            self.curves,
            baselines={"greedy": self.rows[0].accuracy},
            title=f"asearch demo: embedded models, {self.problems} held-out problems",
        )

    async def _run_rows(self, bench: Bench, rows: Iterable[Row]) -> None:
        with progress_bars(self.console) as bars:
            for row in rows:
                task = bars.add_task(row.label, total=self.problems, note="")

                def show(row: Row = row, task: int = task) -> None:
                    note = f"accuracy {100 * row.accuracy:3.0f} %  {row.usage.tokens:>9,} tokens"
                    bars.update(task, advance=1, note=note)  # type: ignore[arg-type]

                await bench.run(row, show)

    async def _curves(self, bench: Bench, smaller: Sequence[Row]) -> dict[str, dict[int, float]]:
        """Accuracy by N: samples and subtrees are sub-sampled, as in the article; beam search is run per budget."""
        budgets = sorted({*(n for n in BUDGETS if n < self.n), self.n})
        _, majority, best, beam, dvts = self.rows
        curves = {row.label: {n: await bench.accuracy_at(row, n) for n in budgets} for row in (majority, best)}
        curves[beam.label] = {row.strategy.n: row.accuracy for row in (*smaller, beam)}
        curves[dvts.label] = {n: await bench.accuracy_at(dvts, n) for n in budgets if n % 4 == 0}
        return curves

    def report(self) -> None:
        """Whatever is finished: the table, one solved problem as a tree, and where the picture is."""
        done = [row for row in self.rows if row.results]
        if not done:
            return
        self.console.print()
        self.console.print(strategy_table(done, self.n))
        shown = showpiece(self.rows)
        if shown is not None:
            self.console.print(f"\n{shown.problem.text}", markup=False, highlight=False)
            self.console.print(search_tree(shown, width=self.console.width - 24, whole=False), highlight=False)
        if self.curves:
            self.console.print(f"\naccuracy against N: {self.picture}", markup=False, soft_wrap=True)


def showpiece(rows: Sequence[Row]) -> Result | None:
    """A problem that greedy decoding got wrong and DVTS (or beam search) got right, with the smallest tree."""
    greedy, *_, beam, dvts = rows
    won = [
        row.results[i]
        for row in (dvts, beam)
        for i, right in row.right.items()
        if right and not greedy.right.get(i, False)
    ]
    solved = won or [row.results[i] for row in (dvts, beam) for i, right in row.right.items() if right]
    return min(solved, key=lambda result: len(result.tree), default=None)
