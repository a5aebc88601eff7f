"""Which of a run's methods a report is about."""

from __future__ import annotations

from dataclasses import replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from asearch.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from asearch.reports.gather import Gathered

BASELINE = "greedy"


def with_methods(run: Gathered, wanted: Sequence[str]) -> Gathered:
    """The run as if it had had these methods only, besides greedy decoding, the baseline.

    Levels of difficulty are still those that its samples tell, whether best-of-N is among the methods or not.

    Args:
        run: with all of its methods.
        wanted: names as in the tables (see `named`).

    Raises:
        UsageError: there is no method of such a name.
    """
    labels = sorted(run.strategies)
    found = {label for name in wanted for label in named(name, labels)}
    kept = found | {label for label, strategy in run.strategies.items() if strategy["name"] == BASELINE}
    return replace(
        run,
        cells={key: cell for key, cell in run.cells.items() if key.label in kept},
        strategies={label: strategy for label, strategy in run.strategies.items() if label in kept},
    )


def named(name: str, labels: Iterable[str]) -> list[str]:
    """The labels that a name stands for: the one that is called so, else all of that name with some option or vote.

    Capitals do not matter, nor whether words are parted by blanks, hyphens or underscores; `*` stands for any text.

    >>> named("best-of-n", ["best-of-N, best", "best-of-N, weighted", "majority"])
    ['best-of-N, best', 'best-of-N, weighted']
    >>> named("beam search", ["beam search", "beam search, lookahead 1"])
    ['beam search']

    Raises:
        UsageError: there is none.
    """
    labels, asked = list(labels), plain(name)
    exact = [label for label in labels if plain(label) == asked]
    found = exact or [label for label in labels if fnmatchcase(plain(label), asked)]
    found = found or [label for label in labels if plain(label).startswith(f"{asked},")]
    if not found:
        raise UsageError(f"the run has no method {name!r}; it has {', '.join(map(repr, labels))}")
    return found


def plain(name: str) -> str:
    """A name without what people write in different ways."""
    return " ".join(name.lower().replace("-", " ").replace("_", " ").split())
