"""From strategies, budgets and seeds to the searches of a run.

Samples and subtrees that do not depend on each other are run once, at the largest budget, and smaller budgets are parts of
that run (`asearch.evaluation.votes`); strategies whose candidates compete are run at each budget.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from asearch.calls import as_strategy, ready
from asearch.errors import UsageError
from asearch.result import INDEPENDENT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from asearch.strategies import Strategy

Role = Literal["policy", "baseline"]

# How strategies are called in tables and pictures.
LABELS = {
    "best_of_n": "best-of-N",
    "beam_search": "beam search",
    "dvts": "DVTS",
    "particle_filter": "particle filter",
    "rebase": "REBASE",
}
BASELINE = "greedy, larger policy"
GROUPS = ("width", "revisions", "iterations")  # options that must divide n


@dataclass(frozen=True, slots=True)
class Choice:
    """A strategy to evaluate.

    Args:
        name: such as "dvts".
        options: of the strategy, without n.
        label: how it is called; None names it by its options.
        budgets: its own; None: those of the run.
        value: the strategy itself, where it is given as such; its options are in it.
    """

    name: str
    options: Mapping[str, Any]
    label: str | None = None
    budgets: tuple[int, ...] | None = None
    value: Strategy | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """One strategy at one budget, with its seeds: a line of the run's plan.

    Args:
        label: how the strategy is called.
        strategy: its value.
        seeds: of its searches; greedy decoding has but one.
        role: which policy runs it.
    """

    label: str
    strategy: Strategy
    seeds: tuple[int, ...]
    role: Role = "policy"

    @property
    def verified(self) -> bool:
        """Whether the verifier is asked: greedy decoding is the baseline without one."""
        return self.strategy.uses_prm and self.strategy.name != "greedy"

    def describe(self) -> dict[str, Any]:
        """Plain data for the run's configuration."""
        described = {"label": self.label, "policy": self.role, "seeds": list(self.seeds)}
        return {**described, "strategy": self.strategy.describe()}


class Task(NamedTuple):
    """One search: the entry, the seed, and the question by its place in the dataset."""

    entry: int
    seed: int
    question: int


def entries_of(
    choices: Sequence[Choice],
    budgets: Sequence[int],
    seeds: Sequence[int],
    *,
    verifier: bool,
    baseline: bool = False,
    shared: Mapping[str, Any] | None = None,
    seeds_at: Mapping[int, int] | None = None,
) -> list[Entry]:
    """What has to be run.

    Args:
        choices: the strategies.
        budgets: for those that do not name their own.
        seeds: for those that sample.
        verifier: whether there is one.
        baseline: greedy decoding with the baseline policy, too.
        shared: options of all strategies that have them (greedy decoding keeps its temperature).
        seeds_at: by budget, how many of the seeds are enough there: large budgets cost most and vary least.

    Raises:
        UsageError: an option, budget or seed is wrong, or two entries could not be told apart.
    """
    _check_numbers("budgets", budgets, least=1)
    _check_numbers("seeds", seeds, least=0)
    few = dict(seeds_at or {})
    if few:
        _check_numbers("numbers of seeds", list(few.values()), least=1, different=False)
    if not choices:
        raise UsageError("nothing to evaluate: name a strategy")
    made = [(choice, _strategy(choice, shared or {})) for choice in choices]
    _check_used(shared or {}, [strategy for _, strategy in made])
    verified = True if verifier else None  # all that counts here is whether there is one
    seeding = Seeding(tuple(seeds), few)
    entries = [e for choice, strategy in made for e in _of_choice(choice, strategy, budgets, seeding, verified)]
    if baseline:
        greedy = Choice("greedy", {}, BASELINE)
        entries.append(Entry(BASELINE, _strategy(greedy, shared or {}), (0,), "baseline"))
    kept = [entry for entry in entries if not covered(entry, entries)]
    seen: set[tuple[str, int]] = set()
    for entry in kept:
        if (entry.label, entry.strategy.n) in seen:
            raise UsageError(f"two strategies are called {entry.label!r} at n={entry.strategy.n}: give one a label")
        seen.add((entry.label, entry.strategy.n))
    return kept


def covered(entry: Entry, entries: Sequence[Entry]) -> bool:
    """Whether a majority vote is counted over the very samples of a best-of-N run, whose seeds it would share."""
    if entry.strategy.name != "majority":
        return False
    sampled = ("n", "temperature", "top_p", "max_tokens", "early_stop")
    return any(
        other.strategy.name == "best_of_n"
        and other.seeds == entry.seeds
        and all(getattr(other.strategy, name) == getattr(entry.strategy, name) for name in sampled)
        for other in entries
    )


