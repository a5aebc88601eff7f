"""Chat requests by the official client, sync, async and streaming, answered by real searches."""

import asyncio
import re

import openai
import pytest
from proxies import QUESTION, events, running

import asearch
from asearch.strategies import STRATEGIES

USER = [{"role": "user", "content": QUESTION}]


@pytest.fixture
async def proxy(servers):
    async with running(servers.policy, servers.prm) as open_:
        yield open_


@pytest.fixture
async def client(proxy):
    async with openai.AsyncOpenAI(base_url=f"{proxy.url}/v1", api_key="none", max_retries=0) as made:
        yield made


async def test_models_are_strategies_with_budgets(client):
    models = {model.id: model async for model in client.models.list()}
    assert {"greedy", "majority-16", "best-of-n-16", "beam-search-4", "dvts-64", "particle-filter-4"} <= set(models)
    assert {name.replace("_", "-") for name in STRATEGIES} <= set(models), "every strategy of the library"
    assert models["dvts-64"].asearch["n"] == 64
    assert (await client.models.retrieve("dvts-16")).id == "dvts-16"
    assert (await client.models.retrieve("best_of_n-12")).id == "best-of-n-12", "a budget that is not listed"
    with pytest.raises(openai.NotFoundError, match=r"there are dvts-16") as caught:
        await client.models.retrieve("dvtz-16")
    assert caught.value.code == "model_not_found"


async def test_the_answer_is_that_of_the_library(client, servers):
    reply = await client.chat.completions.create(
        model="dvts-8", messages=USER, seed=3, extra_body={"asearch": {"details": True, "tree": True, "width": 2}}
    )
    result = await asearch.dvts(servers.policy, servers.prm, QUESTION, n=8, width=2, seed=3)
    choice = reply.choices[0]
    assert choice.message.content == result.text.strip()
    assert choice.finish_reason == "stop"
    details = choice.asearch
    assert details["answer"] == result.answer
    assert details["score"] == pytest.approx(result.score, abs=1e-4)
    assert [vote["answer"] for vote in details["votes"]] == [vote.answer for vote in result.votes]
    assert [c["text"] for c in details["candidates"]] == [path.text for path in result.paths]
    assert [c["scores"] for c in details["candidates"]] == [
        pytest.approx(path.scores, abs=1e-4) for path in result.paths
    ]
    assert [tuple(node["id"]) for node in details["tree"]] == [node.path.id for node in result.tree.nodes]
    assert reply.usage.completion_tokens == result.usage.policy_tokens
    assert reply.usage.prompt_tokens == result.usage.policy_prompt_tokens + result.usage.prm_tokens
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens
    answer = result.paths[result.winner].tokens
    assert reply.usage.completion_tokens_details.reasoning_tokens == result.usage.policy_tokens - answer


async def test_without_being_asked_a_reply_has_openai_s_fields_only(proxy):
    status, body = await proxy.ask(model="greedy")
    assert status == 200
    assert set(body) == {"id", "object", "created", "model", "system_fingerprint", "choices", "usage"}
    assert set(body["choices"][0]) == {"index", "message", "logprobs", "finish_reason"}
    assert set(body["choices"][0]["message"]) == {"role", "content", "refusal"}


async def test_choices_are_searches_of_their_own(client):
    async def ask(**fields):
        reply = await client.chat.completions.create(model="best-of-n-4", messages=USER, **fields)
        return [choice.message.content for choice in reply.choices]

    both, first, second = await asyncio.gather(ask(n=2, seed=7), ask(seed=7), ask(seed=8))
    assert both == first + second
    unseeded = {text for texts in await asyncio.gather(*(ask(n=2) for _ in range(4))) for text in texts}
    assert len(unseeded) > 1, "without a seed every search draws its own samples"


async def test_max_tokens_bounds_a_solution(client):
    reply = await client.chat.completions.create(model="greedy", messages=USER, max_completion_tokens=5)
    assert reply.usage.completion_tokens == 5
    assert reply.choices[0].finish_reason == "length"


async def test_history_and_system_prompt_reach_the_policy(client):
    turns = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": "What is $1 + 1$?"},
        {"role": "assistant", "content": "2"},
    ]
    parts = [{"role": "user", "content": [{"type": "text", "text": QUESTION}]}]
    wanted = {"asearch": {"details": True}}
    alone, after, same = [
        await client.chat.completions.create(model="greedy", messages=messages, extra_body=wanted)
        for messages in (USER, [*turns, *USER], parts)
    ]
    prompts = [reply.choices[0].asearch["usage"]["policy_prompt_tokens"] for reply in (alone, after, same)]
    assert prompts[1] > prompts[0] == prompts[2]


async def test_a_stream_gives_the_same_answer_in_steps(client):
    async def pieces(**extra):
        stream = await client.chat.completions.create(
            model="beam-search-4",
            messages=USER,
            seed=1,
            stream=True,
            stream_options={"include_usage": True},
            extra_body={"asearch": extra},
        )
        return [chunk async for chunk in stream]

    whole = await client.chat.completions.create(model="beam-search-4", messages=USER, seed=1)
    chunks = await pieces()
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    assert deltas[0].role == "assistant"
    assert "".join(delta.content or "" for delta in deltas) == whole.choices[0].message.content
    assert sum(bool(delta.content) for delta in deltas) > 2, "one delta per step"
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert not any("reasoning_content" in (delta.model_extra or {}) for delta in deltas)

    told = [chunk.choices[0].delta for chunk in await pieces(progress=True, details=True) if chunk.choices]
    thoughts = "".join((delta.model_extra or {}).get("reasoning_content") or "" for delta in told)
    assert thoughts.count("\n") >= 8
    assert "0.0  0." in thoughts
    assert "## Step 2" in thoughts
    assert "".join(delta.content or "" for delta in told) == whole.choices[0].message.content


