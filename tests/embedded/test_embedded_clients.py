"""The server as its callers see it: the plain openai client, streams, and callers that leave."""

from __future__ import annotations

import asyncio
import threading

import openai
import orjson
import pytest
from embedded_models import serving, token_ids, write_chain

from asearch_backends.embedded.tokenizer import IncrementalText, Tokenizer

GREEDY = {"temperature": 0}


@pytest.fixture
async def client(live):
    async with openai.AsyncOpenAI(base_url=live.url + "/v1", api_key="none", max_retries=0) as client:
        yield client


async def events(running, path, body):
    """The parsed events of a stream, which must end with [DONE]."""
    async with running.session.post(running.url + path, json=body | {"stream": True}) as response:
        assert response.content_type == "text/event-stream"
        lines = [line.removeprefix(b"data: ") for line in (await response.read()).split(b"\n\n") if line]
    assert lines.pop() == b"[DONE]"
    return [orjson.loads(line) for line in lines]


async def test_openai_completions(client):
    whole = await client.completions.create(model="tiny", prompt="1+1", max_tokens=20, temperature=1, n=3, seed=1)
    assert [c.index for c in whole.choices] == [0, 1, 2]
    stream = await client.completions.create(
        model="tiny", prompt="1+1", max_tokens=20, temperature=1, n=3, seed=1, stream=True
    )
    texts, finishes = ["", "", ""], [None] * 3
    async for chunk in stream:
        [choice] = chunk.choices
        texts[choice.index] += choice.text
        finishes[choice.index] = choice.finish_reason
    assert texts == [c.text for c in whole.choices]
    assert finishes == [c.finish_reason for c in whole.choices]


async def test_openai_chat(client):
    messages = [{"role": "user", "content": "1+1"}]
    settings = {"model": "tiny", "messages": messages, "max_tokens": 20, "temperature": 1, "seed": 3}
    whole = await client.chat.completions.create(**settings)
    stream = await client.chat.completions.create(**settings, stream=True, stream_options={"include_usage": True})
    chunks = [chunk async for chunk in stream]
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert text == whole.choices[0].message.content
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens


async def test_openai_errors(client):
    with pytest.raises(openai.NotFoundError):
        await client.completions.create(model="nope", prompt="a")
    with pytest.raises(openai.BadRequestError, match="greedy"):
        await client.completions.create(model="tiny", prompt="a", temperature=0, n=2)
    assert [m.id async for m in client.models.list()] == ["tiny"]


async def test_a_stream_has_a_chunk_for_each_token_and_the_usage_at_the_end(live):
    body = {
        "prompt": "1+1",
        "seed": 1,
        "max_tokens": 12,
        "ignore_eos": True,
        "temperature": 1,
        "return_token_ids": True,
    }
    whole = await live.complete(**body, logprobs=1)
    chunks = await events(live, "/v1/completions", body | {"logprobs": 1, "stream_options": {"include_usage": True}})
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"] == whole["usage"] | {
        "prompt_tokens_details": chunks[-1]["usage"]["prompt_tokens_details"]
    }
    choices = [chunk["choices"][0] for chunk in chunks[:-1]]
    expected = whole["choices"][0]
    assert [t for c in choices for t in c["token_ids"]] == expected["token_ids"]
    assert [lp for c in choices for lp in c["logprobs"]["token_logprobs"]] == expected["logprobs"]["token_logprobs"]
    assert choices[0]["prompt_token_ids"] == expected["prompt_token_ids"]
    assert "".join(c["text"] for c in choices) == expected["text"]
    assert [c["finish_reason"] for c in choices] == [None] * 11 + ["length"]


@pytest.mark.parametrize(("include", "text"), [(False, "bcd"), (True, "bcdef")])
async def test_a_stream_never_shows_the_beginning_of_a_stop_string(tmp_path, include, text):
    folder = write_chain(tmp_path / "chain", "abcdefg")
    async with serving(folder) as running:
        body = {"prompt": "a", **GREEDY, "stop": ["ef", "efz"], "include_stop_str_in_output": include}
        chunks = await events(running, "/v1/completions", body)
    assert "".join(c["choices"][0]["text"] for c in chunks) == text
    assert chunks[-1]["choices"][0]["stop_reason"] == "ef"


async def test_incremental_text_is_the_whole_text(tiny):
    tokenizer = Tokenizer(tiny, 107)
    ids = token_ids("## Step 1: a\n\nTherefore, it <|pad|>ends the way.")
    text = IncrementalText(tokenizer, [], skip_special_tokens=True)
    assert (
        "".join(text.push([t]) for t in ids) == tokenizer.decode(ids) == "## Step 1: a\n\nTherefore, it ends the way."
    )


async def until(running, condition):
    """Ask /metrics until its numbers of running and waiting requests satisfy a condition."""
    for _ in range(10_000):
        metrics = await running.metrics()
        numbers = {
            n.split("{")[0].removeprefix("vllm:num_requests_"): v for n, v in metrics.items() if "num_requests" in n
        }
        if condition(numbers["running"], numbers["waiting"]):
            return metrics
    pytest.fail(f"never: {numbers}")


@pytest.mark.parametrize(
    "body",
    [{"prompt": "1+1", "n": 16}, {"prompt": ["1+1", "2+2"], "n": 8}, {"prompt": "1+1", "n": 16, "stream": True}],
)
async def test_a_closed_connection_frees_its_sequences(tiny, body):
    async with serving(tiny, max_num_seqs=8) as running:
        engine, go_on = running.engine, threading.Event()
        step = engine.step

        def held_step():
            """After its second step the engine waits, so that nothing can end before the caller has left."""
            if engine.counters.steps >= 2:
                go_on.wait()
            step()

        engine.step = held_step
        try:
            call = asyncio.ensure_future(
                running.post("/v1/completions", body | {"max_tokens": 200, "ignore_eos": True, "temperature": 1})
            )
            await until(running, lambda busy, waiting: busy == 8 and waiting == 8)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            await until(running, lambda *_: engine._aborting.is_set())
        finally:
            go_on.set()
        metrics = await until(running, lambda busy, waiting: busy == waiting == 0)
        assert engine.counters.steps <= 4
        assert sum(v for name, v in metrics.items() if "request_success" in name) == 0
        after = await running.complete(prompt="1+1", max_tokens=3, ignore_eos=True)
        assert after["usage"]["completion_tokens"] == 3  # the engine still works


async def test_stopping_the_engine_answers_what_runs_with_500(tiny):
    async with serving(tiny) as running:
        # Enough to do that neither can be through when the engine stops.
        body = {"prompt": "a", "max_tokens": 250, "n": 256, "ignore_eos": True}
        whole = asyncio.ensure_future(running.post("/v1/completions", body))
        stream = asyncio.ensure_future(events(running, "/v1/completions", body))
        await until(running, lambda busy, _: busy == 128)
        await asyncio.to_thread(running.engine.stop)
        status, answer = await whole
        assert (status, answer["error"]["code"]) == (500, 500)
        assert (await stream)[-1]["error"]["code"] == 500
        assert (await running.post("/v1/completions", {"prompt": "a"}))[0] == 500
        async with running.session.get(running.url + "/health") as response:
            assert response.status == 503
