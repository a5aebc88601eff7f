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
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from asearch.concurrency import Batcher, BatchMemo, together
from asearch.errors import BadRequest, EndpointError, NotFound, ProtocolError, UsageError
from asearch.families import Family, cut_turns, probe_chat
from asearch.prm.base import (
    Reading,
    ServedPRM,
    checked,
    listed,
    says_one_thing,
    softmax_first,
)
from asearch.prm.placing import place, with_beginnings
from asearch.prm.tokens import read_in
from asearch.usage import ledger

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    from asearch.path import Path
    from asearch.prm.tokens import Counter
    from asearch.transport import Endpoint, Json, Replica

    Render = Callable[[list[dict[str, str]]], Awaitable[str]]

TOP_VLLM = 20  # what vLLM allows by default (--max-logprobs)
TOP_TGI = 5  # what TGI allows by default (--max-top-n-tokens)
BEGINNINGS = ("<|begin_of_text|>", "<|begin|>", "<s>")  # TGI's tokenizer adds one of its own

log = logging.getLogger("asearch.prm")


class Verdict(NamedTuple):
    """One score as a server gave it: exact or a bound, the tokens read for it, and the requests it took."""

    score: float
    bounded: bool
    tokens: int
    requests: int
    cached: int = 0  # of the tokens, those from the server's prefix cache


def scores_of(verdicts: Sequence[Verdict | Exception]) -> list[float]:
    """The scores of verdicts.

    Raises:
        EndpointError: the first that failed.
    """
    for verdict in verdicts:
        if isinstance(verdict, Exception):
            raise verdict
    return [verdict.score for verdict in verdicts if isinstance(verdict, Verdict)]


class Route(Protocol):
    """One way to get verdicts from a server."""

    async def verdicts(self, prefixes: list[str], replica: Replica | None = None) -> list[Verdict]:
        """The verdict after each of these texts, from a replica that was chosen for them."""
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
        self._batcher: Batcher[str, Verdict] = Batcher(
            self._ask, concurrency=concurrency, max_items=64, max_cost=400_000, cost=len, lane=self._place
        )
        self._scores: BatchMemo[str, Verdict] = BatchMemo(self._batcher)
        self._route: Route | None = None

    async def aclose(self) -> None:
        await self._batcher.aclose()
        await super().aclose()

    async def score(self, path: Path) -> list[float]:
        reading = Reading(path)
        if not reading.new:
            return reading.spread([])
        await self.connect()
        prefixes = self._prefixes(path, reading)
        ledger.get().open_call()
        async with self._room(prefixes):
            return reading.spread(scores_of(await self._verdicts(prefixes)))

    async def score_all(self, paths: Sequence[Path]) -> list[list[float] | Exception]:
        """As `score` for each path, without a task for each; where one failed, its exception stands in its place.

        For searches without a budget: no room is reserved.
        """
        await self.connect()
        begun: dict[Path, list[str]] = {}
        readings = [None if says_one_thing(path) else Reading(path) for path in paths]
        asked = [
            [self._next_prefix(path, begun)] if reading is None else self._prefixes(path, reading)
            for path, reading in zip(paths, readings, strict=True)
        ]
        verdicts = iter(await self._verdicts([prefix for prefixes in asked for prefix in prefixes]))
        results: list[list[float] | Exception] = []
        for reading, prefixes in zip(readings, asked, strict=True):
            try:
                scores = scores_of([next(verdicts) for _ in prefixes])
                results.append(scores if reading is None else reading.spread(scores))
            except EndpointError as failure:
                results.append(failure)
        return results

    def _next_prefix(self, path: Path, begun: dict[Path, list[str]]) -> str:
        """The text after which a verdict on a path's only new step is wanted; `begun` keeps what its siblings share."""
        before = path.parent
        assert before is not None and path.step is not None  # noqa: S101, PT018 - it has a step
        if before not in begun:
            begun[before] = self._reader.prefixes(path.problem, Reading(before).said)
        texts = self._reader.prefixes(path.problem, [path.step.text], begun[before])
        return with_beginnings(texts, [len(texts) - 1])[0] if self.endpoint.several else texts[-1]

    def _prefixes(self, path: Path, reading: Reading) -> list[str]:
        """The texts after which a verdict is wanted."""
        if not reading.new:
            return []
        texts = self._reader.prefixes(path.problem, reading.said)
        return with_beginnings(texts, reading.new) if self.endpoint.several else [texts[i] for i in reading.new]

    def _place(self, prefix: str) -> Replica | None:
        return place(self.endpoint, lambda: getattr(prefix, "beginnings", ()), self._batcher.waiting_in)

    def _room(self, prefixes: list[str]) -> AbstractAsyncContextManager[int]:
        """Room in the search's budget for reading these texts."""
        if self.server == "tgi":  # which does not say what it read: what will be booked is known beforehand
            return ledger.get().reserved(sum(presumed_tokens(without_beginning(prefix)) for prefix in prefixes))
        return self._tokens_of.room(prefixes, special=self._reader.bos)

    async def _verdicts(self, prefixes: list[str]) -> list[Verdict | Exception]:
        """The verdicts after texts; what nobody asked before is booked for this search."""
        new: list[Verdict] = []
        try:
            with ledger.get().outstanding("prm"):
                return await self._scores.get(prefixes, new.append)
        finally:
            if new:
                ledger.get().book(
                    prm_requests=sum(verdict.requests for verdict in new),
                    prm_tokens=sum(verdict.tokens for verdict in new),
                    prm_cached_tokens=sum(verdict.cached for verdict in new),
                    scored=len(new),
                )
            if any(verdict.bounded for verdict in new):
                self._note_bound(sum(verdict.bounded for verdict in new))

    def _note_bound(self, more: int) -> None:
        if not self.bounded:
            log.warning("%s: a verdict token is not among the likeliest; such scores are bounds", self.endpoint.url)
        self.bounded += more

    async def _ask(self, prefixes: list[str], replica: Replica | None) -> list[Verdict]:
        assert self._route is not None  # noqa: S101 - score() has connected
        try:
            return await self._route.verdicts(prefixes, replica)
        except _CannotSingleOut:
            # An older vLLM. It stays what it is, so this is asked once.
            self._route = LikeliestTokens(self.endpoint, self.model, self._reader, self.verdicts, self._tokens_of)
            return await self._route.verdicts(prefixes, replica)
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
        self._route = SingledOut(self.endpoint, self.model, self._reader, self.verdicts, self._tokens_of)

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

    A server without a chat template leaves the published one. (One that fails just now does not: it may have a template.)
    """
    if family.turns is None:
        return family
    try:
        text = await render(probe_chat(family.good))
    except (NotFound, BadRequest, ProtocolError, KeyError, TypeError):
        return family
    turns = cut_turns(text, family.good)
    return replace(family, turns=turns) if turns else family


class _CannotSingleOut(Exception):
    """The server does not know `logprob_token_ids`."""


class SingledOut:
    """vLLM's `logprob_token_ids`: exactly the two log-probabilities, for many texts in one request."""

    def __init__(
        self, endpoint: Endpoint, model: str | None, family: Family, verdicts: tuple[int, int], tokens: Counter
    ) -> None:
        self._endpoint, self._model, self._family = endpoint, model, family
        self._ids, self._tokens_of = verdicts, tokens

    async def verdicts(self, prefixes: list[str], replica: Replica | None = None) -> list[Verdict]:
        body = {
            "model": self._model,
            "prompt": prefixes,
            "max_tokens": 1,
            "temperature": 0.0,
            "add_special_tokens": self._family.bos,
            "return_tokens_as_token_ids": True,
            **self._logprobs(),
        }
        reply = await self._send(body, len(prefixes), replica)
        choices = listed(reply, "choices", len(prefixes), self._endpoint)
        most = [self._tokens_of.most(prefix, special=self._family.bos) for prefix in prefixes]
        shares = read_in(reply, [len(prefix) for prefix in prefixes], most)
        verdicts = []
        for i, (choice, read) in enumerate(zip(choices, shares, strict=True)):
            score, bounded = self._score(choice)
            verdicts.append(Verdict(score, bounded, read.tokens, int(i == 0), read.cached))
        return verdicts

    def _logprobs(self) -> Json:
        return {"logprobs": 0, "logprob_token_ids": list(self._ids)}  # without logprobs the ids are not read

    async def _send(self, body: Json, count: int, replica: Replica | None) -> Json:
        try:
            return await self._endpoint.post("/v1/completions", body, units=count, replica=replica)
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

    async def _send(self, body: Json, count: int, replica: Replica | None) -> Json:
        return await self._endpoint.post("/v1/completions", body, units=count, replica=replica)

    def _score(self, choice: Json) -> tuple[float, bool]:
        top = _top_logprobs(choice, self._endpoint)
        names = zip(self._ids, (self._family.good, self._family.bad), strict=True)
        found = [top.get(f"token_id:{token}", top.get(text)) for token, text in names]
        return bound(found, list(top.values()), self._family, self._endpoint)


