"""Verifiers that are causal language models: after a step, "+" or "-" is the next token.

Three ways to read the two logits, from exact to bounded:

- vLLM's completions with `logprob_token_ids`: exactly these two (0.32; error below 4e-7 against a plain forward pass);
- an older vLLM's `logprobs=20`: the 20 likeliest tokens, among which both verdicts nearly always are;
- TGI's `top_n_tokens=5`.

Where a verdict token is not among those returned, its log-probability is below the last one that is: the score is then
a bound, and counted in `bounded`.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from asearch.concurrency import Batcher, Memo, together
from asearch.errors import BadRequest, EndpointError, NotFound, ProtocolError, UsageError
from asearch.families import Family, cut_turns, probe_chat
from asearch.prm.base import (
    Reading,
    ServedPRM,
    checked,
    divide,
    listed,
    read_tokens,
    softmax_first,
)
from asearch.usage import ledger

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from asearch.path import Path
    from asearch.transport import Endpoint, Json

    Render = Callable[[list[dict[str, str]]], Awaitable[str]]

TOP_VLLM = 20  # what vLLM allows by default (--max-logprobs)
TOP_TGI = 5  # what TGI allows by default (--max-top-n-tokens)
BEGINNINGS = ("<|begin_of_text|>", "<|begin|>", "<s>")  # TGI's tokenizer adds one of its own

log = logging.getLogger("asearch.prm")


@dataclass(frozen=True, slots=True)
class Verdict:
    """One score as a server gave it: exact or a bound, the tokens read for it, and the requests it took."""

    score: float
    bounded: bool
    tokens: int
    requests: int


class Route(Protocol):
    """One way to get verdicts from a server."""

    async def verdicts(self, prefixes: list[str]) -> list[Verdict]:
        """The verdict after each of these texts."""
        ...


class CausalPRM(ServedPRM):
    """A causal language model as PRM, over vLLM's `/v1/completions` or TGI's `/generate`.

    The prefix cache makes each call cost the new step only, and a prefix that is too long is an error instead of a
    cut one.

    Args:
        url: the base URL, or an `openai.AsyncOpenAI`.
        model: the served model name; None takes the first that the server lists.
        family: a `Family` or the name of one; None recognises it by the model's name.
        api_key: a bearer token.
        concurrency: batches that may be under way at once.
        **endpoint: further arguments for `Endpoint`.
    """

    def __init__(
        self,
        url: Any,
        *,
        model: str | None = None,
        family: Family | str | None = None,
        api_key: str | None = None,
        concurrency: int = 4,
        **endpoint: Any,
    ) -> None:
        super().__init__(url, model=model, family=family, api_key=api_key, **endpoint)
        self.verdicts: tuple[int, int] = (-1, -1)
        self.bounded = 0
        self._scores: Memo[str, float] = Memo(self._score_prefix)
        self._batcher: Batcher[str, Verdict] = Batcher(
            self._ask, concurrency=concurrency, max_items=64, max_cost=400_000, cost=len
        )
        self._route: Route | None = None

    async def aclose(self) -> None:
        await self._batcher.aclose()
        await super().aclose()

    async def score(self, path: Path) -> list[float]:
        reading = Reading(path)
        if not reading.new:
            return reading.spread([])
        await self.connect()
        texts = self._reader.prefixes(path.problem, reading.said)
        prefixes = [texts[i] for i in reading.new]
        book = ledger.get()
        book.open_call()
        # A text has at most as many tokens as bytes: the only bound known before the answer.
        async with book.reserved(sum(len(prefix.encode()) for prefix in prefixes)):
            return reading.spread(await together(self._scores.get(prefix) for prefix in prefixes))

    async def _score_prefix(self, prefix: str) -> float:
        verdict = await self._batcher.submit(prefix)
        ledger.get().book(prm_requests=verdict.requests, prm_tokens=verdict.tokens, scored=1)
        if verdict.bounded:
            self._note_bound()
        return verdict.score

    def _note_bound(self) -> None:
        if not self.bounded:
            log.warning("%s: a verdict token is not among the likeliest; such scores are bounds", self.endpoint.url)
        self.bounded += 1

    async def _ask(self, prefixes: list[str]) -> list[Verdict]:
        assert self._route is not None  # noqa: S101 - score() has connected
        try:
            return await self._route.verdicts(prefixes)
        except _CannotSingleOut:
            # An older vLLM. It stays what it is, so this is asked once.
            self._route = LikeliestTokens(self.endpoint, self.model, self._reader, self.verdicts)
            return await self._route.verdicts(prefixes)
        except NotFound as failure:
            raise ProtocolError(
                f"the server cannot complete texts, as a {self._reader.name} model must; "
                "serve it to generate, without --runner pooling, or pass the family that it is",
                endpoint=self.endpoint.url,
                status=failure.status,
            ) from failure

    async def _connect(self, _: None) -> None:
        await super()._connect(None)
        if self.server == "tgi":
            await self._connect_tgi()
        else:
            await self._connect_vllm()

    async def _connect_vllm(self) -> None:
        self.verdicts = (await self._token(0), await self._token(1))
        self.family = await with_served_turns(self._reader, self._rendered)
        self._route = SingledOut(self.endpoint, self.model, self._reader, self.verdicts)

    async def _connect_tgi(self) -> None:
        if self._reader.ids is None:
            raise UsageError(
                f"{self.endpoint.url} is TGI, which cannot be asked for the ids of the {self._reader.name} verdicts; "
                "pass a family with ids"
            )
        self.verdicts = self._reader.ids
        self.family = await with_served_turns(self._reader, self._templated)
        self._route = TgiTokens(self.endpoint, self._reader, self.verdicts)

    async def _token(self, which: int) -> int:
        """The id of the good (0) or bad (1) verdict, from the server itself where it can tell."""
        text = (self._reader.good, self._reader.bad)[which]
        body = {"model": self.model, "prompt": text, "add_special_tokens": False}
        try:
            tokens = (await self.endpoint.post("/tokenize", body)).get("tokens")
        except NotFound:
            if self._reader.ids is not None:
                return self._reader.ids[which]
            raise
        if not isinstance(tokens, list) or len(tokens) != 1:
            raise ProtocolError(
                f"{text!r} is not one token here, so this is no {self._reader.name} model", endpoint=self.endpoint.url
            )
        return int(tokens[0])

    async def _rendered(self, messages: list[dict[str, str]]) -> str:
        """A chat as vLLM renders it."""
        body = {"model": self.model, "messages": messages, "add_generation_prompt": True}
        tokens = (await self.endpoint.post("/tokenize", body))["tokens"]
        return str((await self.endpoint.post("/detokenize", {"model": self.model, "tokens": tokens}))["prompt"])

    async def _templated(self, messages: list[dict[str, str]]) -> str:
        """A chat as TGI renders it."""
        reply = await self.endpoint.post("/chat_tokenize", {"model": self.model, "messages": messages})
        return str(reply["templated_text"])


async def with_served_turns(family: Family, render: Render) -> Family:
    """The family with the chat template of the server's own model, learned from one rendered chat.

    A server without a chat template leaves the published one.
    """
    if family.turns is None:
        return family
    try:
        text = await render(probe_chat(family.good))
    except (EndpointError, KeyError, TypeError):
        return family
    turns = cut_turns(text, family.good)
    return replace(family, turns=turns) if turns else family


class _CannotSingleOut(Exception):
    """The server does not know `logprob_token_ids`."""


class SingledOut:
    """vLLM's `logprob_token_ids`: exactly the two log-probabilities, for many texts in one request."""

    def __init__(self, endpoint: Endpoint, model: str | None, family: Family, verdicts: tuple[int, int]) -> None:
        self._endpoint, self._model, self._family = endpoint, model, family
        self._ids = verdicts

    async def verdicts(self, prefixes: list[str]) -> list[Verdict]:
        body = {
            "model": self._model,
            "prompt": prefixes,
            "max_tokens": 1,
            "temperature": 0.0,
            "add_special_tokens": self._family.bos,
            "return_tokens_as_token_ids": True,
            **self._logprobs(),
        }
        reply = await self._send(body, len(prefixes))
        choices = listed(reply, "choices", len(prefixes), self._endpoint)
        shares = divide(read_tokens(reply), [len(prefix) for prefix in prefixes])
        verdicts = []
        for i, (choice, share) in enumerate(zip(choices, shares, strict=True)):
            score, bounded = self._score(choice)
            verdicts.append(Verdict(score, bounded, share, int(i == 0)))
        return verdicts

    def _logprobs(self) -> Json:
        return {"logprobs": 0, "logprob_token_ids": list(self._ids)}  # without logprobs the ids are not read

    async def _send(self, body: Json, count: int) -> Json:
        try:
            return await self._endpoint.post("/v1/completions", body, units=count)
        except BadRequest as failure:
            if "logprob_token_ids" in str(failure):
                raise _CannotSingleOut from failure
            raise

    def _score(self, choice: Json) -> tuple[float, bool]:
        top = _top_logprobs(choice, self._endpoint)
        try:
            good, bad = (top[f"token_id:{token}"] for token in self._ids)
        except KeyError:
            raise _CannotSingleOut from None
        return checked(softmax_first(good, bad), self._endpoint), False


