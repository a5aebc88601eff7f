"""The protocol, case by case, as measured on vLLM 0.32."""

from __future__ import annotations

import asyncio
import math

import pytest
from embedded_models import SPECIAL, TRIMMING_TEMPLATE, serving, token_ids, write_chain, write_checkpoint

BOS, END = 0, SPECIAL.index("<|end|>")
ONE_PLUS_ONE = token_ids("1+1")
GREEDY = {"temperature": 0}


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """Says a, b, c, a blank line, d, e and ends."""
    return write_chain(tmp_path_factory.mktemp("chain") / "chain", "abc\n\nde<|end|>", "xThereforey", "0<|pad|>1")


@pytest.fixture
async def chained(chain):
    async with serving(chain, served_model_name="chain") as running:
        yield running


async def choice(running, **body):
    return (await running.complete(**GREEDY | body))["choices"][0]


# -- prompts --


@pytest.mark.parametrize(
    ("prompt", "special", "ids"),
    [
        ("<|begin|>1+1", None, [BOS, BOS, *ONE_PLUS_ONE]),
        ("1+1", None, [BOS, *ONE_PLUS_ONE]),
        ("1+1", True, [BOS, *ONE_PLUS_ONE]),
        ("<|begin|>1+1", False, [BOS, *ONE_PLUS_ONE]),
        (ONE_PLUS_ONE, None, ONE_PLUS_ONE),
        ([""], None, [BOS]),
    ],
)
async def test_special_tokens_are_added_and_never_deduplicated(live, prompt, special, ids):
    flag = {} if special is None else {"add_special_tokens": special}
    assert (await choice(live, prompt=prompt, **flag))["prompt_token_ids"] == ids
    if isinstance(prompt, str):
        _, tokenized = await live.post("/tokenize", {"prompt": prompt, **flag})
        assert tokenized["tokens"] == ids


@pytest.mark.parametrize("prompts", [["a", "bc"], [token_ids("a"), token_ids("bc")]])
async def test_choices_of_a_list_come_prompt_by_prompt(live, prompts):
    answer = await live.complete(prompt=prompts, n=3, seed=5, add_special_tokens=False)
    assert [c["index"] for c in answer["choices"]] == list(range(6))
    assert [c["prompt_token_ids"] for c in answer["choices"]] == [token_ids("a")] * 3 + [token_ids("bc")] * 3
    assert answer["usage"]["prompt_tokens"] == 3
    assert answer["usage"]["completion_tokens"] == sum(len(c["token_ids"]) for c in answer["choices"])


async def test_the_shape_of_an_answer(live):
    answer = await live.complete(prompt="1+1", max_tokens=None)
    keys = {"id", "object", "created", "model", "choices", "usage", "system_fingerprint"}
    assert keys <= set(answer)
    assert (answer["object"], answer["model"]) == ("text_completion", "tiny")
    expected = ["index", "text", "logprobs", "finish_reason", "stop_reason", "token_ids", "prompt_logprobs"]
    assert list(answer["choices"][0]) == [*expected, "prompt_token_ids", "routed_experts"]
    assert answer["usage"]["completion_tokens"] <= 16
    assert answer["usage"]["total_tokens"] == answer["usage"]["completion_tokens"] + 4
    silent = await live.complete(prompt="1+1", return_token_ids=False)
    assert silent["choices"][0]["token_ids"] is silent["choices"][0]["prompt_token_ids"] is None


async def test_a_request_id_is_honoured(live):
    async with live.session.post(
        live.url + "/v1/completions", json={"prompt": "a"}, headers={"X-Request-Id": "mine"}
    ) as response:
        assert (await response.json())["id"] == "cmpl-mine"


# -- how a choice ends --


