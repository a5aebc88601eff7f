"""The budget of a search and verifiers that read texts with templates and tags around the steps: bounds, and exact counts."""

from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from stub_servers import Stub

from asearch import Budget, Problem
from asearch.families import FAMILIES
from asearch.prm import CausalPRM, OutcomePRM, PoolingPRM
from asearch.prm.base import OWN_SERVER
from asearch.prm.tokens import most_tokens
from asearch.serving import listening, url_of
from asearch.testing.prms import PROBLEM, STEPS, path_of
from asearch.transport import Retry
from asearch.usage import BudgetSpent, Ledger, ledger

TINY = path_of(Problem("1+1?"), ["2"])


class Reader:
    """A server that counts four characters as one token, wherever it is asked, and puts a template around chats."""

    def __init__(self, *, tokenize=True, card=None):
        self.tokenize, self.card, self.counted, self.read = tokenize, card or {}, 0, 0

    @asynccontextmanager
    async def listening(self):
        app = web.Application()
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/pooling", self._pooling)
        app.router.add_post("/classify", self._classify)
        if self.tokenize:
            app.router.add_post("/tokenize", self._tokenize)
        async with listening(app) as runner:
            yield url_of(runner)

    @staticmethod
    def tokens(body):
        if "messages" in body:
            return 40 + sum(tokens_of(turn["content"]) for turn in body["messages"])
        if "problem" in body:
            return tokens_of(FAMILIES["qwen-math"].render(Problem(body["problem"]), body["steps"]))
        return tokens_of(body["prompt"])

    async def _models(self, _):
        return web.json_response({"data": [{"id": "reader", "max_model_len": 4096, **self.card}]})

    async def _tokenize(self, request):
        self.counted += 1
        return web.json_response({"tokens": [7] * self.tokens(await request.json())})

    async def _pooling(self, request):
        inputs = (await request.json())["input"]
        inputs = [FAMILIES["qwen-math"].render(TINY.problem, i["steps"]) if isinstance(i, dict) else i for i in inputs]
        steps = [text.count("<extra_0>") if isinstance(text, str) else 1 for text in inputs]
        read = sum(tokens_of(text) if isinstance(text, str) else len(text) for text in inputs)
        self.read += read
        data = [{"index": i, "data": [[0.4, 0.6]] * count} for i, count in enumerate(steps)]
        return web.json_response({"data": data, "usage": {"prompt_tokens": read}})

    async def _classify(self, request):
        read = self.tokens(await request.json())
        self.read += read
        return web.json_response({"data": [{"index": 0, "probs": [0.3, 0.7]}], "usage": {"prompt_tokens": read}})


def tokens_of(text):
    return -(-len(text) // 4)


@asynccontextmanager
async def scoring(make, reader, tokens, **options):
    """A verifier inside a search that may spend so many tokens."""
    book = Ledger(Budget(tokens=tokens))
    before = ledger.set(book)
    try:
        async with reader.listening() as url:
            prm = make(url, retry=Retry(attempts=1), **options)
            try:
                yield prm, book
            finally:
                await prm.aclose()
    finally:
        ledger.reset(before)
        assert book.usage.tokens <= tokens
        assert book._reserved == 0


KINDS = [(PoolingPRM, {"family": "qwen-math"}), (PoolingPRM, {"family": "skywork"}), (OutcomePRM, {})]
kinds = pytest.mark.parametrize(("make", "options"), KINDS, ids=["text", "fragments", "chat"])


@kinds
async def test_templates_and_tags_count_though_problem_and_steps_are_short(make, options):
    """Six bytes of problem and step, and a template around them that costs more: refused before it is sent."""
    reader = Reader()
    async with scoring(make, reader, 6, **options) as (prm, book):
        with pytest.raises(BudgetSpent):
            await prm.score(TINY)
        assert (reader.read, book.usage.prm_tokens) == (0, 0)


@kinds
async def test_near_the_end_of_a_budget_the_exact_number_decides(make, options):
    reader = Reader()
    async with scoring(make, reader, 10**6, **options) as (prm, book):
        await prm.score(TINY)
        needed = book.usage.prm_tokens
        if make is OutcomePRM or options["family"] == "qwen-math":
            assert reader.counted == 0  # there was room by the bound: the server was not asked
    for tokens, enough in ((needed, True), (needed - 1, False)):
        async with scoring(make, Reader(), tokens, **options) as (prm, book):
            if enough:
                assert len(await prm.score(TINY)) == 1
                assert book.usage.prm_tokens == needed
            else:
                with pytest.raises(BudgetSpent):
                    await prm.score(TINY)


async def test_where_nobody_can_count_the_bound_decides():
    text = FAMILIES["qwen-math"].render(TINY.problem, ["2"])
    for tokens, enough in ((most_tokens(text), True), (most_tokens(text) - 1, False)):
        async with scoring(PoolingPRM, Reader(tokenize=False), tokens, family="qwen-math") as (prm, _):
            if enough:
                assert len(await prm.score(TINY)) == 1
            else:
                with pytest.raises(BudgetSpent):
                    await prm.score(TINY)


@pytest.mark.parametrize("tokenize", [True, False], ids=["exact", "bound"])
async def test_our_own_server_reads_a_template_too_though_only_steps_are_sent(tokenize):
    """The exact number where it has /tokenize, the bound by bytes where it is older."""
    card = {"owned_by": OWN_SERVER, "family": "qwen-math"}
    text = FAMILIES["qwen-math"].render(TINY.problem, ["2"])
    room = tokens_of(text) if tokenize else most_tokens(text)
    for tokens, enough in ((room, True), (room - 1, False)):
        reader = Reader(card=card, tokenize=tokenize)
        async with scoring(PoolingPRM, reader, tokens) as (prm, book):
            if enough:
                assert len(await prm.score(TINY)) == 1
                assert len(TINY.problem.text + TINY.text) < book.usage.prm_tokens <= room
            else:
                with pytest.raises(BudgetSpent):
                    await prm.score(TINY)
            assert reader.counted == tokenize


async def test_our_own_server_is_not_asked_to_count_while_there_is_room():
    reader = Reader(card={"owned_by": OWN_SERVER, "family": "qwen-math"})
    async with scoring(PoolingPRM, reader, 10**6) as (prm, _):
        await prm.score(TINY)
    assert reader.counted == 0


async def test_a_server_that_fails_just_now_has_no_template_of_its_own_yet():
    """Its failure is raised: the published template in place of the server's would change scores without a word."""

    class Failing(Stub):
        async def _tokenize(self, request):
            if "messages" in await request.json():
                return web.json_response({"error": "out of memory"}, status=500)
            return await super()._tokenize(request)

    async with Failing("prm-deepseek-data").listening() as url:
        prm = CausalPRM(url, retry=Retry(attempts=2, first=0.001))
        try:
            with pytest.raises(Exception, match="out of memory"):
                await prm.score(path_of(Problem(PROBLEM), STEPS))
        finally:
            await prm.aclose()
