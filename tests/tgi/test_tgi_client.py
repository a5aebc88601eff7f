"""The TGI client on the stand-in: the laws, TGI's rules for parameters, and its errors."""

import asyncio

import pytest
from aiohttp import web
from huggingface_hub import AsyncInferenceClient, InferenceClient

from asearch.client import OpenAIClient, TGIClient, as_client
from asearch.errors import (
    BadRequest,
    ModelNotFound,
    Overloaded,
    ProtocolError,
    RequestTimeout,
    ServerError,
    Unreachable,
    UsageError,
)
from asearch.path import Path, Sampling, Step
from asearch.problem import Problem
from asearch.testing import assert_client_laws
from asearch.transport import Retry
from tgi.standin import MODEL, Refused

PATH = Path(Problem("What is $12 - 3 \\cdot (4 + 5)$?"))
ONCE = Retry(attempts=1)
FAST = Retry(first=0.001)


@pytest.fixture
async def client(standin):
    client = TGIClient(standin.url, retry=ONCE)
    yield client
    await client.aclose()


def generations(standin):
    return [body["parameters"] for route, _, body in standin.requests if route == "/generate"]


async def test_laws(standin, client):
    async def running():
        await asyncio.sleep(0)
        return standin.running

    await assert_client_laws(client, running=running)


async def test_siblings_are_requests_with_consecutive_seeds(standin, client):
    await client.extend(PATH, 3, sampling=Sampling(), seed=41)
    assert [asked["seed"] for asked in generations(standin)] == [42, 43, 44]
    assert standin.peak == 3


@pytest.mark.parametrize("seed", [0, -1, 2**63 - 2, 2**63 - 1, 2**70])
async def test_any_seed_becomes_one_that_tgi_takes(standin, client, seed):
    assert len(await client.extend(PATH, 2, sampling=Sampling(max_tokens=4), seed=seed)) == 2


async def test_neutral_parameters_are_left_out(standin, client):
    await client.extend(PATH, 1, sampling=Sampling(temperature=1.0, top_p=1.0, top_k=-1), seed=1)
    await client.extend(PATH, 1, sampling=Sampling(temperature=0.0), seed=1)
    sampled, greedy = generations(standin)
    assert (sampled["do_sample"], sampled["temperature"]) == (True, 1.0)
    assert not {"top_p", "top_k", "typical_p", "decoder_input_details"} & sampled.keys()
    assert greedy["do_sample"] is False
    assert not {"temperature", "seed", "top_p"} & greedy.keys()


async def test_other_parameters_are_passed_on(standin, client):
    await client.extend(PATH, 1, sampling=Sampling(top_p=0.9, top_k=20, repetition_penalty=1.1), seed=1)
    (asked,) = generations(standin)
    assert (asked["top_p"], asked["top_k"], asked["repetition_penalty"]) == (0.9, 20, 1.1)
    assert asked["stop"] == ["\n\n"]


async def test_one_bos_whatever_the_template_says(standin, client):
    step = (await client.extend(PATH, 1, sampling=Sampling(temperature=0.0), seed=1))[0]
    await client.extend(PATH.grow(step, 0), 1, sampling=Sampling(temperature=0.0), seed=1)
    first, second = standin.prompts
    assert first.count(first[0]) == 1
    assert second == [*first, *step.token_ids]


async def test_min_p_is_refused_before_anything_is_generated(standin, client):
    with pytest.raises(UsageError, match="min_p"):
        await client.extend(PATH, 1, sampling=Sampling(min_p=0.1), seed=1)
    assert not generations(standin)


async def test_the_context_is_never_overrun(standin, client):
    await client.connect()
    long = PATH
    while long.tokens < client.max_model_len - 90:
        long = long.grow(Step("## Step 1: Add\n\n", "step", None, 5), 0)
    steps = await client.extend(long, 2, sampling=Sampling(max_tokens=10_000), seed=1)
    assert {step.finish for step in steps} <= {"length", "step", "eos"}
    longer = long
    while longer.tokens < client.max_model_len:
        longer = longer.grow(Step("## Step 1: Add\n\n", "step", None, 5), 0)
    spent = await client.extend(longer, 2, sampling=Sampling(max_tokens=10_000), seed=1)
    assert [(step.text, step.finish) for step in spent] == [("", "length")] * 2


@pytest.mark.parametrize(
    ("refused", "expected"),
    [
        (Refused(422, "Input validation error: `top_k` must be strictly positive", "validation"), BadRequest),
        (Refused(424, "Request failed during generation", "generation"), ServerError),
        (Refused(429, "Model is overloaded", "overloaded"), Overloaded),
        (Refused(500, "Incomplete generation", "incomplete_generation"), ServerError),
    ],
)
async def test_errors_are_typed(standin, client, refused, expected):
    standin.next_replies.append(refused)
    with pytest.raises(expected) as caught:
        await client.extend(PATH, 1, sampling=Sampling(), seed=1)
    assert type(caught.value) is expected
    assert caught.value.status == refused.status
    assert standin.url in str(caught.value)
    assert str(refused) in str(caught.value)


