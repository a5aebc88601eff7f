"""The schedule of the reference (huggingface/search-and-learn) over the same clients and servers.

All paths advance together: the policy writes one step of every path, then the PRM scores every path, then paths are
chosen, and neither server works while the other does. Beam search takes one problem at a time (its `search_batch_size`
must be 1), best-of-N and DVTS take 25. Whole paths are scored at every level; the reference's PRM keeps no keys and values,
so every step is computed again. To its advantage: batches of the PRM are as large as the server takes (the reference's are
of 4), beam search ends when n paths are complete (there: after 40 levels), and its lookahead, which is generated and never
scored, is left out.

With `rescore=False` only the schedule is the reference's: steps keep their scores, and the PRM its prefix cache.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asearch import AnswerWorkers, Path, Problem
from asearch.concurrency import Batcher, together
from asearch.jury import Jury
from asearch.search import Search

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from asearch import Client, Strategy

TOGETHER = {"best_of_n": 25, "dvts": 25, "beam_search": 1}  # problems in one batch


class Lockstep:
    """One run.

    Args:
        client: the policy.
        prm: an asearch PRM that is connected; its endpoint and family are used.
        strategy: best-of-N, beam search or DVTS.
        rescore: compute all steps of a path at every level.
    """

    def __init__(self, client: Client, prm: Any, strategy: Any, *, rescore: bool) -> None:
        self.client = client
        self.prm = prm
        self.strategy = strategy
        self.rescore = rescore
        self._batcher: Batcher[Path, float] = Batcher(self._send, concurrency=4, max_items=64)

    async def solve(self, problems: Iterable[str]) -> int:
        """Search for all problems; returns how many candidates there are in the end."""
        await together([self.client.connect(), self.prm.connect()])
        waiting, found = list(problems), 0
        size = TOGETHER[self.strategy.name]
        while waiting:
            batch, waiting = waiting[:size], waiting[size:]
            found += await getattr(self, f"_{self.strategy.name}")([search_for(self, p) for p in batch])
        return found

    async def _best_of_n(self, searches: Sequence[Search]) -> int:
        n = self.strategy.n
        sampled = await together(s.complete(1, first=i) for s in searches for i in range(n))
        return len(await self._scored([path for paths in sampled for path in paths]))

    async def _beam_search(self, searches: Sequence[Search]) -> int:
        (search,) = searches
        n, width = self.strategy.n, self.strategy.width
        beams, complete = [search.root] * n, 0
        for _ in range(self.strategy.depth):
            shares = {beam: beams.count(beam) for beam in dict.fromkeys(beams)}
            sampled = await together(search.sample(beam, m) for beam, m in shares.items())
            ranked = search.rank(await self._scored([child for children in sampled for child in children]))
            complete += sum(path.finished for path in ranked)
            going = [path for path in ranked if not path.finished][: n // width]
            if complete >= n or not going:
                break
            beams = (going * n)[:n]
        return complete

    async def _dvts(self, searches: Sequence[Search]) -> int:
        width = self.strategy.width
        trees: list[tuple[Search, int, Path]] = [
            (s, i, s.root) for s in searches for i in range(self.strategy.n // width)
        ]
        found = 0
        for level in range(self.strategy.depth):
            if not trees:
                break
            sampled = await together(
                s.sample(path, width, first=i * width if level == 0 else None) for s, i, path in trees
            )
            scored = iter(await self._scored([child for children in sampled for child in children]))
            best = [
                (s, i, s.rank([next(scored) for _ in children])[0])
                for (s, i, _), children in zip(trees, sampled, strict=True)
            ]
            found += sum(path.finished for _, _, path in best)
            trees = [tree for tree in best if not tree[2].finished]
        return found

    async def _scored(self, paths: Sequence[Path]) -> list[Path]:
        """All of these paths with scores, once the last of them has its own."""
        if not self.rescore:
            found = await together(self.prm.score(path) for path in paths)
            return [path.with_scores(scores) for path, scores in zip(paths, found, strict=True)]
        scores = await together(self._batcher.submit(path) for path in paths)
        return [path.with_scores([score] * len(path.unscored)) for path, score in zip(paths, scores, strict=True)]

    async def _send(self, paths: list[Path]) -> list[float]:
        """Whole paths to the PRM; one pass over a path gives the scores of all of its steps."""
        texts = [self.prm.family.render(path.problem, [step.text for step in path.chain]) for path in paths]
        body = {"model": self.prm.model, "prompt": texts, "max_tokens": 1}
        reply = await self.prm.endpoint.post("/v1/completions", body, units=len(texts))
        tops = [choice["logprobs"]["top_logprobs"][0] for choice in reply["choices"]]
        return [next(iter(top.values())) for top in tops]


def search_for(run: Lockstep, problem: str) -> Search:
    """A search that draws the same samples as asearch does."""
    strategy: Strategy = run.strategy
    return Search(run.client, None, Problem(problem), Jury(AnswerWorkers()), sampling=strategy.sampling)