@pytest.mark.parametrize(
    ("body", "finish", "reason", "text", "ids"),
    [
        ({"stop": ["\n\n"]}, "stop", "\n\n", "bc", "bc\n\n"),
        ({"stop": "\n\n", "include_stop_str_in_output": True}, "stop", "\n\n", "bc\n\n", "bc\n\n"),
        ({"stop": ["c\n", "d"]}, "stop", "c\n", "b", "bc\n\n"),
        ({"stop": ["c\n"], "include_stop_str_in_output": True}, "stop", "c\n", "bc\n", "bc\n\n"),
        ({"stop": ["zz", "e"]}, "stop", "e", "bc\n\nd", "bc\n\nde"),
        ({}, "stop", None, "bc\n\nde", "bc\n\nde<|end|>"),
        ({"skip_special_tokens": False}, "stop", None, "bc\n\nde", "bc\n\nde<|end|>"),
        ({"stop_token_ids": token_ids("\n\n")}, "stop", token_ids("\n\n")[0], "bc", "bc\n\n"),
        (
            {"stop_token_ids": token_ids("\n\n"), "include_stop_str_in_output": True},
            "stop",
            token_ids("\n\n")[0],
            "bc\n\n",
            "bc\n\n",
        ),
        ({"max_tokens": 2}, "length", None, "bc", "bc"),
        ({"max_tokens": 3, "stop": ["\n\n"]}, "stop", "\n\n", "bc", "bc\n\n"),
        ({"max_tokens": 6}, "stop", None, "bc\n\nde", "bc\n\nde<|end|>"),
        ({"stop": ["c"], "min_tokens": 4}, "stop", None, "bc\n\nde", "bc\n\nde<|end|>"),
    ],
)
async def test_endings(chained, body, finish, reason, text, ids):
    end = await choice(chained, prompt="a", **body)
    assert (end["finish_reason"], end["stop_reason"], end["text"]) == (finish, reason, text)
    assert end["token_ids"] == token_ids(ids)


async def test_a_stop_string_inside_a_token_cuts_the_text_and_not_the_ids(chained):
    end = await choice(chained, prompt="x", stop=["er"])
    assert (end["text"], end["stop_reason"], end["token_ids"]) == ("Th", "er", token_ids("Therefore"))


async def test_text_across_a_special_token_can_hold_a_stop_string(chained):
    end = await choice(chained, prompt="0", stop=["1"], ignore_eos=True, max_tokens=4)
    assert (end["text"], end["stop_reason"]) == ("", "1")


async def test_a_stop_string_in_the_prompt_does_not_count(chained):
    assert (await choice(chained, prompt="\n\n", stop=["\n\nd"]))["text"] == "de"


async def test_a_second_eos_is_reported_by_its_id(tmp_path):
    d = token_ids("d")[0]
    folder = write_chain(tmp_path / "two-ends", "abcde", generation={"eos_token_id": [END, d]})
    async with serving(folder) as running:
        end = await choice(running, prompt="a")
        assert (end["finish_reason"], end["stop_reason"], end["token_ids"]) == ("stop", d, token_ids("bcd"))
        assert (await choice(running, prompt="a", ignore_eos=True, max_tokens=4))["text"] == "bcde"


async def test_min_tokens_puts_the_end_off(chained):
    end = await choice(chained, prompt="e", min_tokens=3)
    assert len(end["token_ids"]) >= 3
    assert END not in end["token_ids"][:2]


# -- limits --


async def test_max_tokens_is_clamped_to_the_context(live):
    end = (await live.complete(prompt=[20] * 250, max_tokens=20, ignore_eos=True))["choices"][0]
    assert (len(end["token_ids"]), end["finish_reason"]) == (6, "length")


