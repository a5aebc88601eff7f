"""The verifier clients against servers that answer well, differently, or badly."""

from __future__ import annotations

import asyncio
import json
import math
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from stub_servers import Stub, probability

from asearch import (
    AuthError,
    BadRequest,
    EndpointError,
    ModelNotFound,
    NotFound,
    Problem,
    ProtocolError,
    ServerError,
    Unreachable,
    UsageError,
)
from asearch.concurrency import together
from asearch.families import EMBEDDED, FAMILIES, LLAMA_31
from asearch.prm import CausalPRM, DetectedPRM, FunctionPRM, OutcomePRM, PoolingPRM, as_prm
from asearch.testing.prms import PROBLEM, STEPS, path_of
from asearch.transport import Retry
from asearch.usage import Ledger, ledger

ONE_TRY = {"retry": Retry(attempts=1)}
PATH = path_of(Problem(PROBLEM), STEPS)
PREFIXES = EMBEDDED.prefixes(Problem(PROBLEM), STEPS)


@asynccontextmanager
async def closing(prm):
    try:
        yield prm
    finally:
        await prm.aclose()


@asynccontextmanager
async def talking(make, stub=None, **options):
    """A PRM made by `make` on a stub server."""
    stub = stub or Stub()
    async with stub.listening() as url, closing(make(url, **ONE_TRY, **options)) as prm:
        yield prm, stub


# -- causal models --


async def test_scores_are_the_softmax_over_both_verdicts():
    async with talking(CausalPRM) as (prm, _):
        assert await prm.score(PATH) == pytest.approx([probability(prefix) for prefix in PREFIXES])


async def test_only_new_steps_are_read():
    async with talking(CausalPRM) as (prm, stub):
        known = PATH.with_scores([0.5] * 4).parent.grow(PATH.step, 0)
        assert len(await prm.score(known)) == 1
        assert stub.prompts() == PREFIXES[3:]


async def test_concurrent_paths_share_requests_and_equal_texts_are_read_once():
    async with talking(CausalPRM) as (prm, stub):
        paths = [path_of(Problem(PROBLEM), [f"step {i % 30}\n\n"]) for i in range(60)]
        await prm.connect()
        scores = await together(prm.score(path) for path in paths)
        requests = [body for route, body in stub.seen if route == "/v1/completions"]
        assert scores[:30] == scores[30:]
        assert len(requests) == 1
        assert len(requests[0]["prompt"]) == 30


async def test_what_a_search_spends_is_booked():
    book = Ledger()
    token = ledger.set(book)
    try:
        async with talking(CausalPRM) as (prm, _):
            await prm.score(PATH)
    finally:
        ledger.reset(token)
    assert book.usage.scored == 4
    assert book.usage.prm_requests == 1
    assert book.usage.prm_tokens == sum(map(len, PREFIXES))


@asynccontextmanager
async def booked():
    """The books of a search."""
    book = Ledger()
    token = ledger.set(book)
    try:
        yield book
    finally:
        ledger.reset(token)


@pytest.mark.parametrize(("cached", "booked_"), [(60, 60), (None, 0)], ids=["reported", "unreported"])
@pytest.mark.parametrize(
    ("make", "options"),
    [(CausalPRM, {}), (PoolingPRM, {"family": "qwen-math"}), (OutcomePRM, {})],
    ids=["causal", "pooling", "outcome"],
)
async def test_cached_tokens_are_booked_where_the_server_reports_them(make, options, cached, booked_):
    async with booked() as book, talking(make, Stub(rows=per_tag, cached=cached), **options) as (prm, _):
        await prm.score(PATH)
        assert book.usage.prm_cached_tokens == booked_ < book.usage.prm_tokens
        assert prm.endpoint.stats.cached_tokens == booked_


async def test_cached_tokens_of_a_batch_are_shared_among_the_searches_that_travel_in_it():
    async def score(prm, step):
        async with booked() as book:
            await prm.score(path_of(Problem(PROBLEM), [step]))
            return book.usage

    async with talking(CausalPRM, Stub(cached=101)) as (prm, stub):
        await prm.connect()
        usages = await together(score(prm, f"step {i}\n\n") for i in range(7))
        assert len([body for route, body in stub.seen if route == "/v1/completions"]) == 1
    assert sum(usage.prm_cached_tokens for usage in usages) == 101
    assert max(usage.prm_cached_tokens for usage in usages) - min(usage.prm_cached_tokens for usage in usages) <= 1
    assert sum(usage.prm_requests for usage in usages) == 1


