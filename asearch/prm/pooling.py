"""Verifiers with a head of their own, over vLLM's `/pooling` and `/classify`, or this project's PRM server."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from asearch.concurrency import Batcher, BatchMemo, Memo, together
from asearch.errors import EndpointError, NotFound, ProtocolError
from asearch.prm.base import Reading, ServedPRM, checked, listed
from asearch.prm.placing import place
from asearch.prm.tokens import Read, Solution, as_prompt, most_tokens, read_in
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
    """One solution on its way: what is sent for it, and how to tell its rows from each other.

    Args:
        problem: of the solution.
        steps: their texts, none of them blank.
        input: as it is sent; None: problem and steps as they are, for our own server.
        most: tokens that the server can count for it.
        ends: tokens up to the end of each step, where they are known.
    """

    problem: Problem
    steps: tuple[str, ...]
    input: str | tuple[int, ...] | None = field(compare=False)
    most: int = field(compare=False)
    ends: tuple[int, ...] | None = field(default=None, compare=False)

    @property
    def size(self) -> int:
        return len(self.problem.text) + sum(map(len, self.steps))

    def beginnings(self) -> Iterator[int]:
        """Keys of the solution up to each of its steps, longest first."""
        return (hash((self.problem.text, self.steps[:k])) for k in range(len(self.steps), 0, -1))


@dataclass(frozen=True, slots=True)
class _Scores:
    """What came back for one solution: a score per step, the tokens read for it, and the requests it took."""

    scores: tuple[float, ...]
    read: Read
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
        self._tokens: Memo[tuple[str, bool], tuple[int, ...]] = Memo(self._tokenize)
        self._batcher: Batcher[_Item, _Scores] = Batcher(
            self._ask,
            concurrency=concurrency,
            max_items=64,
            max_cost=400_000,
            cost=lambda item: item.size,
            lane=lambda item: place(self.endpoint, item.beginnings, self._batcher.waiting_in),
        )
        self._scores: BatchMemo[_Item, _Scores] = BatchMemo(self._batcher)

    async def aclose(self) -> None:
        await self._batcher.aclose()
        await super().aclose()

    async def score(self, path: Path) -> list[float]:
        reading = Reading(path)
        if not reading.new:
            return reading.spread([])
        await self.connect()
        ledger.get().open_call()
        async with self._room(path.problem, reading.said):
            (scores,) = await self.score_all([path])
        if isinstance(scores, Exception):
            raise scores
        return scores

    async def score_all(self, paths: Sequence[Path]) -> list[list[float] | Exception]:
        """As `score` for each path, without a task for each; where one failed, its exception stands in its place.

        For searches without a budget: no room is reserved.
        """
        await self.connect()
        readings = [Reading(path) for path in paths]
        asked = [(path.problem, tuple(r.said)) for path, r in zip(paths, readings, strict=True) if r.new]
        with ledger.get().outstanding("prm"):
            found = iter(await self._read(await self._items(asked)))
        return [spread(reading, next(found)) if reading.new else reading.spread([]) for reading in readings]

    async def _read(self, items: Sequence[_Item | EndpointError]) -> list[_Scores | Exception]:
        """The scores of solutions; what nobody asked before is booked for this search."""
        new: list[_Scores] = []
        try:
            found = iter(await self._scores.get([i for i in items if isinstance(i, _Item)], new.append))
            return [next(found) if isinstance(item, _Item) else item for item in items]
        finally:
            ledger.get().book(
                prm_requests=sum(scores.requests for scores in new),
                prm_tokens=sum(scores.read.tokens for scores in new),
                prm_cached_tokens=sum(scores.read.cached for scores in new),
            )

    def _room(self, problem: Problem, steps: list[str]) -> AbstractAsyncContextManager[int]:
        """Room in the search's budget for reading these steps, as the family lays them out."""
        book = ledger.get()
        if book.budget.tokens is None:
            return book.reserved(0)
        if self.server == "own" or not self._reader.fragments:
            return self._tokens_of.room([self._prompt(problem, tuple(steps))], special=self._reader.bos)

        async def exact() -> int:
            return (await self._as_tokens(problem, tuple(steps))).most

        return book.reserved(most_tokens(self._reader.render(problem, steps)), exact=exact)

    def _prompt(self, problem: Problem, steps: tuple[str, ...]) -> str | Solution:
        """What is read, as the server can be asked to count it."""
        text = self._reader.render(problem, steps)
        return Solution(problem.text, steps, text) if self.server == "own" else text

    async def _items(self, asked: Sequence[tuple[Problem, tuple[str, ...]]]) -> list[_Item | EndpointError]:
        """What to send: the steps as they are to our own server, text or token ids to others."""
        if self.server == "own" or not self._reader.fragments:
            return [self._as_text(*solution) for solution in asked]

        async def as_tokens(problem: Problem, steps: tuple[str, ...]) -> _Item | EndpointError:
            try:
                return await self._as_tokens(problem, steps)
            except EndpointError as failure:
                return failure

        return await together(as_tokens(*solution) for solution in asked)

    def _as_text(self, problem: Problem, steps: tuple[str, ...]) -> _Item:
        prompt = self._prompt(problem, steps)
        most = self._tokens_of.most(prompt, special=self._reader.bos)
        return _Item(problem, steps, prompt if isinstance(prompt, str) else None, most)

    async def _as_tokens(self, problem: Problem, steps: tuple[str, ...]) -> _Item:
        ids: list[int] = []
        ends: list[int] = []
        for part in self._reader.parts(problem, steps):
            for tokens in await together(self._tokens.get((fragment, False)) for fragment in part):
                ids += tokens
            ends.append(len(ids))
        return _Item(problem, steps, tuple(ids), len(ids), tuple(ends))

    async def _ask(self, items: list[_Item], replica: Replica | None) -> list[_Scores | Exception]:
        inputs = [i.input if i.input is not None else {"problem": i.problem.text, "steps": i.steps} for i in items]
        body = {"model": self.model, "input": inputs, "add_special_tokens": self._reader.bos}
        try:
            reply = await self.endpoint.post("/pooling", body, units=len(items), replica=replica)
        except NotFound as failure:
            raise self._no_pooling(failure) from failure
        rows = [self._rows(entry) for entry in listed(reply, "data", len(items), self.endpoint)]
        reads = read_in(reply, [item.size for item in items], [item.most for item in items])
        found: list[_Scores | Exception] = []
        for item, its_rows, read in zip(await self._ended(items, rows), rows, reads, strict=True):
            first = not any(isinstance(scores, _Scores) for scores in found)
            try:
                found.append(_Scores(self._scores_in(item, its_rows), read, int(first)))
            except ProtocolError as failure:  # of this solution; the others have theirs
                found.append(failure)
        return found

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

    async def _ended(self, items: Sequence[_Item], rows: Sequence[list[list[float]]]) -> list[_Item]:
        """The items with the ends of their steps, where a text came back with a row per token."""

        async def ended(item: _Item) -> _Item:
            prefixes = self._reader.prefixes(item.problem, item.steps)
            lengths = [len(await self._tokens.get((prefix, self._reader.bos))) for prefix in prefixes]
            return replace(item, ends=tuple(lengths))

        per_token = [
            item
            for item, its in zip(items, rows, strict=True)
            if item.ends is None and isinstance(item.input, str) and len(its) > len(item.steps)
        ]
        known = dict(zip(per_token, await together(ended(item) for item in per_token), strict=True))
        return [known.get(item, item) for item in items]

    def _scores_in(self, item: _Item, rows: list[list[float]]) -> tuple[float, ...]:
        """One score per step, from rows per step or per token."""
        if len(rows) != len(item.steps):
            if item.ends is None or len(rows) != item.ends[-1]:
                raise self._wrong_rows(len(rows), len(item.steps))
            rows = [rows[end - 1] for end in item.ends]
        return tuple(self._score_row(row) for row in rows)

    def _wrong_rows(self, rows: int, steps: int) -> ProtocolError:
        tag = f" at {self._reader.tag!r}" if self._reader.tag else ""
        return ProtocolError(
            f"{rows} rows of scores for {steps} steps; is the model of the family "
            f"{self._reader.name}, and does its server read{tag}? "
            "(vLLM: --pooler-config '{\"step_tag_id\": ID}')",
            endpoint=self.endpoint.url,
        )

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


def spread(reading: Reading, found: _Scores | Exception) -> list[float] | Exception:
    """The scores of a reading's new steps, booked for this search; or why there are none."""
    if isinstance(found, Exception):
        return found
    ledger.get().book(scored=len(reading.new))
    return reading.spread([found.scores[i] for i in reading.new])


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
        (read,) = read_in(reply)
        ledger.get().book(prm_requests=1, prm_tokens=read.tokens, prm_cached_tokens=read.cached)
        try:
            return checked(float(entry["probs"][self.label]), self.endpoint)
        except (KeyError, TypeError, IndexError, ValueError):
            raise ProtocolError("the reply lacks its probabilities", endpoint=self.endpoint.url) from None