@pytest.mark.parametrize(
    ("body", "status", "param", "message"),
    [
        (
            {"prompt": [20] * 256},
            400,
            "max_tokens",
            "max_tokens must be at least 1, got 0. (parameter=max_tokens, value=0)",
        ),
        (
            {"prompt": [20, 21], "max_tokens": 257},
            400,
            "max_tokens",
            (
                "max_tokens=257 cannot be greater than max_model_len=256. Please request fewer output tokens. "
                "(parameter=max_tokens, value=257)"
            ),
        ),
        (
            {"prompt": [20] * 300},
            400,
            "input_tokens",
            "maximum context length is 256 tokens. However, your prompt contains 300",
        ),
        ({"prompt": "a" * 300}, 400, "input_tokens", "maximum context length is 256 tokens"),
        ({"model": "nope"}, 404, "model", "The model `nope` does not exist. Valid aliases: tiny."),
        ({"n": 2, "temperature": 0}, 400, None, "n must be 1 when using greedy sampling, got 2."),
        ({"prompt": ""}, 400, "prompt", ""),
        ({"prompt": []}, 400, "prompt", ""),
        ({"prompt": None}, 400, "prompt", ""),
        ({"prompt": [[]]}, 400, "prompt", "The decoder prompt cannot be empty"),
        ({"prompt": [[1], []]}, 400, "prompt", "The decoder prompt cannot be empty"),
        ({"prompt": ["a", [0, 21]]}, 400, "prompt", ""),
        ({"prompt": [0, 100_000]}, 400, "prompt", "100000"),
        ({"prompt": [-1]}, 400, "prompt", ""),
        ({"prompt": ["a"] * 1025}, 400, "prompt", "1024"),
        ({"max_tokens": 0}, 400, "max_tokens", "at least 1"),
        ({"max_tokens": "many"}, 400, "max_tokens", ""),
        ({"n": 0}, 400, "n", "at least 1"),
        ({"n": 16_385, "temperature": 1}, 400, "n", "16384"),
        ({"temperature": -1}, 400, "temperature", "non-negative"),
        ({"top_p": 0}, 400, "top_p", "(0, 1]"),
        ({"top_k": -2}, 400, "top_k", ""),
        ({"min_p": 2}, 400, "min_p", ""),
        ({"repetition_penalty": 0}, 400, "repetition_penalty", ""),
        ({"min_tokens": 99, "max_tokens": 9}, 400, "min_tokens", ""),
        ({"stop": ["a", "b", "c", "d", "e"]}, 400, "stop", ""),
        ({"stop": [""]}, 400, "stop", "empty"),
        ({"logprobs": 21}, 400, "logprobs", "greater than max allowed: 20"),
        ({"logprobs": -1}, 400, "logprobs", "greater than max allowed: 20"),
        ({"logprob_token_ids": [1]}, 400, "logprob_token_ids", "logprobs"),
        ({"logprobs": 0, "logprob_token_ids": [9999]}, 400, "logprob_token_ids", "vocabulary"),
        ({"logprobs": 0, "logprob_token_ids": [1] * 129}, 400, "logprob_token_ids", "128"),
        ({"seed": 2**63}, 400, "seed", ""),
        ({"echo": True}, 400, "echo", "not supported"),
        ({"truncate_prompt_tokens": 4}, 400, "truncate_prompt_tokens", "not supported"),
        ({"presence_penalty": 0.5}, 400, "presence_penalty", "not supported"),
        ({"logit_bias": {"3": 1.0}}, 400, "logit_bias", "not supported"),
    ],
)
async def test_refusals(live, body, status, param, message):
    got, answer = await live.post("/v1/completions", {"prompt": "1+1"} | body)
    error = answer["error"]
    assert (got, error["code"], error["param"]) == (status, status, param)
    assert message in error["message"]
    assert set(error) == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    "body", [{"best_of": 4}, {"user": "me"}, {"presence_penalty": 0}, {"logit_bias": None}, {"stop": None}]
)
async def test_what_changes_nothing_is_ignored(live, body):
    await live.complete(prompt="1+1", **body)


async def test_bad_json_and_a_wrong_content_type_are_400(live):
    for data, kind in ((b"{", "application/json"), (b"{}", "text/plain"), (b"[]", "application/json")):
        async with live.session.post(
            live.url + "/v1/completions", data=data, headers={"Content-Type": kind}
        ) as response:
            assert response.status == 400
            assert (await response.json())["error"]["type"] == "Bad Request"


async def test_unknown_routes_answer_without_an_error_object(live):
    async with live.session.get(live.url + "/nowhere") as response:
        assert (response.status, await response.json()) == (404, {"detail": "Not Found"})


# -- sampling --


async def test_choice_i_uses_seed_plus_i(live):
    body = {"prompt": "1+1", "temperature": 1.0, "max_tokens": 20, "ignore_eos": True}
    together = (await live.complete(n=4, seed=7, **body))["choices"]
    single = [(await live.complete(seed=7 + i, **body))["choices"][0] for i in range(4)]
    assert [c["token_ids"] for c in together] == [c["token_ids"] for c in single]
    assert len({c["text"] for c in together}) == 4


async def test_identical_prompts_with_one_seed_are_identical(live):
    answer = await live.complete(prompt=["1+1"] * 3, seed=7, temperature=1.0)
    assert len({tuple(c["token_ids"]) for c in answer["choices"]}) == 1


async def test_unseeded_choices_differ(live):
    answer = await live.complete(prompt=["1+1"] * 3, n=2, temperature=1.5)
    assert len({tuple(c["token_ids"]) for c in answer["choices"]}) == 6


