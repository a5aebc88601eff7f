"""`await asearch.evaluate(...)`: strategies x budgets x seeds over a dataset, into a folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from asearch.errors import UsageError
from asearch.evaluation.datasets import Dataset, Source, as_dataset, load_dataset
from asearch.evaluation.entries import Choice, entries_of
from asearch.evaluation.run import Engine, Plan, Run, Watcher, check_at_once, run
from asearch.evaluation.searcher import Job, Model, Models
from asearch.problem import SYSTEM_PROMPT
from asearch.strategies import Strategy

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from asearch.workers import AnswerWorkers


async def evaluate(
    dataset: str | Path | Source | Iterable[Any],
    client: Any,
    prm: Any,
    strategies: Sequence[str | Strategy | tuple[str, Strategy]],
    *,
    out: str | Path,
    budgets: Sequence[int] = (1, 4, 16, 64),
    seeds: int | Sequence[int] = 5,
    seeds_at: Mapping[int, int] | None = None,
    baseline: Any = None,
    system: str | None = SYSTEM_PROMPT,
    pattern: str | None = None,
    tree: bool = True,
    at_once: int | None = None,
    keep_errors: bool = False,
    watch: Watcher | None = None,
    workers: AnswerWorkers | None = None,
    engine: Engine | None = None,
) -> Run:
    """Evaluate strategies on a dataset, and keep a record of every search.

    The same call goes on where it was stopped: what is in the folder's log is not run again. Strategies whose candidates
    do not depend on each other are run once, at the largest budget, and counted at the smaller ones, too.

    Args:
        dataset: (problem, answer) pairs, mappings or `Question` values; or a file, a dataset on the Hugging Face hub, or
            "embedded", by name or as a `Source` that says which part and which columns.
        client: the policy, as for `solve`.
        prm: the verifier, as for `solve`; None where no strategy needs one. One given by its URL is opened anew for each
            strategy and seed, so that none profits from what another had scored.
        strategies: names, or strategy values (whose n is their only budget), or pairs of a label and such a value.
        out: the folder of the run.
        budgets: values of n.
        seeds: how many (counted from 0), or which.
        seeds_at: by budget, how many of the seeds are enough there.
        baseline: a larger policy, whose greedy solutions are a baseline.
        system: the system prompt; None sends none.
        pattern: how to find the answer in a solution, as for `solve`.
        tree: keep the explored steps of strategies that grow step by step.
        at_once: problems under way at the same time; None: as many as the policy has room for.
        keep_errors: write down searches that came to nothing, instead of trying them again the next time.
        watch: is told of each finished search.
        workers: processes that read answers.
        engine: how searches are carried out; None: in this process.

    Raises:
        UsageError: the call is wrong, or the folder holds another run.
        EndpointError: a server cannot be used.
        RunFailed: the folder cannot be written to, or search after search failed; what was finished is in the log.
    """
    choices = [_choice(strategy) for strategy in strategies]
    entries = entries_of(
        choices,
        list(budgets),
        list(range(seeds)) if isinstance(seeds, int) else list(seeds),
        verifier=prm is not None,
        baseline=baseline is not None,
        seeds_at=seeds_at,
    )
    models = Models(Model(client), None if prm is None else Model(prm), None if baseline is None else Model(baseline))
    job = Job(models, tuple(entries), system, pattern, tree, check_at_once(at_once))
    everywhere = {*budgets, *(n for choice in choices for n in choice.budgets or ())}
    plan = Plan(await _loaded(dataset), job, tuple(sorted(everywhere)), Path(out), keep_errors)
    return await run(plan, engine=engine, watch=watch, workers=workers)


async def _loaded(dataset: str | Path | Source | Iterable[Any]) -> Dataset:
    if isinstance(dataset, str | Path):
        return await load_dataset(Source(str(dataset)))
    return await load_dataset(dataset) if isinstance(dataset, Source) else as_dataset(dataset)


def _choice(strategy: str | Strategy | tuple[str, Strategy]) -> Choice:
    """A strategy by its name, or as it is: then with all its options, and its n as its budget."""
    if isinstance(strategy, str):
        return Choice(strategy, {})
    label, value = strategy if isinstance(strategy, tuple) and len(strategy) == 2 else (None, strategy)
    if not isinstance(value, Strategy):
        raise UsageError(f"expected a strategy or the name of one, not {type(value).__name__}")
    return Choice(value.name, {}, label, (value.n,), value)
