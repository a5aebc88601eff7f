"""Verifiers with a head of their own, over vLLM's `/pooling` and `/classify`, or this project's PRM server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from asearch.concurrency import Batcher, Memo, together
from asearch.errors import EndpointError, NotFound, ProtocolError
from asearch.prm.base import Reading, ServedPRM, checked, listed, read_tokens
from asearch.prm.placing import place
from asearch.prm.tokens import as_prompt, most_tokens, share_out
from asearch.usage import ledger

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractAsyncContextManager

    from asearch.families import Family
    from asearch.path import Path
    from asearch.problem import Problem
    from asearch.transport import Json, Replica


@dataclass(frozen=True, slots=True)
class _Item:
    """One path on its way: what is sent for it, and how to tell its rows from each other."""

    problem: Problem
    steps: tuple[str, ...]
    input: str | tuple[int, ...] | None  # None: problem and steps as they are, for our own server
    most: int  # tokens that the server can count for it
    ends: tuple[int, ...] | None = None  # tokens up to the end of each step, where they are known

    @property
    def size(self) -> int:
        return len(self.problem.text) + sum(map(len, self.steps))

    def beginnings(self) -> Iterator[int]:
        """Keys of the solution up to each of its steps, longest first."""
        return (hash((self.problem.text, self.steps[:k])) for k in range(len(self.steps), 0, -1))


@dataclass(frozen=True, slots=True)
class _Rows:
    """What came back for one path."""

    rows: list[list[float]]
    tokens: int
    requests: int


class PoolingPRM(ServedPRM):
    """A PRM that answers with one row per step (or per token), as vLLM's pooling models and our PRM server do.

    Qwen2.5-Math-PRM and PRM800K, TRL's token classifiers, and Skywork from our own server. The number of rows is
    checked against the number of steps: a server with a wrong step tag answers 200 and an empty list.

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
        self._scores: Memo[tuple[Problem, tuple[str, ...]], tuple[float, ...]] = Memo(self._score_steps)
        self._tokens: Memo[tuple[str, bool], tuple[int, ...]] = Memo(self._tokenize)
        self._batcher: Batcher[_Item, _Rows] = Batcher(
            self._ask,
            concurrency=concurrency,
            max_items=64,
            max_cost=400_000,
            cost=lambda item: item.size,
            lane=lambda item: place(self.endpoint, item.beginnings, self._batcher.waiting_in),
        )

    async def aclose(self) -> None:
        await self._batcher.aclose()
        await super().aclose()

    async def score(self, path: Path) -> list[float]:
        reading = Reading(path)
        if not reading.new:
            return reading.spread([])
        await self.connect()
        book = ledger.get()
        book.open_call()
        async with self._room(path.problem, reading.said):
            with book.outstanding("prm"):
                scores = await self._scores.get((path.problem, tuple(reading.said)))
        book.book(scored=len(reading.new))
        return reading.spread([scores[i] for i in reading.new])

    def _room(self, problem: Problem, steps: list[str]) -> AbstractAsyncContextManager[int]:
        """Room in the search's budget for reading these steps, as the family lays them out."""
        book = ledger.get()
        if book.budget.tokens is None:
            return book.reserved(0)
        text = self._reader.render(problem, steps)
        if self.server == "own":  # it reads steps, not texts, and cannot be asked how many tokens they have
            return book.reserved(most_tokens(text))
        if not self._reader.fragments:
            return self._tokens_of.room([text], special=self._reader.bos)

        async def exact() -> int:
            return (await self._item(problem, tuple(steps))).most

        return book.reserved(most_tokens(text), exact=exact)

    async def _score_steps(self, key: tuple[Problem, tuple[str, ...]]) -> tuple[float, ...]:
        problem, steps = key
        item = await self._item(problem, steps)
        got = await self._batcher.submit(item)
        ledger.get().book(prm_requests=got.requests, prm_tokens=got.tokens)
        rows = await self._per_step(item, got.rows)
        return tuple(self._score_row(row) for row in rows)

    async def _item(self, problem: Problem, steps: tuple[str, ...]) -> _Item:
        """What to send: the steps as they are to our own server, text or token ids to others."""
        if self.server == "own":
            return _Item(problem, steps, None, most_tokens(self._reader.render(problem, steps)))
        parts = self._reader.parts(problem, steps)
        if not self._reader.fragments:
            text = "".join(fragment for part in parts for fragment in part)
            return _Item(problem, steps, text, self._tokens_of.most(text, special=self._reader.bos))
        ids: list[int] = []
        ends: list[int] = []
        for part in parts:
            for tokens in await together(self._tokens.get((fragment, False)) for fragment in part):
                ids += tokens
            ends.append(len(ids))
        return _Item(problem, steps, tuple(ids), len(ids), tuple(ends))

    async def _ask(self, items: list[_Item], replica: Replica | None) -> list[_Rows]:
        inputs = [i.input if i.input is not None else {"problem": i.problem.text, "steps": i.steps} for i in items]
        body = {"model": self.model, "input": inputs, "add_special_tokens": self._reader.bos}
        try:
            reply = await self.endpoint.post("/pooling", body, units=len(items), replica=replica)
        except NotFound as failure:
            raise self._no_pooling(failure) from failure
        data = listed(reply, "data", len(items), self.endpoint)
        shares = share_out(read_tokens(reply), [item.size for item in items], [item.most for item in items])
        rows = [self._rows(entry) for entry in data]
        return [_Rows(r, share, int(i == 0)) for i, (r, share) in enumerate(zip(rows, shares, strict=True))]

    def _no_pooling(self, failure: EndpointError) -> ProtocolError:
        return ProtocolError(
            f"the server has no /pooling, as a {self._reader.name} model needs; {self._reader.hint or 'pass another family'}",
            endpoint=self.endpoint.url,
            status=failure.status,
        )

    def _rows(self, entry: Json) -> list[list[float]]:
        data = entry.get("data")
        if not isinstance(data, list):
            raise ProtocolError("the reply lacks its rows of scores", endpoint=self.endpoint.url)
        try:
            return [[float(v) for v in row] if isinstance(row, list) else [float(row)] for row in data]
        except (TypeError, ValueError):
            raise ProtocolError("the rows of scores are not numbers", endpoint=self.endpoint.url) from None

    async def _per_step(self, item: _Item, rows: list[list[float]]) -> list[list[float]]:
        """One row per step, from rows per step or per token."""
        if len(rows) == len(item.steps):
            return rows
        ends = item.ends
        if ends is None and isinstance(item.input, str) and len(rows) > len(item.steps):
            prefixes = self._reader.prefixes(item.problem, item.steps)
            ends = tuple([len(await self._tokens.get((prefix, self._reader.bos))) for prefix in prefixes])
        if ends is None or len(rows) != ends[-1]:
            tag = f" at {self._reader.tag!r}" if self._reader.tag else ""
            raise ProtocolError(
                f"{len(rows)} rows of scores for {len(item.steps)} steps; is the model of the family "
                f"{self._reader.name}, and does its server read{tag}? "
                "(vLLM: --pooler-config '{\"step_tag_id\": ID}')",
                endpoint=self.endpoint.url,
            )
        return [rows[end - 1] for end in ends]

    def _score_row(self, row: list[float]) -> float:
        """[p] or [p_bad, p_good] -> p_good."""
        if len(row) not in (1, 2):
            raise ProtocolError(
                f"a row of scores has {len(row)} numbers, not one or two; is this a PRM?", endpoint=self.endpoint.url
            )
        score = checked(row[-1], self.endpoint)
        if len(row) == 2 and abs(sum(row) - 1.0) > 0.02:  # half-precision servers are off by less
            raise ProtocolError(
                "the two numbers of a row do not add up to 1: the server must apply the softmax",
                endpoint=self.endpoint.url,
            )
        return score

    async def _tokenize(self, key: tuple[str, bool]) -> tuple[int, ...]:
        text, special = key
        body = {"model": self.model, "prompt": text, "add_special_tokens": special}
        tokens = (await self.endpoint.post("/tokenize", body)).get("tokens")
        if not isinstance(tokens, list):
            raise ProtocolError("/tokenize answered without tokens", endpoint=self.endpoint.url)
        return tuple(tokens)