async def test_the_generation_config_changes_what_is_not_sent(tmp_path):
    generation = {"temperature": 1e-6, "max_new_tokens": 5, "eos_token_id": END}
    async with serving(write_checkpoint(tmp_path / "model", generation=generation)) as running:
        _, default = await running.post(
            "/v1/completions", {"prompt": "1+1", "ignore_eos": True, "return_token_ids": True}
        )
        greedy = await choice(running, prompt="1+1", ignore_eos=True, max_tokens=5)
        assert default["choices"][0]["token_ids"] == greedy["token_ids"]


# -- logprobs --


async def test_logprobs_of_chosen_tokens_on_a_list_of_prefixes(live):
    plus, minus = token_ids("+")[0], token_ids("-")[0]
    prefixes = [token_ids("12+34-5"[:k]) for k in range(1, 8)]
    body = {"max_tokens": 1, "logprobs": 0, "logprob_token_ids": [plus, minus], "return_tokens_as_token_ids": True}
    scores = []
    for prompts in (prefixes, *([p] for p in prefixes)):
        choices = (await live.complete(prompt=prompts, **GREEDY, **body))["choices"]
        tops = [c["logprobs"]["top_logprobs"][0] for c in choices]
        assert all(f"token_id:{c['token_ids'][0]}" in top for c, top in zip(choices, tops, strict=True))
        scores += [1 / (1 + math.exp(top[f"token_id:{minus}"] - top[f"token_id:{plus}"])) for top in tops]
    assert scores[:7] == pytest.approx(scores[7:], abs=1e-6)


async def test_logprobs_name_tokens_by_their_text(chained):
    logprobs = (await choice(chained, prompt="a", logprobs=2, max_tokens=3))["logprobs"]
    assert logprobs["tokens"] == ["b", "c", "\n\n"]
    assert logprobs["text_offset"] == [0, 1, 2]
    assert [len(top) for top in logprobs["top_logprobs"]] == [2, 2, 2]
    assert logprobs["token_logprobs"] == [
        top[t] for t, top in zip(["b", "c", "\n\n"], logprobs["top_logprobs"], strict=True)
    ]


# -- chat --

USER = {"role": "user", "content": "1+1"}


def assistant(content):
    return {"role": "assistant", "content": content}


async def tokenize(running, *messages, **options):
    status, answer = await running.post("/tokenize", {"messages": list(messages), **options})
    assert status == 200, answer
    return answer["tokens"]


async def test_tokenize_messages(live):
    status, answer = await live.post("/tokenize", {"messages": [USER], "return_token_strs": True})
    assert status == 200
    assert answer["tokens"] == token_ids("<|begin|><|user|>1+1<|assistant|>")
    assert (answer["count"], answer["max_model_len"]) == (6, 256)
    assert answer["token_strs"] == ["<|begin|>", "<|user|>", "1", "+", "1", "<|assistant|>"]
    assert (await tokenize(live, USER, add_generation_prompt=False)) == token_ids("<|begin|><|user|>1+1")
    assert (await tokenize(live, USER, add_special_tokens=True))[:2] == [BOS, BOS]
    assert (await live.post("/detokenize", {"tokens": answer["tokens"]}))[1] == {
        "prompt": "<|begin|><|user|>1+1<|assistant|>"
    }


@pytest.mark.parametrize("content", ["## Step 1: 1\n\n", ""])
async def test_continuing_the_final_message(live, tmp_path, content):
    more = {"add_generation_prompt": False, "continue_final_message": True}
    plain = token_ids("<|begin|><|user|>1+1<|assistant|>" + content)
    assert await tokenize(live, USER, assistant(content), **more) == plain
    async with serving(write_checkpoint(tmp_path / "trims", template=TRIMMING_TEMPLATE)) as trimming:
        trimmed = token_ids("<|begin|><|user|>1+1<|assistant|>" + content.strip())
        assert await tokenize(trimming, USER, assistant(content), **more) == trimmed


async def test_continue_alone_is_refused(live):
    for path in ("/tokenize", "/v1/chat/completions"):
        status, _ = await live.post(path, {"messages": [USER, assistant("a")], "continue_final_message": True})
        assert status == 400


