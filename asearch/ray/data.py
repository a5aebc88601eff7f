"""A stage of a Ray Data pipeline: rows with problems in, the same rows with solutions out.

    import ray, asearch.ray

    problems = ray.data.read_parquet("problems/")
    solved = asearch.ray.map_problems(problems, asearch.BestOfN(n=16), policy="http://policy:8000", prm="http://prm:8001")
    solved.write_parquet("solutions/")

Ray Data streams: it reads as much ahead as there is room for, and results are written while others are searched.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from asearch.calls import as_strategy, open_servers, ready, solve
from asearch.client import as_client
from asearch.concurrency import together
from asearch.errors import AsearchError, UsageError
from asearch.evaluation.searcher import Model, Models
from asearch.prm import as_prm
from asearch.problem import SYSTEM_PROMPT, Problem
from asearch.ray.engine import shares
from asearch.workers import AnswerWorkers

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence

    from pyarrow import Table

    from asearch.result import Result
    from asearch.strategies import Strategy
    from asearch.usage import Budget

# What a row gains; `error` is null where the search came to its end. Types are said, and not read off the values: a batch in
# which a column is all null must fit the others.
ADDED = {
    "prediction": "string",
    "completion": "string",
    "score": "float64",
    "policy_tokens": "int64",
    "prm_tokens": "int64",
    "seconds": "float64",
    "error": "string",
}
CANDIDATES = ("completions", "scores", "answers")


def map_problems(
    dataset: Any,
    strategy: Strategy | str,
    *,
    policy: Any,
    prm: Any = None,
    problem_column: str = "problem",
    id_column: str | None = None,
    candidates: bool = False,
    workers: int = 1,
    at_once: int = 8,
    seed: int = 0,
    budget: Budget | None = None,
    system: str | None = SYSTEM_PROMPT,
    cpus: float = 1.0,
) -> Any:
    """Search for the answers to the problems of a `ray.data.Dataset`; returns a dataset with further columns.

    The columns that are there stay; added are `prediction` (the answer, null if there is none), `completion` (the winning
    solution), `score`, `policy_tokens`, `prm_tokens`, `seconds` and `error` (null unless the search came to nothing); with
    `candidates` also `completions`, `answers` and `scores` (a list of step scores each). Rows come in any order. A problem
    that fails does not stop the others.

    Args:
        dataset: rows with a problem each.
        strategy: as for `asearch.solve`.
        policy: the policy's URL, or several.
        prm: the verifier's; None where the strategy needs none.
        problem_column: where the problem is.
        id_column: where its name is; equal problems with different names are different searches.
        candidates: all solutions with their step scores, and not only the winner.
        workers: processes that search.
        at_once: problems under way in each.
        seed: of all searches.
        budget: of each search.
        system: the system prompt; None sends none.
        cpus: that a worker takes up in Ray's accounts.

    Raises:
        UsageError: the call is wrong; nothing was started.
    """
    chosen = ready(as_strategy(strategy), prm)
    if workers < 1 or at_once < 1:
        raise UsageError(f"workers and at_once must be at least 1, not {workers} and {at_once}")
    models = shares(Models(Model(policy), None if prm is None else Model(prm)), workers)
    settings = {
        "strategy": chosen,
        "models": models,
        "columns": (problem_column, id_column),
        "candidates": candidates,
        "system": system,
        "options": {"seed": seed, "budget": budget},
    }
    return dataset.map_batches(
        Solver,
        fn_constructor_kwargs=settings,
        batch_size=at_once,
        batch_format="pyarrow",
        concurrency=workers,
        num_cpus=cpus,
    )


class Solver:
    """Searches the problems of one batch after another; what Ray Data keeps in each of its actors.

    Args:
        strategy: how to search.
        models: the servers.
        columns: where the problem and its id are.
        candidates: hand out all solutions.
        system: the system prompt.
        options: further arguments of `solve`.
    """

    def __init__(
        self,
        *,
        strategy: Strategy,
        models: Models,
        columns: tuple[str, str | None],
        candidates: bool,
        system: str | None,
        options: dict[str, Any],
    ) -> None:
        self.strategy = strategy
        self.models = models
        self.problem_column, self.id_column = columns
        self.candidates = candidates
        self.system = system
        self.options = options
        self._workers = AnswerWorkers()
        self._stack = AsyncExitStack()
        self._servers: asyncio.Task[tuple[Any, Any]] | None = None

    async def __call__(self, batch: Table) -> AsyncGenerator[Table, None]:
        """The batch with its new columns. Several batches are under way at a time, so that none waits for a straggler."""
        for name in (self.problem_column, self.id_column):
            if name is not None and name not in batch.column_names:
                raise UsageError(f"the dataset has no column {name!r}; it has {', '.join(batch.column_names)}")
        if self._servers is None:
            self._servers = asyncio.ensure_future(self._open())
        client, prm = await asyncio.shield(self._servers)
        texts = batch.column(self.problem_column).to_pylist()
        ids = [""] * len(texts) if self.id_column is None else batch.column(self.id_column).to_pylist()
        problems = zip(texts, ids, strict=True)
        yield added(batch, await together(self._row(client, prm, text, str(name)) for text, name in problems))

    async def _open(self) -> tuple[Any, Any]:
        policy, prm = self.models.policy, self.models.prm
        client = as_client(policy.server, **policy.options)
        verifier = None if prm is None else as_prm(prm.server, **prm.options)
        return await open_servers(self._stack, self.strategy, client, verifier)

    async def _row(self, client: Any, prm: Any, text: Any, name: str) -> dict[str, Any]:
        try:
            problem = Problem("" if text is None else str(text), system=self.system, id=name)
            result = await solve(self.strategy, client, prm, problem, workers=self._workers, **self.options)
        except AsearchError as failure:
            empty = dict.fromkeys(ADDED) | {"policy_tokens": 0, "prm_tokens": 0, "seconds": 0.0, "error": str(failure)}
            return empty | ({name: [] for name in CANDIDATES} if self.candidates else {})
        return self._columns(result)

    def _columns(self, result: Result) -> dict[str, Any]:
        row: dict[str, Any] = {
            "prediction": result.answer,
            "completion": result.text,
            "score": result.score,
            "policy_tokens": result.usage.policy_tokens,
            "prm_tokens": result.usage.prm_tokens,
            "seconds": result.usage.seconds,
            "error": None,
        }
        if self.candidates:
            row |= {
                "completions": [path.text for path in result.paths],
                "scores": [list(path.scores) for path in result.paths],
                "answers": list(result.answers),
            }
        return row


def added(batch: Table, rows: Sequence[Mapping[str, Any]]) -> Table:
    """A table with further columns, in the types that they have whatever their values.

    A column that is there already is replaced: it was made by an earlier stage of this kind.
    """
    import pyarrow as pa

    strings, lists = pa.list_(pa.string()), pa.list_(pa.list_(pa.float64()))
    kinds = {name: getattr(pa, kind)() for name, kind in ADDED.items()}
    kinds |= {"completions": strings, "answers": strings, "scores": lists}
    for name in rows[0] if rows else ():
        if name in batch.column_names:
            batch = batch.drop_columns([name])
        batch = batch.append_column(name, pa.array([row[name] for row in rows], kinds[name]))
    return batch