class OutcomePRM(ServedPRM):
    """An outcome reward model over vLLM's `/classify`: one number for the solution so far.

    The number stands for every new step, so that with the reduction "last" best-of-N ranks by it.

    Args:
        url: the base URL, or an `openai.AsyncOpenAI`.
        model: the served model name; None takes the first that the server lists.
        api_key: a bearer token.
        label: which of the classes means "right"; the last by default.
        **endpoint: further arguments for `Endpoint`.
    """

    def __init__(
        self, url: Any, *, model: str | None = None, api_key: str | None = None, label: int = -1, **endpoint: Any
    ) -> None:
        super().__init__(url, model=model, family="outcome", api_key=api_key, **endpoint)
        self.label = label

    async def score(self, path: Path) -> list[float]:
        reading = Reading(path)
        if not reading.new:
            return reading.spread([])
        await self.connect()
        book = ledger.get()
        book.open_call()
        chat = [{"role": "user", "content": path.problem.text}, {"role": "assistant", "content": path.text.strip()}]
        async with self._tokens_of.room([as_prompt(chat)]):
            with book.outstanding("prm"):
                value = await self._classify(chat)
        book.book(scored=len(reading.new))
        return reading.spread([value] * len(reading.new))

    async def _classify(self, chat: Sequence[Json]) -> float:
        body = {"model": self.model, "messages": chat, "add_generation_prompt": False}
        try:
            reply = await self.endpoint.post("/classify", body)
        except NotFound as failure:
            raise ProtocolError(
                "the server has no /classify, as an outcome reward model needs; "
                "serve it with vLLM (--runner pooling --convert classify)",
                endpoint=self.endpoint.url,
                status=failure.status,
            ) from failure
        (entry,) = listed(reply, "data", 1, self.endpoint)
        ledger.get().book(prm_requests=1, prm_tokens=read_tokens(reply))
        try:
            return checked(float(entry["probs"][self.label]), self.endpoint)
        except (KeyError, TypeError, IndexError, ValueError):
            raise ProtocolError("the reply lacks its probabilities", endpoint=self.endpoint.url) from None
