"""The policy as its own verifier: no second model, and a price of one short question per step."""

from __future__ import annotations

import math
import re
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from asearch.client import OpenAIClient, as_client
from asearch.concurrency import together
from asearch.errors import ProtocolError, UsageError
from asearch.path import Path, Sampling
from asearch.prm.tokens import Counter, as_prompt, read_in
from asearch.problem import verification
from asearch.strategies.base import check_whole
from asearch.strategies.samples import BestOfN
from asearch.usage import ledger

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from asearch.search import Search
    from asearch.transport import Json

CANDIDATES = 20  # top_logprobs: the most that vLLM and OpenAI give
ANSWER_TOKENS = 8
YES_OR_NO = re.compile(r"\W*(yes|no)\b", re.IGNORECASE)


class SelfVerifier:
    """A PRM made of the policy: P(yes) that a solution is right so far, asked in the turn after it.

    Works wherever a PRM does: `asearch.dvts(client, asearch.SelfVerifier(client), problem)`. The question stands behind
    the solution, so that all before it comes from the server's prefix cache.

    Args:
        client: the policy; a URL, or any client. It is not closed with the verifier, unless it was made here.
        votes: None reads the probability of "Yes" against "No" from the log-probabilities of one token (a client that
            is an `OpenAIClient` is needed); a number asks that often and takes the share of "Yes", with any client.
    """

    def __init__(self, client: Any, *, votes: int | None = None) -> None:
        if votes is not None:
            check_whole("votes", votes, 1)
        self.client = as_client(client)
        self.votes = votes
        self._made_here = self.client is not client
        self._tokens_of = Counter(lambda: self._policy().endpoint, lambda: self._policy().model)
        if votes is None and not isinstance(self.client, OpenAIClient):
            raise UsageError(
                f"a {type(self.client).__name__} gives no log-probabilities: pass votes=8, say, to ask several times"
            )

    async def connect(self) -> None:
        await self.client.connect()

    async def aclose(self) -> None:
        if self._made_here:
            await self.client.aclose()

    async def score(self, path: Path) -> Sequence[float]:
        texts = [step.text for step in path.chain]
        known = len(texts) - len(path.unscored)
        begun = ["".join(texts[: i + 1]) for i in range(known, len(texts))]
        ask = self._ask if self.votes is None else self._poll
        scores = await together(ask(path, beginning.strip()) for beginning in begun)
        ledger.get().book(scored=len(scores))
        return scores

    def _policy(self) -> OpenAIClient:
        assert isinstance(self.client, OpenAIClient)  # noqa: S101 - see __init__
        return self.client

    async def _ask(self, path: Path, beginning: str) -> float:
        client, problem, book = self._policy(), verification(path.problem, beginning), ledger.get()
        endpoint = client.endpoint
        body = {
            "model": client.model,
            "messages": problem.messages,
            "max_tokens": 1,
            "temperature": 0.0,
            "logprobs": True,
            "top_logprobs": CANDIDATES,
        }
        book.open_call()
        async with self._tokens_of.room([as_prompt(problem.messages)]):
            with book.outstanding("policy"):  # whose server it is, and so are the seconds that it takes
                reply = await endpoint.post("/v1/chat/completions", body, own=True)
            (read,) = read_in(reply)
            book.book(prm_requests=1, prm_tokens=read.tokens, prm_cached_tokens=read.cached)
        try:
            return share_of_yes(first_token(reply))
        except (KeyError, IndexError, TypeError, ValueError):
            raise ProtocolError(
                "the reply lacks log-probabilities: use SelfVerifier(client, votes=8), say", endpoint=endpoint.url
            ) from None

    async def _poll(self, path: Path, beginning: str) -> float:
        asked = Path(verification(path.problem, beginning))
        sampling = Sampling(temperature=0.7 if self.votes != 1 else 0.0, max_tokens=ANSWER_TOKENS)
        seed = zlib.crc32(beginning.encode())
        replies = await self.client.extend(asked, self.votes or 1, sampling=sampling, seed=seed, whole=True)
        said = [match[1].lower() for reply in replies if (match := YES_OR_NO.match(reply.text))]
        return said.count("yes") / len(said) if said else 0.5


@dataclass(frozen=True, kw_only=True)
class SelfVerify(BestOfN):
    """Best-of-N in which the policy judges its own solutions, step by step: P(yes) that all is right so far.

    Any PRM that is given is left alone. For tree searches, pass a `SelfVerifier` as their PRM.

    Args:
        votes: None for the probability of "Yes"; a number asks that often instead (see `SelfVerifier`).
    """

    name: ClassVar[str] = "self_verify"
    needs_prm: ClassVar[bool] = False
    uses_prm: ClassVar[bool] = False
    votes: int | None = None

    def check(self) -> None:
        super().check()
        if self.votes is not None:
            check_whole("votes", self.votes, 1)

    async def run(self, search: Search) -> Sequence[Path]:
        search.prm = SelfVerifier(search.client, votes=self.votes)
        return await super().run(search)


def first_token(reply: Json) -> list[tuple[str, float]]:
    """What the first token of a chat reply could have been, with the log-probabilities."""
    top = reply["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
    return [(str(item["token"]), float(item["logprob"])) for item in top]


def share_of_yes(tokens: Iterable[tuple[str, float]]) -> float:
    """The probability of "Yes" out of "Yes" and "No", of which a token may be the beginning; 1/2 if neither is there."""
    mass = {"yes": 0.0, "no": 0.0}
    for token, logprob in tokens:
        letters = token.strip().lower()
        for word in mass:
            if letters and word.startswith(letters):
                mass[word] += math.exp(logprob)
    total = mass["yes"] + mass["no"]
    return mass["yes"] / total if total > 0 else 0.5
