"""What a search says while it runs: frozen values, enough to draw its tree live."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asearch.path import Path
    from asearch.result import Result
    from asearch.usage import Usage


@dataclass(frozen=True, slots=True)
class Event:
    """Something happened to a path; `usage` is what the search has spent by then."""

    path: Path
    usage: Usage


@dataclass(frozen=True, slots=True)
class Sampled(Event):
    """The policy wrote the last step of the path (or all of them, where whole solutions are sampled)."""


@dataclass(frozen=True, slots=True)
class Scored(Event):
    """The verifier scored the path's last step(s)."""


@dataclass(frozen=True, slots=True)
class Pruned(Event):
    """The path will not be continued."""


@dataclass(frozen=True, slots=True)
class Finished(Event):
    """The path is a candidate: its text ended, or its room ran out."""


@dataclass(frozen=True, slots=True)
class Failed(Event):
    """The path was dropped, because its requests failed for good."""

    error: str


@dataclass(frozen=True, slots=True)
class Stopped(Event):
    """The search is over; `path` is the winner, `reason` what ended it early (None: it ran its course)."""

    reason: str | None
    result: Result
