"""`asearch eval`: strategies x budgets x seeds over a dataset, into a folder that the same command goes on with."""

from __future__ import annotations

import sys
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
from rich.console import Console

from asearch.cli.options import add_servers, run_async
from asearch.embedded import embedded_server, embedded_servers
from asearch.errors import UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import AsyncIterator

    from asearch.evaluation.recipe import Recipe
    from asearch.evaluation.run import Engine, Run
    from asearch.evaluation.searcher import Models

NAME = "eval"
HELP = "strategies x budgets x seeds over a dataset; the same command goes on where it was stopped"
SHARED = ("temperature", "top_p", "max_tokens", "width", "depth", "reduction")
COLUMNS = ("problem", "answer", "id", "level", "subject", "solution")
FAILURES_SHOWN = 3


def add_arguments(command: argparse.ArgumentParser) -> None:
    """The dataset, the servers, the strategies, the folder."""
    command.add_argument(
        "dataset",
        nargs="?",
        help="a JSONL, JSON, CSV or Parquet file, the id of a dataset on the Hugging Face hub, or 'embedded'",
    )
    command.add_argument("--config", type=Path, metavar="FILE", help="a recipe (YAML); flags are laid over it")
    command.add_argument("--out", metavar="DIR", help="the folder of the run (runs/<dataset>)")
    _add_dataset(command)
    add_servers(command)
    command.add_argument("--baseline-policy", metavar="URL", help="a larger policy, or 'embedded': greedy baseline")
    command.add_argument("--baseline-model", metavar="NAME", help="its served model name (the server's first)")
    _add_search(command)
    command.add_argument(
        "--at-once", type=int, help="problems under way at the same time (as many as the policy has room for)"
    )
    command.add_argument(
        "--engine", choices=("local", "ray"), help="search in this process, or on a Ray cluster (local)"
    )
    command.add_argument("--workers", type=int, metavar="K", help="processes on the cluster, --at-once problems each")
    command.add_argument("--ray-address", metavar="HOST:PORT", help="of the cluster (RAY_ADDRESS, or one started here)")
    command.add_argument("--no-tree", action="store_true", help="do not keep the explored steps of tree searches")
    command.add_argument("--keep-errors", action="store_true", help="log searches that came to nothing; no new try")
    command.add_argument("--json", action="store_true", help="the table as JSON")