class LikeliestTokens(SingledOut):
    """An older vLLM's `logprobs=20`."""

    def _logprobs(self) -> Json:
        return {"logprobs": TOP_VLLM}

    async def _send(self, body: Json, count: int) -> Json:
        return await self._endpoint.post("/v1/completions", body, units=count)

    def _score(self, choice: Json) -> tuple[float, bool]:
        top = _top_logprobs(choice, self._endpoint)
        names = zip(self._ids, (self._family.good, self._family.bad), strict=True)
        found = [top.get(f"token_id:{token}", top.get(text)) for token, text in names]
        return bound(found, list(top.values()), self._family, self._endpoint)


class TgiTokens:
    """TGI's `top_n_tokens`, one text per request."""

    def __init__(self, endpoint: Endpoint, family: Family, verdicts: tuple[int, int]) -> None:
        self._endpoint, self._family, self._ids = endpoint, family, verdicts

    async def verdicts(self, prefixes: list[str]) -> list[Verdict]:
        return await together(self._verdict(prefix) for prefix in prefixes)

    async def _verdict(self, prefix: str) -> Verdict:
        for beginning in BEGINNINGS:
            prefix = prefix.removeprefix(beginning)
        parameters = {"max_new_tokens": 1, "details": True, "top_n_tokens": TOP_TGI, "do_sample": False}
        reply = await self._endpoint.post("/generate", {"inputs": prefix, "parameters": parameters}, units=1)
        try:
            top = {int(token["id"]): float(token["logprob"]) for token in reply["details"]["top_tokens"][0]}
        except (KeyError, TypeError, IndexError, ValueError):
            raise ProtocolError(
                "the reply lacks details.top_tokens; is top_n_tokens allowed there?", endpoint=self._endpoint.url
            ) from None
        found = [top.get(token) for token in self._ids]
        score, bounded = bound(found, list(top.values()), self._family, self._endpoint)
        # TGI does not say how many tokens it read; a token has about four characters.
        return Verdict(score, bounded, len(prefix) // 4 + 1, 1)


def bound(
    found: Sequence[float | None], top: Sequence[float], family: Family, endpoint: Endpoint
) -> tuple[float, bool]:
    """A score from the verdicts among the likeliest tokens, and whether it is only a bound.

    Raises:
        ProtocolError: neither verdict is there, so that nothing is known.
    """
    if all(value is None for value in found):
        raise ProtocolError(
            f"neither {family.good!r} nor {family.bad!r} is among the {len(top)} likeliest next tokens; "
            f"is this a {family.name} model?",
            endpoint=endpoint.url,
        )
    good, bad = (min(top) if value is None else value for value in found)
    return checked(softmax_first(good, bad), endpoint), None in found


def _top_logprobs(choice: Json, endpoint: Endpoint) -> dict[str, float]:
    try:
        return {str(key): float(value) for key, value in choice["logprobs"]["top_logprobs"][0].items()}
    except (KeyError, TypeError, IndexError, ValueError, AttributeError):
        raise ProtocolError("the reply lacks log-probabilities", endpoint=endpoint.url) from None
