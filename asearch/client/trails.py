"""Which beginnings a path has, as keys by which its requests find the replica whose cache holds them."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

from asearch.transport import Trail

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from asearch.path import Path, Step
    from asearch.transport import Endpoint, Replica


def trail_of(path: Path, endpoint: Endpoint) -> Trail[Replica] | None:
    """The beginnings of a path, for an endpoint of several replicas; others need none."""
    return Trail(partial(keys, path)) if endpoint.several else None


def keys(path: Path) -> Iterator[int]:
    """A key for each beginning of a path, longest first.

    The bare prompt has none: it is short, and the first steps of a problem go to the least loaded replicas. A revision
    or a verification goes on from what was said in the turn before, and so does its trail.
    """
    place: Path | None = path
    while place is not None and place.step is not None:
        yield key(place.problem.text, place.text)
        place = place.parent
    turns = path.problem.history
    for (asker, question), (speaker, said) in reversed(list(pairwise(turns))):
        if (asker, speaker) == ("user", "assistant"):
            yield key(question, said)


def key(question: str, said: str) -> int:
    """The key of a beginning: blanks at its end do not matter, since some prompts lack them."""
    return hash((question, said.rstrip()))


def remember(path: Path, steps: Sequence[Step], trail: Trail[Replica] | None, endpoint: Endpoint) -> None:
    """The replica that wrote steps holds the path as it is with each of them."""
    if trail is not None:
        endpoint.remember((key(path.problem.text, path.text + step.text) for step in steps), trail.went)
