"""What a search needs from a policy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from asearch.path import Path, Sampling, Step


@runtime_checkable
class Client(Protocol):
    """A policy: it writes n continuations of a path.

    A client that can write whole solutions only may say so by an attribute `can_continue = False` (known after
    `connect`), and raises a UsageError when it is asked for a step. `asearch.testing.assert_client_laws` checks the
    rest of the contract.
    """

    async def extend(
        self, path: Path, n: int, *, sampling: Sampling, seed: int, whole: bool = False, max_new: int | None = None
    ) -> list[Step]:
        """Write n continuations of `path`.

        Args:
            path: an unfinished path.
            n: how many; choice i is drawn with seed + i.
            sampling: how to sample.
            seed: the first of n consecutive seeds.
            whole: go on to the end of the solution instead of the next step separator.
            max_new: a bound on the new tokens, besides the solution's own.
        """
        ...

    async def connect(self) -> None:
        """Find out what the server is; raises an EndpointError that says what is wrong."""
        ...

    async def aclose(self) -> None:
        """Close the connections."""
        ...
