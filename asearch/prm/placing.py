"""Where a solution is scored: on the replica that has read its beginning before."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asearch.transport import Trail

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from asearch.transport import Endpoint, Replica


class Text(str):
    """A text for a verifier that knows its own beginnings, as keys, longest first."""

    __slots__ = ("beginnings",)
    beginnings: Sequence[int]


def with_beginnings(texts: Sequence[str], wanted: Sequence[int]) -> list[str]:
    """Some of a solution's texts (those up to its first, second ... step), each of which knows those before it."""
    marks = [hash(text) for text in texts]
    placed: list[str] = []
    for i in wanted:
        text = Text(texts[i])
        text.beginnings = marks[i::-1]
        placed.append(text)
    return placed


def place(
    endpoint: Endpoint, beginnings: Callable[[], Iterable[int]], queued: Callable[[Replica], int]
) -> Replica | None:
    """The replica for one item of a batch; None where there is no choice.

    Args:
        endpoint: the verifier's.
        beginnings: keys of the beginnings of what is to be read, longest first.
        queued: items that wait for a batch to a replica.
    """
    return endpoint.choose(Trail(beginnings), queued=queued) if endpoint.several and endpoint.replicas else None