async def test_chat(chained):
    body = {
        "messages": [USER, assistant("a")],
        "add_generation_prompt": False,
        "continue_final_message": True,
        **GREEDY,
    }
    status, answer = await chained.post("/v1/chat/completions", body | {"logprobs": True, "top_logprobs": 2})
    assert status == 200
    assert answer["object"] == "chat.completion"
    end = answer["choices"][0]
    assert end["message"]["content"] == "bc\n\nde"
    assert (end["message"]["role"], end["finish_reason"], end["stop_reason"]) == ("assistant", "stop", None)
    assert [item["token"] for item in end["logprobs"]["content"]] == ["b", "c", "\n\n", "d", "e", "<|end|>"]
    assert end["logprobs"]["content"][0]["top_logprobs"][0]["token"] == "b"


async def test_chat_fills_the_context_by_default(live):
    _, answer = await live.post(
        "/v1/chat/completions", {"messages": [USER], "ignore_eos": True, "temperature": 1, "seed": 1}
    )
    assert answer["usage"]["completion_tokens"] == 250
    parts = {"role": "user", "content": [{"type": "text", "text": "1"}, {"type": "text", "text": "2"}]}
    assert await tokenize(live, parts) == token_ids("<|begin|><|user|>1\n2<|assistant|>")


@pytest.mark.parametrize(
    "body",
    [
        {"messages": []},
        {"messages": [{"content": "no role"}]},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
        {"messages": [USER], "chat_template": "{{ 1 }}"},
        {"messages": [USER], "tools": [{"type": "function"}]},
        {},
    ],
)
async def test_chat_refusals(live, body):
    assert (await live.post("/v1/chat/completions", body))[0] == 400


async def test_a_template_cannot_reach_out(tmp_path):
    evil = "{{ messages.__class__.__mro__ }}{{ ''.__class__ }}"
    async with serving(write_checkpoint(tmp_path / "evil", template=evil)) as running:
        status, answer = await running.post("/tokenize", {"messages": [USER]})
    assert status == 400
    assert "unsafe" in answer["error"]["message"]


# -- state --


async def test_state_routes(live):
    for path in ("/health", "/ping", "/version"):
        async with live.session.get(live.url + path) as response:
            assert response.status == 200
    async with live.session.get(live.url + "/v1/models") as response:
        card = (await response.json())["data"][0]
    assert (card["id"], card["object"], card["max_model_len"]) == ("tiny", "model", 256)


async def test_metrics_count(live):
    await live.complete(prompt=token_ids("abcdefgh") * 4, n=2, seed=1, max_tokens=3, ignore_eos=True)
    await live.complete(prompt=token_ids("abcdefgh") * 4, **GREEDY | {"max_tokens": 3, "ignore_eos": True})
    metrics = {name.split("{")[0].removeprefix("vllm:"): v for name, v in (await live.metrics()).items()}
    assert metrics["prompt_tokens_total"] == metrics["prefix_cache_queries_total"] == 96
    assert metrics["generation_tokens_total"] == 9
    assert metrics["prefix_cache_hits_total"] == 31 + 24
    finished = 'vllm:request_success_total{finished_reason="length",model_name="tiny"}'
    assert (await live.metrics())[finished] == 3


async def test_an_api_key_guards_v1_only(tiny):
    async with serving(tiny, api_key="secret") as running:
        assert (await running.post("/v1/completions", {"prompt": "a"}))[0] == 401
        good = {"Authorization": "Bearer secret"}
        assert (await running.post("/v1/completions", {"prompt": "a"}, headers=good))[0] == 200
        assert (await running.post("/tokenize", {"prompt": "a"}))[0] == 200


async def test_a_full_queue_is_503(tiny):
    async with serving(tiny, max_num_queued_reqs=64) as running:
        status, answer = await running.post("/v1/completions", {"prompt": ["a"] * 100})
        assert (status, answer["error"]["type"], answer["error"]["code"]) == (503, "Service Unavailable", 503)
        assert (await running.post("/v1/completions", {"prompt": "a", "n": 65, "temperature": 1}))[0] == 503
        assert (await running.post("/v1/completions", {"prompt": ["a"] * 64, "max_tokens": 1}))[0] == 200


async def test_many_more_requests_than_rows_are_all_answered(tiny):
    async with serving(tiny, max_num_seqs=4) as running, asyncio.TaskGroup() as group:
        tasks = [group.create_task(running.complete(prompt="1+1", seed=i, n=2)) for i in range(50)]
    assert all(len(t.result()["choices"]) == 2 for t in tasks)