async def test_overload_is_waited_out(standin):
    client = TGIClient(standin.url, retry=FAST)
    standin.next_replies += [Refused(429, "Model is overloaded", "overloaded", {"Retry-After": "0"})] * 2
    assert len(await client.extend(PATH, 1, sampling=Sampling(), seed=1)) == 1
    assert client.endpoint.stats.retries == 2
    await client.aclose()


async def test_no_more_at_once_than_the_server_takes(standin):
    standin.max_concurrent_requests = 3
    client = TGIClient(standin.url, retry=ONCE)
    steps = await client.extend(PATH, 12, sampling=Sampling(), seed=1)
    assert len(steps) == 12
    assert standin.peak == 3
    await client.aclose()


@pytest.mark.parametrize(
    "reply",
    [
        lambda: web.Response(text="<html>hello</html>", content_type="text/html"),
        lambda: web.Response(text='{"generated_text": "trunc', content_type="text/plain"),
        lambda: web.json_response([]),
        lambda: web.json_response({"generated_text": "without details"}),
    ],
    ids=["html", "truncated", "empty", "no details"],
)
async def test_an_answer_that_is_not_tgi(standin, client, reply):
    standin.next_replies.append(reply())
    with pytest.raises(ProtocolError, match="/generate"):
        await client.extend(PATH, 1, sampling=Sampling(), seed=1)
    standin.violations.clear()  # these replies were ours


async def test_a_server_that_is_no_tgi(servers):
    client = TGIClient(servers.policy)
    with pytest.raises(ProtocolError, match="no TGI; try OpenAIClient"):
        await client.connect()
    await client.aclose()


async def test_a_wrong_model_name_tells_what_there_is(standin):
    client = TGIClient(standin.url, model="meta/other")
    with pytest.raises(ModelNotFound, match=f"no model 'meta/other' here; it serves {MODEL}"):
        await client.connect()
    await client.aclose()


async def test_nobody_there_is_said_at_once():
    client = TGIClient("http://127.0.0.1:9", retry=Retry(attempts=50, first=30.0))
    with pytest.raises(Unreachable, match="is the server running"):
        await client.connect()
    assert client.endpoint.stats.retries == 0
    await client.aclose()


async def test_a_connection_lost_later(standin):
    client = TGIClient(standin.url, retry=ONCE)
    await client.connect()
    client.endpoint.replicas[0].url = "http://127.0.0.1:9"
    with pytest.raises(Unreachable):
        await client._one(PATH, "1", {"details": True, "max_new_tokens": 1})
    await client.aclose()


async def test_a_timeout_is_typed(standin):
    hub = AsyncInferenceClient(standin.url, timeout=0.05)
    client = TGIClient(hub, retry=ONCE)
    await client.connect()
    hang = asyncio.Event()
    standin.generate_hook = hang
    standin.next_replies.append(Hanging(hang))
    with pytest.raises(RequestTimeout):
        await client.extend(PATH, 1, sampling=Sampling(), seed=1)
    hang.set()
    await client.aclose()
    await hub.close()


class Hanging(web.StreamResponse):
    """A reply that does not come before an event."""

    def __init__(self, until):
        super().__init__()
        self.until = until

    async def prepare(self, request):
        await self.until.wait()
        return await super().prepare(request)


async def test_the_users_own_client_is_used_and_left_open(standin):
    hub = AsyncInferenceClient(standin.url, token="hf_secret_token", headers={"X-Team": "blue"})
    client = as_client(hub)
    assert isinstance(client, TGIClient)
    await client.extend(PATH, 1, sampling=Sampling(max_tokens=4), seed=1)
    await client.aclose()
    await client.extend(PATH, 1, sampling=Sampling(max_tokens=4), seed=1)  # still open
    for route, headers, _ in standin.requests:
        assert headers["X-Team"] == "blue", route
        assert headers["Authorization"] == "Bearer hf_secret_token", route
    assert client.model == MODEL
    assert "hf_secret" not in repr(client)
    await client.aclose()
    await hub.close()


async def test_as_client_knows_tgi_urls(standin):
    client = as_client(f"tgi+{standin.url}", limit=7)
    assert isinstance(client, TGIClient)
    await client.connect()
    assert client.endpoint.limiter.limit == 7
    await client.aclose()


async def test_a_plain_url_of_tgi_is_explained(standin):
    client = OpenAIClient(standin.url, model=MODEL)
    with pytest.raises(ProtocolError, match=f"pass 'tgi\\+{standin.url}'"):
        await client.connect()
    await client.aclose()


def test_what_it_cannot_be_made_from():
    with pytest.raises(UsageError, match="AsyncInferenceClient"):
        TGIClient(InferenceClient("http://localhost:1"))
    with pytest.raises(UsageError, match="URL of a TGI server"):
        TGIClient(AsyncInferenceClient("meta-llama/Llama-3.2-1B-Instruct"))
    with pytest.raises(UsageError, match="AsyncInferenceClient"):
        TGIClient(object())
