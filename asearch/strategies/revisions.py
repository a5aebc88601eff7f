"""Sequential revisions: the policy looks at its own attempts and writes another one (Snell et al., arXiv 2408.03314)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from asearch.concurrency import together
from asearch.path import Path
from asearch.problem import revision
from asearch.strategies.base import Strategy, check_divides, check_whole

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asearch.search import Search


@dataclass(frozen=True, kw_only=True)
class SelfRefine(Strategy):
    """Chains of attempts, each of which sees those before it: n = chains x revisions.

    All attempts of all chains are candidates; the answer is that of the verifier's weighted vote, or, without a PRM,
    that of the majority. Long chains correct small slips, many chains find other ways: easy problems profit from the
    first, hard ones from the second.

    Args:
        revisions: attempts in a chain, the first included.
        memory: how many of the latest attempts the policy is shown.
    """

    name: ClassVar[str] = "self_refine"
    needs_prm: ClassVar[bool] = False
    revisions: int = 4
    memory: int = 4

    def check(self) -> None:
        super().check()
        check_whole("revisions", self.revisions, 1)
        check_whole("memory", self.memory, 1)
        check_divides("revisions", self.revisions, self.n, self.name)

    async def run(self, search: Search) -> Sequence[Path]:
        chains = await together(self._chain(search, i) for i in range(self.n // self.revisions))
        return [path for chain in chains for path in chain]

    async def _chain(self, search: Search, number: int) -> list[Path]:
        attempts: list[Path] = []
        for i in range(self.revisions):
            seen = [path.text for path in attempts if path.text.strip()][-self.memory :]
            source = Path(revision(search.problem, seen)) if seen else None
            first = number * self.revisions + i
            attempts += await search.sample(search.root, 1, first=first, whole=True, source=source)
        attempts = await search.judge(attempts)
        await search.finish(attempts)
        return attempts
