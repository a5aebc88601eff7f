"""A run as it is written down: a YAML file or a set of flags, checked, and turned into a plan.

dataset: {name: HuggingFaceH4/MATH-500, split: test}
policy: {url: "http://localhost:8000", model: meta-llama/Llama-3.2-1B-Instruct}
prm: {url: "http://localhost:8001"}
strategies: [greedy, best-of-n, {name: beam-search, lookahead: 1}]
budgets: [1, 4, 16, 64, 256]
seeds: 5
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from asearch.errors import UsageError
from asearch.evaluation.datasets import Columns, Dataset, Source
from asearch.evaluation.entries import Choice, entries_of
from asearch.evaluation.run import Plan
from asearch.evaluation.searcher import Job, Model, Models
from asearch.problem import SYSTEM_PROMPT

STRATEGIES = ("greedy", "majority", "best-of-n", "beam-search", "dvts")


class Strict(BaseModel):
    """A part of a recipe: what it does not know it refuses."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def named(field: str) -> BeforeValidator:
    """A bare string stands for an object with one field."""
    return BeforeValidator(lambda value: {field: value} if isinstance(value, str) else value)


class ColumnNames(Strict):
    """How the dataset's columns are called."""

    problem: str | None = None
    answer: str | None = None
    id: str | None = None
    level: str | None = None
    subject: str | None = None
    solution: str | None = None


class DatasetPart(Strict):
    """Which problems."""

    name: str
    split: str | None = None
    subset: str | None = None
    columns: ColumnNames = ColumnNames()
    levels: list[int | str] = []
    offset: int = Field(default=0, ge=0)
    limit: int | None = Field(default=None, ge=1)
    seed: int = Field(default=0, ge=0)

    def source(self) -> Source:
        """The same for the library."""
        return Source(
            self.name,
            self.split,
            self.subset,
            Columns(**self.columns.model_dump()),
            tuple(map(str, self.levels)),
            self.offset,
            self.limit,
            self.seed,
        )


class ServerPart(Strict):
    """A server, or several replicas of one."""

    url: str | list[str]
    model: str | None = None
    family: str | None = None

    def of(self) -> Model:
        """The same for the library."""
        return Model(self.url, self.model, self.family)


class StrategyPart(BaseModel):
    """A strategy with its options."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)
    name: str
    label: str | None = Field(default=None, min_length=1)
    budgets: list[int] | None = None

    def choice(self) -> Choice:
        """The same for the library."""
        budgets = None if self.budgets is None else tuple(self.budgets)
        return Choice(self.name, dict(self.model_extra or {}), self.label, budgets)


class Recipe(Strict):
    """A run as people write it.

    `embedded: true` stands for the servers that come with the library; `options` are for all strategies that have them;
    `seeds_at: {256: 2}` takes two of the seeds at n = 256.
    """

    dataset: Annotated[DatasetPart, named("name")]
    embedded: bool = False
    policy: Annotated[ServerPart, named("url")] | None = None
    prm: Annotated[ServerPart, named("url")] | None = None
    baseline_policy: Annotated[ServerPart, named("url")] | None = None
    strategies: list[Annotated[StrategyPart, named("name")]] = [StrategyPart(name=name) for name in STRATEGIES]
    options: dict[str, Any] = {}
    budgets: list[int] = [1, 4, 16, 64]
    seeds: int | list[int] = 5
    seeds_at: dict[int, int] = {}
    system_prompt: str | None = SYSTEM_PROMPT
    pattern: str | None = None
    tree: bool = True
    at_once: int | None = Field(default=None, ge=1)
    keep_errors: bool = False
    engine: Literal["local", "ray"] = "local"
    workers: int | None = Field(default=None, ge=1)
    ray_address: str | None = None
    out: str | None = None

    @property
    def folder(self) -> Path:
        """Where the run goes: a folder that its dataset names, where nothing else is said."""
        stem = Path(self.dataset.name).stem.split("@")[0]
        return Path(self.out) if self.out is not None else Path("runs") / stem

    @property
    def seed_list(self) -> list[int]:
        """The seeds; a number counts them from 0."""
        return list(range(self.seeds)) if isinstance(self.seeds, int) else self.seeds

    def plan(self, dataset: Dataset, models: Models) -> Plan:
        """The plan of the run.

        Raises:
            UsageError: a strategy, an option, a budget or a seed is wrong.
        """
        entries = entries_of(
            [strategy.choice() for strategy in self.strategies],
            self.budgets,
            self.seed_list,
            shared=self.options,
            seeds_at=self.seeds_at,
            verifier=models.prm is not None,
            baseline=models.baseline is not None,
        )
        job = Job(models, tuple(entries), self.system_prompt, self.pattern, self.tree, self.at_once)
        return Plan(dataset, job, tuple(sorted(self.budgets)), self.folder, self.keep_errors)


def read_recipe(file: Path) -> dict[str, Any]:
    """What a YAML file says, unchecked, so that flags can be laid over it.

    Raises:
        UsageError: it cannot be read, or is no mapping.
    """
    try:
        said = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as failure:
        raise UsageError(f"cannot read {file}: {getattr(failure, 'strerror', None) or failure}") from None
    except yaml.YAMLError as failure:
        mark = getattr(failure, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise UsageError(f"{file}{where}: no YAML ({getattr(failure, 'problem', None) or failure})") from None
    if not isinstance(said, dict):
        raise UsageError(f"{file} is no recipe: it must be a mapping of dataset, policy, strategies and so on")
    return said


def checked(said: dict[str, Any], where: str) -> Recipe:
    """A recipe, if all that is said makes sense.

    Args:
        said: names and values, of a file or of flags.
        where: what to call it in a message.

    Raises:
        UsageError: naming everything that is wrong.
    """
    try:
        return Recipe.model_validate(said)
    except ValidationError as failure:
        wrong = [f"{_name(error['loc'])}: {_says(error)}" for error in failure.errors()]
        raise UsageError(f"{where}: {'; '.join(wrong)}") from None


def _name(place: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in place if part not in ("int", "str")) or "recipe"


def _says(error: Any) -> str:
    if error["type"] == "extra_forbidden":
        return "there is no such setting"
    message = str(error["msg"])
    return message[:1].lower() + message[1:]