async def test_choices_of_a_stream_are_told_apart(proxy):
    texts = {0: "", 1: ""}
    async with proxy.post(n=2, seed=7, stream=True, asearch={"details": True}) as reply:
        async for event in events(reply):
            for choice in [] if event == "[DONE]" else event["choices"]:
                texts[choice["index"]] += choice["delta"].get("content", "")
                if choice["finish_reason"]:
                    assert choice["asearch"]["seed"] == 7 + choice["index"]
    status, body = await proxy.ask(n=2, seed=7)
    assert status == 200
    assert [choice["message"]["content"] for choice in body["choices"]] == [texts[0], texts[1]]


async def test_progress_without_a_stream_stands_in_the_message(proxy):
    _, body = await proxy.ask(model="dvts-4", asearch={"progress": True})
    assert "## Step 1" in body["choices"][0]["message"]["reasoning_content"]


async def test_the_synchronous_client(proxy):
    def ask():
        with openai.OpenAI(base_url=f"{proxy.url}/v1", api_key="none", max_retries=0) as client:
            reply = client.chat.completions.create(model="majority-4", messages=USER, seed=0)
            stream = client.chat.completions.create(model="majority-4", messages=USER, seed=0, stream=True)
            return reply.choices[0].message.content, [chunk.choices[0].delta.content or "" for chunk in stream]

    text, pieces = await asyncio.to_thread(ask)
    assert "boxed" in text
    assert "".join(pieces) == text


async def test_budgets_end_a_search_with_what_there_is(proxy):
    _, body = await proxy.ask(model="dvts-16", seed=0, asearch={"budget_tokens": 400, "details": True})
    details = body["choices"][0]["asearch"]
    assert details["stopped_by"] == "tokens"
    assert details["usage"]["policy_tokens"] + details["usage"]["prm_tokens"] <= 400
    assert body["choices"][0]["message"]["content"]


@pytest.mark.parametrize(
    ("fields", "status", "says"),
    [
        ({"model": "dvts-6"}, 400, "multiple of width=4"),
        ({"model": "dvts-512"}, 400, "at most 256"),
        ({"model": "dvts-8", "asearch": {"n": 16}}, 400, "ask for dvts-16"),
        ({"model": "dvts-8", "temperature": 0}, 400, "temperature above 0"),
        ({"model": "greedy", "temperature": 0.7}, 400, "temperature 0"),
        ({"model": "greedy", "asearch": {"width": 2}}, 400, "no option 'width'"),
        ({"model": "best-of-n-4", "asearch": {"select": "loudest"}}, 400, "unknown selection"),
        ({"model": "best-of-n-4", "n": 9}, 400, "at most 8"),
        ({"model": "gpt-5"}, 404, "there is no model 'gpt-5'"),
        ({"model": "dvts-999999999999"}, 404, "there is no model"),
    ],
)
async def test_what_cannot_be_searched_is_refused_before_anything_is_sent(proxy, fields, status, says):
    got, body = await proxy.ask(**fields)
    assert got == status, body
    assert says in body["error"]["message"]
    assert body["error"]["type"] == "invalid_request_error"
    assert proxy.proxy.admission.in_use == 0


async def test_without_a_verifier_there_are_the_strategies_that_need_none(servers):
    async with running(servers.policy, None) as proxy:
        assert {"majority-16", "greedy", "self-verify-16"} <= set(proxy.proxy.catalogue.models)
        assert not any(name.startswith(("dvts", "beam")) for name in proxy.proxy.catalogue.models)
        status, body = await proxy.ask(model="majority-4")
        assert status == 200, body
        assert (await proxy.ask(model="dvts-4"))[0] == 404


async def test_metrics_count_requests_searches_and_tokens(proxy):
    _, body = await proxy.ask(model="dvts-4")
    await proxy.ask(model="nope")
    async with proxy.http.get(f"{proxy.url}/metrics") as reply:
        text = await reply.text()
    assert 'asearch_proxy_requests_total{route="/v1/chat/completions",status="200"} 1.0' in text
    assert 'asearch_proxy_requests_total{route="/v1/chat/completions",status="404"} 1.0' in text
    assert 'asearch_proxy_searches_total{outcome="done",strategy="dvts"} 1.0' in text
    written = body["usage"]["completion_tokens"]
    assert f'asearch_proxy_tokens_total{{kind="policy",strategy="dvts"}} {written}.0' in text
    assert "asearch_proxy_searches_running 0.0" in text
    assert re.search(r'^asearch_endpoint_requests_total{replica=".+",role=".+"} [1-9]', text, re.MULTILINE), (
        "the servers behind it are seen, too"
    )


async def test_routes_that_are_not_there_say_so_in_openai_s_shape(proxy):
    for method, path, status in (
        ("GET", "/v1/nothing", 404),
        ("POST", "/v1/responses", 404),
        ("GET", "/v1/chat/completions", 405),
        ("DELETE", "/v1/models", 405),
    ):
        async with proxy.http.request(method, proxy.url + path) as reply:
            body = await reply.json()
            assert (reply.status, set(body["error"])) == (status, {"message", "type", "param", "code"})
            assert reply.headers["X-Request-Id"].startswith("req-")