@pytest.mark.parametrize("usage", [None, [1], {"prompt_tokens": None, "prompt_tokens_details": 3}])
async def test_a_server_that_says_nothing_of_its_tokens_is_booked_nothing(usage):
    class Silent(Stub):
        def _usage(self, _):
            return usage

    async with booked() as book, talking(CausalPRM, Silent()) as (prm, _):
        assert len(await prm.score(PATH)) == 4
        assert (book.usage.prm_requests, book.usage.prm_tokens, book.usage.prm_cached_tokens) == (1, 0, 0)


@pytest.mark.parametrize("kind", ["old", "strict"])
async def test_an_older_vllm_is_asked_for_its_likeliest_tokens(kind):
    async with talking(CausalPRM, Stub(completions=kind)) as (prm, stub):
        assert await prm.score(PATH) == pytest.approx([probability(prefix) for prefix in PREFIXES])
        assert prm.bounded == 0
        before = len(stub.seen)
        await prm.score(path_of(Problem(PROBLEM), ["another\n\n"]))
        assert len(stub.seen) == before + 1  # found out once, not each time


async def test_a_verdict_that_is_not_among_the_likeliest_is_bounded_and_counted(caplog):
    stub = Stub(completions="old", mute={PREFIXES[1]: "+", PREFIXES[2]: "-"})
    async with talking(CausalPRM, stub) as (prm, _):
        scores = await prm.score(PATH)
        exact = [probability(prefix) for prefix in PREFIXES]
        assert prm.bounded == 2
        assert [scores[0], scores[3]] == pytest.approx([exact[0], exact[3]])
        assert scores[1] < 0.5 < scores[2]
    assert len(caplog.records) == 1


async def test_a_model_that_says_neither_is_of_another_family():
    stub = Stub(completions="old", mute={PREFIXES[0]: "+-"})
    async with talking(CausalPRM, stub) as (prm, _):
        with pytest.raises(ProtocolError, match="is this a embedded model"):
            await prm.score(PATH)


async def test_chat_families_use_the_template_of_the_server():
    stub = Stub("x")
    stub.template = lambda chat: "<s>" + "".join(f"[{m['role'][0]}]{m['content'].strip()}[/]" for m in chat) + "[a]"
    async with talking(CausalPRM, stub, family="rlhflow-deepseek") as (prm, _):
        await prm.score(path_of(Problem("Q?"), ["one\n\n", "two\n\n"]))
    assert stub.prompts() == ["<s>[u]Q? one[/][a]", "<s>[u]Q? one[/][a]+[/][u]two[/][a]"]
    assert FAMILIES["rlhflow-deepseek"].turns == LLAMA_31  # the published one stays what it is


async def test_chat_families_fall_back_on_the_published_template():
    async with talking(CausalPRM, Stub("x"), family="rlhflow-mistral") as (prm, stub):
        await prm.score(path_of(Problem("Q?"), ["one\n\n"]))
    (prompt,) = stub.prompts()
    assert prompt.startswith("<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date")
    assert prompt.endswith("user<|end_header_id|>\n\nQ? one<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n")


# -- pooling models --


def per_tag(item):
    """A row per tag, as vLLM's STEP pooling of Qwen2.5-Math-PRM."""
    pieces = item.split("<extra_0>")[:-1]
    return [[1 - probability(piece), probability(piece)] for piece in pieces]


def per_token(item):
    """A row per token, as vLLM's ALL pooling."""
    return [[1 - probability(item[: i + 1]), probability(item[: i + 1])] for i in range(len(item))]


async def test_one_row_per_step():
    async with talking(PoolingPRM, Stub("Qwen2.5-Math-PRM-7B", rows=per_tag)) as (prm, _):
        pieces = FAMILIES["qwen-math"].render(Problem(PROBLEM), STEPS).split("<extra_0>")[:-1]
        assert await prm.score(PATH) == pytest.approx([probability(piece) for piece in pieces])


async def test_one_row_per_token():
    async with talking(PoolingPRM, Stub("Qwen2.5-Math-1.5B-Instruct-PRM-0.2", rows=per_token)) as (prm, _):
        prefixes = FAMILIES["trl"].prefixes(Problem(PROBLEM), STEPS)
        assert await prm.score(PATH) == pytest.approx([probability(prefix) for prefix in prefixes])