def _add_dataset(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("dataset")
    group.add_argument("--split", help="of a dataset on the hub (its only one, or test)")
    group.add_argument("--subset", help="of a dataset on the hub that has several")
    group.add_argument("--limit", type=int, help="at most so many problems (embedded: 100)")
    group.add_argument("--offset", type=int, help="leave out so many from the beginning")
    group.add_argument("--levels", nargs="+", metavar="LEVEL", help="problems of these levels only")
    group.add_argument("--dataset-seed", type=int, help="of embedded problems (0)")
    for role in COLUMNS:
        group.add_argument(f"--{role}-column", metavar="NAME", help=f"where the {role} is, if not where usual")


def _add_search(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("search")
    group.add_argument(
        "--strategies",
        nargs="+",
        metavar="NAME[:OPTION=VALUE,...]",
        help="such as best-of-n or beam-search:lookahead=1 (greedy majority best-of-n beam-search dvts)",
    )
    group.add_argument("-n", "--budgets", type=int, nargs="+", metavar="N", help="budgets (1 4 16 64)")
    group.add_argument("--seeds", type=int, nargs="+", metavar="S", help="how many, or, if several numbers, which (5)")
    group.add_argument("--seeds-at", nargs="+", metavar="N=S", help="fewer seeds at a budget, such as 256=2")
    group.add_argument("--temperature", type=float, help="of the policy (0.8); here and below: all but greedy")
    group.add_argument("--top-p", type=float, help="of the policy (1.0)")
    group.add_argument("--max-tokens", type=int, help="for one solution (2048)")
    group.add_argument("--width", type=int, help="continuations of a kept path (4)")
    group.add_argument("--depth", type=int, help="steps at most (40)")
    group.add_argument("--reduction", help="step scores to one value: last, min, prod, mean (last)")
    group.add_argument("--system-prompt", type=Path, metavar="FILE", help="a text file, instead of the usual prompt")
    group.add_argument("--pattern", metavar="REGEX", help="how to find the answer in a solution")


def run(arguments: argparse.Namespace) -> int:
    """Run what is not in the folder yet, and show the table; status 1 where something is left to do."""
    try:
        from asearch.evaluation.recipe import checked, read_recipe
    except ImportError as failure:
        raise UsageError(f"{failure.name} is missing: pip install 'asearch[eval]'") from None

    said = {} if arguments.config is None else read_recipe(arguments.config)
    recipe = checked(laid_over(said, arguments), str(arguments.config or "asearch eval"))
    finished = run_async(_evaluate(recipe, engine_of(recipe)))
    show(finished, as_json=arguments.json)
    return 0 if finished.complete else 1


def laid_over(said: dict[str, Any], arguments: argparse.Namespace) -> dict[str, Any]:
    """What a recipe says, with the flags laid over it."""
    recipe = {**said, **_given(arguments, "out", "budgets", "at_once", "pattern", "engine", "workers", "ray_address")}
    dataset = _part(said.get("dataset"), "name")
    dataset |= _given(arguments, "split", "subset", "limit", "offset", "levels", dataset="name", dataset_seed="seed")
    columns = {role: value for role in COLUMNS if (value := getattr(arguments, f"{role}_column")) is not None}
    if columns:
        dataset["columns"] = {**(dataset.get("columns") or {}), **columns}
    if not dataset:
        raise UsageError("no dataset: pass a file, the id of one on the hub, or 'embedded'")
    recipe["dataset"] = dataset
    _lay_servers(recipe, arguments)
    if arguments.strategies is not None:
        recipe["strategies"] = [strategy_of(words) for words in arguments.strategies]
    if arguments.seeds is not None:
        recipe["seeds"] = arguments.seeds[0] if len(arguments.seeds) == 1 else arguments.seeds
    if arguments.seeds_at is not None:
        recipe["seeds_at"] = dict(map(seeds_at, arguments.seeds_at))
    if shared := _given(arguments, *SHARED):
        recipe["options"] = {**(said.get("options") or {}), **shared}
    if arguments.system_prompt is not None:
        recipe["system_prompt"] = read_text(arguments.system_prompt)
    if arguments.no_tree:
        recipe["tree"] = False
    if arguments.keep_errors:
        recipe["keep_errors"] = True
    return recipe


def _lay_servers(recipe: dict[str, Any], arguments: argparse.Namespace) -> None:
    """The servers of the flags instead of, or in addition to, those of the recipe."""
    if arguments.embedded:
        recipe["embedded"] = True
    flags = {
        "policy": {"policy": "url", "policy_model": "model"},
        "prm": {"prm": "url", "prm_model": "model", "prm_family": "family"},
        "baseline_policy": {"baseline_policy": "url", "baseline_model": "model"},
    }
    for name, names in flags.items():
        given = _given(arguments, **names)
        if given:
            recipe[name] = _part(recipe.get(name), "url") | given
    if recipe.get("embedded") and (recipe.get("policy") or recipe.get("prm")):
        raise UsageError("--embedded brings its own servers: leave out --policy and --prm")
    if not recipe.get("embedded") and not recipe.get("policy"):
        raise UsageError("no policy: pass --policy URL (and --prm URL), or --embedded")


def _given(arguments: argparse.Namespace, *same: str, **renamed: str) -> dict[str, Any]:
    """The flags that were given, by their names in a recipe."""
    names = {name: name for name in same} | renamed
    return {new: value for old, new in names.items() if (value := getattr(arguments, old)) is not None}


def _part(said: Any, field: str) -> dict[str, Any]:
    """A part of a recipe as a mapping; anything else than a mapping stands for one field of it."""
    if said is None:
        return {}
    return dict(said) if isinstance(said, dict) else {field: said}


def strategy_of(words: str) -> dict[str, Any]:
    """A strategy as it is written on a command line: `beam-search:lookahead=1,width=2`.

    Raises:
        UsageError: an option has no value.
    """
    name, _, rest = words.partition(":")
    strategy: dict[str, Any] = {"name": name}
    for option in rest.split(",") if rest else ():
        key, equals, value = option.partition("=")
        if not equals:
            raise UsageError(f"{words!r}: write options as name=value, such as beam-search:lookahead=1")
        strategy[key.strip().replace("-", "_")] = value_of(value.strip())
    return strategy


def seeds_at(words: str) -> tuple[int, int]:
    """A budget and its number of seeds: `256=2`.

    Raises:
        UsageError: that is not what it says.
    """
    n, _, seeds = words.partition("=")
    if not (n.isascii() and n.isdigit() and seeds.isascii() and seeds.isdigit()):
        raise UsageError(f"--seeds-at {words!r}: write a budget and its number of seeds, such as 256=2")
    return int(n), int(seeds)


def value_of(text: str) -> Any:
    """A number, true or false if that is what it says; else the text."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text


def read_text(file: Path) -> str:
    """A text file.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as failure:
        raise UsageError(f"cannot read {file}: {getattr(failure, 'strerror', None) or failure}") from None


def engine_of(recipe: Recipe) -> Engine | None:
    """How searches are carried out; None: in this process.

    Raises:
        UsageError: workers without a cluster, or a cluster without its extra.
    """
    if recipe.engine == "local":
        if recipe.workers is not None or recipe.ray_address is not None:
            raise UsageError("--workers and --ray-address are for --engine ray")
        return None
    from asearch.ray import RayEngine

    return RayEngine(address=recipe.ray_address, workers=recipe.workers)


async def _evaluate(recipe: Recipe, engine: Engine | None) -> Run:
    from asearch.evaluation.datasets import load_dataset
    from asearch.evaluation.live import Live
    from asearch.evaluation.run import run as carry_out

    dataset = await load_dataset(recipe.dataset.source())
    async with servers(recipe) as models:
        plan = recipe.plan(dataset, models)
        console = Console(stderr=True)
        console.print(
            f"{len(dataset.questions)} problems, {len(plan.job.entries)} strategies and budgets, in {plan.folder}",
            soft_wrap=True,
        )
        with Live(console) as live:
            return await carry_out(plan, watch=live, engine=engine)


@asynccontextmanager
async def servers(recipe: Recipe) -> AsyncIterator[Models]:
    """The servers of a recipe, started where they are embedded."""
    from asearch.evaluation.searcher import Model, Models

    async with AsyncExitStack() as stack:
        parts = (recipe.policy, recipe.prm, recipe.baseline_policy)
        policy, prm, baseline = (None if part is None else part.of() for part in parts)
        if recipe.embedded:
            running = await stack.enter_async_context(embedded_servers())
            policy, prm = Model(running.policy), Model(running.prm)
        if baseline is not None and baseline.server == "embedded":
            baseline = Model(await stack.enter_async_context(embedded_server("policy-large")))
        assert policy is not None  # noqa: S101 - the flags and the recipe have been looked at
        yield Models(policy, prm, baseline)


def show(finished: Run, *, as_json: bool) -> None:
    """The table, and what is left to do."""
    from asearch.evaluation.live import results_table

    lines = finished.lines()
    if as_json:
        summary = {"folder": str(finished.folder), "searches": finished.searches, "done": finished.done}
        print(orjson.dumps({**summary, "lines": [_plain(line) for line in lines]}, option=orjson.OPT_INDENT_2).decode())
    else:
        console = Console(highlight=False)
        console.print(results_table(lines))
        console.print(f"\n{finished.done:,} searches in {finished.folder}", markup=False, soft_wrap=True)
    if finished.tally.errors:
        print(f"{finished.tally.errors} searches lost some of their paths, or all, to errors", file=sys.stderr)
    for error in list(dict.fromkeys(finished.errors))[-FAILURES_SHOWN:]:
        print(f"failed: {error}", file=sys.stderr)
    if not finished.complete:
        left = finished.searches - finished.done
        print(f"{left} of {finished.searches} searches are left: the same command tries them again", file=sys.stderr)


def _plain(line: Any) -> dict[str, Any]:
    return {**asdict(line), "cost": line.cost._asdict()}