def _of_choice(
    choice: Choice, strategy: Strategy, budgets: Sequence[int], seeding: Seeding, prm: Any
) -> Iterator[Entry]:
    if strategy.name == "greedy":
        yield Entry(choice.label or label_of(choice), replace(strategy, n=1), (0,))
        return
    own = sorted(set(budgets if choice.budgets is None else choice.budgets))
    _check_numbers(f"budgets of {strategy.name}", own, least=1)
    possible = [n for n in own if n >= least(strategy)]
    if not possible:
        raise UsageError(f"{strategy.name} needs a budget of at least {least(strategy)}, and there is none")
    if strategy.temperature == 0:
        seeding = Seeding(seeding.seeds[:1], {})
    parts = strategy.name in INDEPENDENT and not getattr(strategy, "early_stop", False)
    for n in possible:
        seeds = seeding.largest(n, possible) if parts else seeding.at(n)
        made = ready(replace(strategy, n=n), prm)
        if seeds:
            yield Entry(choice.label or label_of(choice), made, seeds)


@dataclass(frozen=True, slots=True)
class Seeding:
    """Which seeds are run at which budget."""

    seeds: tuple[int, ...]
    few: Mapping[int, int]

    def at(self, n: int) -> tuple[int, ...]:
        """The seeds of a budget."""
        return self.seeds[: self.few.get(n, len(self.seeds))]

    def largest(self, n: int, budgets: Sequence[int]) -> tuple[int, ...]:
        """The seeds for which this is the largest budget: they are run here, and smaller budgets are parts of that."""
        larger = {seed for other in budgets if other > n for seed in self.at(other)}
        return tuple(seed for seed in self.at(n) if seed not in larger)


def _strategy(choice: Choice, shared: Mapping[str, Any]) -> Strategy:
    """The strategy of a choice, at whatever budget; samples are all taken unless the choice says otherwise."""
    if choice.value is not None:
        return choice.value
    if "n" in choice.options:
        raise UsageError(f"the n of {choice.name} is a budget: name it under budgets")
    strategy = as_strategy(choice.name)
    has = {field.name for field in fields(strategy)}
    early = {"early_stop": False} if "early_stop" in has and "confidence" not in choice.options else {}
    greedy = {"temperature"} if strategy.name == "greedy" else set()
    common = {name: value for name, value in shared.items() if name in has - greedy}
    return as_strategy(choice.name, **{**early, **common, **choice.options})


def _check_used(shared: Mapping[str, Any], strategies: Sequence[Strategy]) -> None:
    """Refuse an option that no strategy has."""
    names = {field.name for strategy in strategies for field in fields(strategy)} - {"n"}
    for name in shared:
        if name not in names:
            raise UsageError(f"no strategy of this run has an option {name!r}; there are {', '.join(sorted(names))}")


def least(strategy: Strategy) -> int:
    """The smallest budget that a strategy can have."""
    sizes = {name: getattr(strategy, name, 1) for name in GROUPS}
    sizes = {name: size if isinstance(size, int) else 1 for name, size in sizes.items()}  # its own check will complain
    if sizes["iterations"] > 1:  # particle Gibbs needs two particles at a time
        sizes["iterations"] *= 2
    return max(sizes.values())


def label_of(choice: Choice) -> str:
    """A name for tables: the strategy's, with the options that the choice sets to something else than usual."""
    if choice.value is not None:
        return LABELS.get(choice.name, choice.name.replace("_", "-"))
    usual = as_strategy(choice.name)
    said = [
        f"{name.replace('_', ' ')} {value}"
        for name, value in choice.options.items()
        if getattr(usual, name) != value and name != "early_stop"
    ]
    return ", ".join([LABELS.get(usual.name, usual.name.replace("_", "-")), *said])


def tasks_of(entries: Sequence[Entry], questions: int) -> Iterator[Task]:
    """Every search of a run, in its order."""
    for i, entry in enumerate(entries):
        for seed in entry.seeds:
            for question in range(questions):
                yield Task(i, seed, question)


def _check_numbers(what: str, numbers: Sequence[int], least: int, *, different: bool = True) -> None:
    wrong = [n for n in numbers if not isinstance(n, int) or isinstance(n, bool) or n < least]
    if wrong or not numbers:
        got = f"not {wrong[0]!r}" if wrong else "and there must be one at least"
        raise UsageError(f"{what} must be whole numbers of at least {least}, {got}")
    if different and len(set(numbers)) < len(numbers):
        raise UsageError(f"{what} must be different numbers, not {', '.join(map(str, numbers))}")