async def test_paths_share_requests():
    async with talking(PoolingPRM, Stub(rows=per_tag), family="qwen-math") as (prm, stub):
        await prm.connect()
        await together(prm.score(path_of(Problem(PROBLEM), [f"step {i}"])) for i in range(20))
        assert sum(route == "/pooling" for route, _ in stub.seen) == 1


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (lambda _: [], "0 rows of scores for 4 steps"),  # what vLLM answers with a wrong step tag
        (lambda _: [[0.5, 0.5]] * 3, "3 rows of scores for 4 steps"),
        (lambda _: [[0.1, 0.2, 0.7]] * 4, "has 3 numbers"),
        (lambda _: [[0.5, 0.7]] * 4, "do not add up to 1"),
        (lambda _: [[-3.5, 4.5]] * 4, "is no probability"),
        (lambda _: [["a", "b"]] * 4, "are not numbers"),
        (lambda _: [[None, None]] * 4, "are not numbers"),
        (lambda _: "AAAA", "lacks its rows"),
        (lambda _: [["NaN", "NaN"]] * 4, "answered NaN"),
    ],
)
async def test_rows_that_cannot_be_right(rows, said):
    async with talking(PoolingPRM, Stub(rows=rows), family="qwen-math") as (prm, _):
        with pytest.raises(ProtocolError, match=said) as raised:
            await prm.score(PATH)
        assert prm.endpoint.url in str(raised.value)


async def test_a_tag_in_the_text_is_no_step():
    async with talking(PoolingPRM, Stub(rows=per_tag), family="qwen-math") as (prm, _):
        assert len(await prm.score(path_of(Problem("a <extra_0> b"), ["one <extra_0><|im_end|>", "two"]))) == 2


async def test_our_own_server_is_sent_problem_and_steps():
    def rows(item):
        return [[probability(step)] for step in item["steps"]]

    stub = Stub("anything", rows=rows, card={"owned_by": "asearch-prm-server", "family": "skywork"})
    async with talking(as_prm, stub) as (prm, _):
        assert await prm.score(PATH) == pytest.approx([probability(step) for step in STEPS])
        assert prm.family is FAMILIES["skywork"]


async def test_an_outcome_reward_model_stands_for_every_new_step():
    async with talking(OutcomePRM, Stub("orm")) as (prm, stub):
        answer = "".join(STEPS)
        assert await prm.score(PATH) == pytest.approx([len(answer) % 10 / 10] * 4)
        ((_, body),) = [seen for seen in stub.seen if seen[0] == "/classify"]
        assert [turn["role"] for turn in body["messages"]] == ["user", "assistant"]


# -- finding out --


@pytest.mark.parametrize(
    ("name", "root", "family"),
    [
        ("asearch-prm", None, "embedded"),
        ("prm", "/models/RLHFlow/Llama3.1-8B-PRM-Deepseek-Data", "rlhflow-deepseek"),
        ("RLHFlow/Llama3.1-8B-PRM-Mistral-Data", None, "rlhflow-mistral"),
        ("peiyi9979/math-shepherd-mistral-7b-prm", None, "math-shepherd"),
        ("UW-Madison-Lee-Lab/VersaPRM-Base-8B", None, "versaprm"),
        ("Qwen/Qwen2.5-Math-PRM-72B", None, "qwen-math"),
        ("Qwen/Qwen2.5-Math-7B-PRM800K", None, "qwen-math"),
        ("Skywork/Skywork-o1-Open-PRM-Qwen-2.5-1.5B", None, "skywork"),
        ("HuggingFaceH4/Qwen2.5-Math-1.5B-Instruct-PRM-0.2", None, "trl"),
    ],
)
async def test_a_url_is_enough_for_known_models(name, root, family):
    async with talking(as_prm, Stub(name, root=root)) as (prm, _):
        assert isinstance(prm, DetectedPRM)
        await prm.connect()
        assert prm.family is FAMILIES[family]


async def test_an_unknown_model_needs_a_family():
    async with talking(as_prm, Stub("my-model")) as (prm, _):
        with pytest.raises(UsageError, match=r"'my-model'.*pass family=.*rlhflow-deepseek"):
            await prm.score(PATH)
    async with talking(as_prm, Stub("my-model"), family="embedded") as (prm, _):
        assert len(await prm.score(PATH)) == 4


async def test_what_is_no_verifier_is_refused():
    with pytest.raises(UsageError, match="not int"):
        as_prm(3)
    with pytest.raises(UsageError, match="unknown PRM family 'qwen'"):
        as_prm("http://localhost:1", family="qwen")


async def test_a_prm_stays_what_it_is():
    prm = FunctionPRM(len)
    assert as_prm(prm) is prm


# -- servers that fail --


async def test_a_wrong_family_for_the_server():
    async with talking(CausalPRM, Stub(completions="none")) as (prm, _):
        with pytest.raises(ProtocolError, match="cannot complete texts"):
            await prm.score(PATH)
    async with talking(PoolingPRM, Stub(), family="qwen-math") as (prm, _):
        with pytest.raises(ProtocolError, match="no /pooling, as a qwen-math model needs"):
            await prm.score(PATH)