class TgiTokens:
    """TGI's `top_n_tokens`, one text per request."""

    def __init__(self, endpoint: Endpoint, family: Family, verdicts: tuple[int, int]) -> None:
        self._endpoint, self._family, self._ids = endpoint, family, verdicts

    async def verdicts(self, prefixes: list[str], replica: Replica | None = None) -> list[Verdict]:
        return await together(self._verdict(prefix, replica) for prefix in prefixes)

    async def _verdict(self, prefix: str, replica: Replica | None) -> Verdict:
        text = without_beginning(prefix)
        parameters = {"max_new_tokens": 1, "details": True, "top_n_tokens": TOP_TGI, "do_sample": False}
        reply = await self._endpoint.post(
            "/generate", {"inputs": text, "parameters": parameters}, units=1, replica=replica
        )
        try:
            top = {int(token["id"]): float(token["logprob"]) for token in reply["details"]["top_tokens"][0]}
        except (KeyError, TypeError, IndexError, ValueError):
            raise ProtocolError(
                "the reply lacks details.top_tokens; is top_n_tokens allowed there?", endpoint=self._endpoint.url
            ) from None
        found = [top.get(token) for token in self._ids]
        score, bounded = bound(found, list(top.values()), self._family, self._endpoint)
        return Verdict(score, bounded, presumed_tokens(text), 1)


def without_beginning(text: str) -> str:
    """A text without the token that TGI's tokenizer puts before it in any case."""
    for beginning in BEGINNINGS:
        text = text.removeprefix(beginning)
    return text


def presumed_tokens(text: str) -> int:
    """How many tokens are booked for a text that TGI reads, which does not say: one has about four characters."""
    return len(text) // 4 + 1


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