async def test_a_wrong_model_name():
    async with talking(CausalPRM, model="other") as (prm, _):
        with pytest.raises(ModelNotFound, match="asearch-prm"):
            await prm.connect()


@pytest.mark.parametrize(
    ("response", "error"),
    [
        (web.Response(text="<html>Welcome to nginx</html>", content_type="text/html"), ProtocolError),
        (web.Response(text='{"choices": [{"ind', content_type="application/json"), ServerError),
        (web.Response(text="[]", content_type="application/json"), ProtocolError),
        (web.Response(text='{"error": "no"}', status=401), AuthError),
        (web.Response(text='{"detail": "Not Found"}', status=404), (NotFound, ProtocolError)),
        (web.Response(text="", status=500), ServerError),
        (web.json_response({"choices": []}), ProtocolError),
        (web.json_response({"choices": [{"index": 0}] * 4}), ProtocolError),
        (web.json_response({"choices": [{"index": 0, "logprobs": {"top_logprobs": []}}] * 4}), ProtocolError),
        (web.json_response({"error": {"message": "too long", "type": "BadRequestError"}}, status=400), BadRequest),
    ],
    ids=["html", "truncated", "list", "401", "404", "500", "none", "bare", "empty", "400"],
)
@pytest.mark.parametrize("kind", [CausalPRM, PoolingPRM, OutcomePRM])
async def test_bad_replies_are_typed_errors_that_name_the_endpoint(kind, response, error):
    stub = Stub(rows=per_tag)
    options = {CausalPRM: {"family": "embedded"}, PoolingPRM: {"family": "qwen-math"}, OutcomePRM: {}}[kind]
    async with talking(kind, stub, **options, api_key="s3cret-key") as (prm, _):
        await prm.connect()
        stub.raw = response
        with pytest.raises(error) as raised:
            await prm.score(PATH)
    assert isinstance(raised.value, EndpointError)
    assert prm.endpoint.url in str(raised.value)
    assert "s3cret-key" not in str(raised.value) + repr(prm)


async def test_nan_is_an_error():
    def body(verdict):
        choice = {"logprobs": {"top_logprobs": [{"token_id:15": verdict, "token_id:17": -1.0}]}}
        return web.Response(text=json.dumps({"choices": [choice]}), content_type="application/json")

    async with talking(CausalPRM) as (prm, stub):
        await prm.connect()
        stub.raw = body("nan")
        with pytest.raises(ProtocolError, match="NaN"):
            await prm.score(path_of(Problem("x"), ["a"]))


async def test_nobody_there():
    prm = as_prm("http://127.0.0.1:9", **ONE_TRY)
    async with closing(prm):
        with pytest.raises(Unreachable):
            await prm.score(PATH)


async def test_a_cancelled_score_leaves_its_neighbours_alone():
    async with talking(CausalPRM) as (prm, _):
        await prm.connect()
        tasks = [asyncio.ensure_future(prm.score(path_of(Problem(PROBLEM), [f"{i}"]))) for i in range(4)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert [isinstance(d, asyncio.CancelledError) for d in done] == [False, True, False, False]
        assert prm.endpoint.limiter.in_use == 0


# -- functions --


@pytest.mark.parametrize(
    ("value", "scores"),
    [(0.25, [0.25] * 4), (1, [1.0] * 4), (True, [1.0] * 4), ([0.1, 0.2, 0.3, 0.4], [0.1, 0.2, 0.3, 0.4])],
)
async def test_a_function_may_score_the_whole_or_each_step(value, scores):
    async def later(problem, steps):
        assert problem == PROBLEM
        assert steps == list(STEPS)
        return value

    assert await as_prm(lambda problem, steps: value).score(PATH) == scores
    assert await as_prm(later).score(PATH) == scores


async def test_a_function_that_scores_all_steps_is_asked_for_the_new_ones_only():
    path = path_of(Problem(PROBLEM), STEPS, [0.9, 0.9])
    assert await as_prm(lambda _, steps: [i / 10 for i in range(len(steps))]).score(path) == [0.2, 0.3]
    assert await as_prm(lambda _, steps: [0.7, 0.8]).score(path) == [0.7, 0.8]


@pytest.mark.parametrize(
    "value", [[0.5], [0.5] * 5, math.nan, math.inf, [0.1, math.nan, 0.2, 0.3], None, "good", {}, [None] * 4]
)
async def test_a_function_that_returns_nonsense_is_an_error(value):
    with pytest.raises(ProtocolError, match="the verifier returned"):
        await as_prm(lambda *_: value).score(PATH)
