"""The OpenAI client on servers of all kinds: what it finds out, what it sends, and what it refuses to try."""

import asyncio
import json

import openai
import pytest
from stub_server import Stub, chat_reply, completion_reply, models, openai_error

import asearch
from asearch import errors
from asearch.client import OpenAIClient, TGIClient, as_client, finish_of, make_endpoint
from asearch.path import Path, Sampling, Step
from asearch.problem import Problem
from asearch.transport import Endpoint, Retry, Timeouts
from asearch.usage import Budget, BudgetSpent, Ledger, ledger

PROBLEM = Problem("What is 2 + 2?", system=None)
PATH = Path(PROBLEM)
STEP = Step("## Step 1\n\n", "step", (11, 12), 2)
SAMPLING = Sampling(max_tokens=100)
ONCE = Retry(attempts=1)
ENGINE = models("m", max_model_len=64)


def tokenize(body, _request):
    """Ids: 1 for the BOS, then one per character."""
    text = body["prompt"] if "prompt" in body else "".join(m["content"] for m in body["messages"])
    ids = [1, *map(ord, text)] if "messages" in body or body.get("add_special_tokens", True) else [*map(ord, text)]
    return {"count": len(ids), "max_model_len": 64, "tokens": ids}


def complete(body, _request):
    """vLLM's completions: two tokens and a stop string each."""
    texts = ["so\n\n"] * body.get("n", 1)
    reply = completion_reply(*texts, stop_reason="\n\n" if body.get("stop") else None)
    for choice in reply["choices"]:
        choice["token_ids"] = [115, 111]
        choice["prompt_token_ids"] = body["prompt"]
    return reply


VLLM = {"/v1/models": ENGINE, "/tokenize": tokenize, "/v1/completions": complete}


async def extended(client, path=PATH, n=1, **options):
    """A call, and the client closed."""
    options = {"sampling": SAMPLING, "seed": 5, **options}
    try:
        return await client.extend(path, n, **options)
    finally:
        await client.aclose()


class TestTokens:
    """vLLM: token in, token out."""

    async def test_ids_are_sent_and_taken(self):
        async with Stub(**VLLM).listening() as server:
            steps = await extended(OpenAIClient(server.url), PATH.grow(STEP, 0), 2)
        assert steps == [Step("so\n\n", "step", (115, 111), 2)] * 2
        sent = server.asked("/v1/completions")[-1]
        assert sent["prompt"] == [1, *map(ord, PROBLEM.text), 11, 12]
        assert sent["n"] == 2

    async def test_every_parameter_is_explicit(self):
        async with Stub(**VLLM).listening() as server:
            await extended(OpenAIClient(server.url))
        assert server.asked("/v1/completions")[-1] == {
            "model": "m",
            "prompt": [1, *map(ord, PROBLEM.text)],
            "n": 1,
            "max_tokens": 64 - 15,
            "temperature": 0.8,
            "top_p": 1.0,
            "top_k": -1,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "seed": 5,
            "stop": ["\n\n"],
            "include_stop_str_in_output": True,
            "add_special_tokens": False,
            "return_token_ids": True,
        }

    async def test_a_whole_solution_has_no_stop(self):
        async with Stub(**VLLM).listening() as server:
            (step,) = await extended(OpenAIClient(server.url), whole=True)
        assert "stop" not in server.asked("/v1/completions")[-1]
        assert step.finish == "eos"

    async def test_the_prefix_is_rendered_once(self):
        async with Stub(**VLLM).listening() as server:
            client = OpenAIClient(server.url)
            await asyncio.gather(*(client.extend(PATH, 1, sampling=SAMPLING, seed=i) for i in range(9)))
            await extended(client)
        assert len(server.asked("/tokenize")) == 2  # the probe, and the problem

    async def test_the_server_is_looked_at_once(self):
        async with Stub(**VLLM).listening() as server:
            client = OpenAIClient(server.url)
            await asyncio.gather(*(client.connect() for _ in range(9)))
            await extended(client)
        assert [route for route, *_ in server.requests].count("/v1/models") == 1

    async def test_greedy_is_asked_once_and_counted_once(self):
        book = Ledger()
        token = ledger.set(book)
        try:
            async with Stub(**VLLM).listening() as server:
                steps = await extended(OpenAIClient(server.url), n=4, sampling=Sampling(temperature=0.0, max_tokens=9))
        finally:
            ledger.reset(token)
        assert len(steps) == 4
        assert server.asked("/v1/completions")[-1]["n"] == 1
        assert book.usage.policy_tokens == 2

    async def test_text_without_ids_is_tokenized(self):
        path = PATH.grow(Step("ab\n\n", "step", None, 3), 0)
        async with Stub(**VLLM).listening() as server:
            await extended(OpenAIClient(server.url), path)
        assert server.asked("/v1/completions")[-1]["prompt"] == [1, *map(ord, PROBLEM.text + "ab\n\n")]

    @pytest.mark.parametrize(
        ("max_tokens", "max_new", "expected"), [(9, None, 9), (100, 3, 3), (100, None, 47), (4, 9, 4)]
    )
    async def test_room(self, max_tokens, max_new, expected):
        path = PATH.grow(STEP, 0)
        async with Stub(**VLLM).listening() as server:
            await extended(
                OpenAIClient(server.url), path, sampling=Sampling(max_tokens=max_tokens + 2), max_new=max_new
            )
        assert server.asked("/v1/completions")[-1]["max_tokens"] == expected

    async def test_no_new_tokens_at_all(self):
        async with Stub(**VLLM).listening() as server:
            assert await extended(OpenAIClient(server.url), max_new=0) == [Step("", "length", ())]
        assert len(server.asked("/v1/completions")) == 1  # the probe

    async def test_an_overflow_is_known_beforehand(self):
        path = PATH.grow(Step("x", "step", (7,) * 60, 60), 0)
        async with Stub(**VLLM).listening() as server:
            client = OpenAIClient(server.url)
            await client.connect()
            before = len(server.asked("/v1/completions"))
            assert await extended(client, path, 2) == [Step("", "length", ())] * 2
            assert len(server.asked("/v1/completions")) == before

    @pytest.mark.parametrize(
        ("reply", "words"),
        [
            ({"choices": []}, "asked for 1 completions and got 0"),
            ({}, "got no"),
            ({"choices": [{"finish_reason": "stop", "token_ids": []}]}, "lacks its text"),
            ({"choices": [{"finish_reason": "stop", "text": "x", "token_ids": "x"}]}, "lacks its token ids"),
            ({"choices": ["x"]}, "got 1"),
        ],
    )
    async def test_replies_that_lack_something(self, reply, words):
        probe = complete({"prompt": [1]}, None)
        async with Stub(**{**VLLM, "/v1/completions": [probe, reply]}).listening() as server:
            with pytest.raises(errors.ProtocolError, match=words):
                await extended(OpenAIClient(server.url))

    async def test_choices_may_come_in_any_order(self):
        reply = complete({"prompt": [1], "n": 3, "stop": ["\n\n"]}, None)
        for i, choice in enumerate(reply["choices"]):
            choice["text"] = f"{i}\n\n"
        reply["choices"].reverse()
        probe = complete({"prompt": [1]}, None)
        async with Stub(**{**VLLM, "/v1/completions": [probe, reply]}).listening() as server:
            steps = await extended(OpenAIClient(server.url), n=3)
        assert [step.text for step in steps] == ["0\n\n", "1\n\n", "2\n\n"]

    async def test_usage_is_booked(self):
        def counted(body, request):
            reply = complete(body, request)
            reply["usage"] |= {"prompt_tokens": 15, "prompt_tokens_details": {"cached_tokens": 8}}
            return reply

        book = Ledger()
        token = ledger.set(book)
        try:
            async with Stub(**{**VLLM, "/v1/completions": counted}).listening() as server:
                await extended(OpenAIClient(server.url), n=3)
        finally:
            ledger.reset(token)
        usage = book.usage
        assert (usage.requests, usage.policy_tokens, usage.policy_prompt_tokens, usage.policy_cached_tokens) == (
            1,
            6,
            15,
            8,
        )

    async def test_a_budget_of_tokens_bounds_each_choice(self):
        token = ledger.set(Ledger(Budget(tokens=20)))
        try:
            async with Stub(**VLLM).listening() as server:
                await extended(OpenAIClient(server.url), n=4)
                with pytest.raises(BudgetSpent):
                    await extended(OpenAIClient(server.url), n=21)
        finally:
            ledger.reset(token)
        assert [body["max_tokens"] for body in server.asked("/v1/completions") if body["n"] == 4] == [5]

    async def test_retries_are_booked(self):
        book = Ledger()
        answers = [complete({"prompt": [1]}, None), (503, {}), (500, {}), complete]
        token = ledger.set(book)
        try:
            async with Stub(**{**VLLM, "/v1/completions": answers}).listening() as server:
                await extended(OpenAIClient(server.url, retry=Retry(first=0.0001)))
        finally:
            ledger.reset(token)
        assert book.usage.retries == 2

    async def test_a_model_without_chat_template_is_rendered_by_the_user(self):
        def refuse_chats(body, request):
            return (400, openai_error("no chat template")) if "messages" in body else tokenize(body, request)

        async with Stub(**{**VLLM, "/tokenize": refuse_chats}).listening() as server:
            client = OpenAIClient(server.url, render=lambda problem: f"Q: {problem.text}\nA: ")
            await extended(client)
            assert client.mode == "tokens"
        sent = server.asked("/v1/completions")[-1]
        assert bytes(sent["prompt"]).decode() == "Q: What is 2 + 2?\nA: "


OLD_VLLM = {
    "/v1/models": ENGINE,
    "/tokenize": tokenize,
    "/detokenize": lambda body, _: {"prompt": "<s>" + "".join(map(chr, body["tokens"][1:]))},
    "/v1/completions": lambda body, _: completion_reply(
        *["so\n\n"] * body["n"], stop_reason="\n\n" if body.get("stop") else None
    ),
}


class TestText:
    """Servers that continue text: older vLLM, and whatever the user renders prompts for."""

    async def test_old_vllm(self):
        async with Stub(**OLD_VLLM).listening() as server:
            client = OpenAIClient(server.url)
            steps = await extended(client, PATH.grow(STEP, 0), 2)
        assert client.mode == "text"
        assert steps == [Step("so\n\n", "step", None, 5)] * 2
        sent = server.asked("/v1/completions")[-1]
        assert sent["prompt"] == f"<s>{PROBLEM.text}{STEP.text}"
        assert sent["add_special_tokens"] is False  # the text has its BOS

    async def test_no_more_than_the_context_is_asked_for(self):
        async with Stub(**OLD_VLLM).listening() as server:
            client = OpenAIClient(server.url)
            await client.extend(PATH.grow(STEP, 0), 1, sampling=Sampling(max_tokens=2048), seed=1)
            full = PATH.grow(Step("x", "step", None, 64), 0)
            assert await extended(client, full, sampling=Sampling(max_tokens=2048)) == [Step("", "length", ())]
        assert server.asked("/v1/completions")[-1]["max_tokens"] == 62  # of 64, of which the solution has 2

    async def test_a_stop_string_that_the_server_cuts_off_is_put_back(self):
        cut = completion_reply("so", matched_stop="\n\n")
        routes = {"/v1/models": ENGINE, "/v1/completions": cut}
        async with Stub(**routes).listening() as server:
            client = OpenAIClient(server.url, render=lambda problem: problem.text)
            assert await extended(client) == [Step("so\n\n", "step", None, 5)]
            assert client.mode == "text"

    async def test_sglang_eos(self):
        routes = {"/v1/models": ENGINE, "/v1/completions": completion_reply("so", matched_stop=151643)}
        async with Stub(**routes).listening() as server:
            client = OpenAIClient(server.url, render=lambda problem: problem.text)
            assert await extended(client) == [Step("so", "eos", None, 5)]

    async def test_rendering_may_be_async_and_must_be_text(self):
        async def render(problem):
            return f"async {problem.text}"

        routes = {"/v1/models": ENGINE, "/v1/completions": completion_reply("so", matched_stop=None)}
        async with Stub(**routes).listening() as server:
            await extended(OpenAIClient(server.url, render=render))
            assert server.asked("/v1/completions")[-1]["prompt"] == f"async {PROBLEM.text}"
            with pytest.raises(errors.UsageError, match="must return the prompt as a string, not list"):
                await extended(OpenAIClient(server.url, render=lambda problem: [problem.text]))

    async def test_a_server_that_does_not_tell_what_stopped_it_writes_whole_solutions(self):
        routes = {"/v1/models": models("m"), "/v1/completions": completion_reply("so")}
        async with Stub(**routes).listening() as server:
            client = OpenAIClient(server.url, render=lambda problem: problem.text)
            await client.connect()
            assert (client.mode, client.can_continue) == ("text", False)
            with pytest.raises(errors.UsageError, match="do not tell a stop string from the end of the text"):
                await client.extend(PATH, 1, sampling=SAMPLING, seed=1)
            assert await extended(client, n=2, whole=True) == [Step("so", "eos", None, 5)] * 2
        sent = server.asked("/v1/completions")[-1]
        assert sent.keys() == {"model", "prompt", "max_tokens", "temperature", "top_p", "seed"}

    @pytest.mark.parametrize(
        "said",
        [
            "This model's maximum context length is 512 tokens. However, your prompt contains 600 input tokens",
            "max_tokens must be at least 1, got 0. (parameter=max_tokens, value=0)",
            "the request exceeds the available context size, try increasing the context window",
        ],
    )
    async def test_an_overflow_that_only_the_server_can_see(self, said):
        probe = completion_reply("x", stop_reason=None)
        answers = [probe, probe, (400, openai_error(said))]
        async with Stub(**{**OLD_VLLM, "/v1/completions": answers}).listening() as server:
            assert await extended(OpenAIClient(server.url), n=2) == [Step("", "length", None)] * 2

    async def test_other_refusals_are_errors(self):
        probe = completion_reply("x", stop_reason=None)
        answers = [probe, probe, (400, openai_error("temperature must be non-negative"))]
        async with Stub(**{**OLD_VLLM, "/v1/completions": answers}).listening() as server:
            with pytest.raises(errors.BadRequest, match="temperature must be"):
                await extended(OpenAIClient(server.url))


class TestPrefill:
    """Engines that continue the assistant's turn but have no /tokenize for chats (SGLang)."""

    @staticmethod
    def chat(trims):
        def answer(body, _request):
            content = body["messages"][-1]["content"]
            reply = chat_reply("so", matched_stop="\n\n" if body.get("stop") else None)
            reply["usage"]["prompt_tokens"] = len(content.strip() if trims else content)
            reply["choices"] = [dict(reply["choices"][0], index=i) for i in range(body.get("n", 1))]
            return reply

        return answer

    async def test_the_turn_goes_on(self):
        routes = {"/v1/models": ENGINE, "/v1/chat/completions": self.chat(trims=False)}
        async with Stub(**routes).listening() as server:
            client = OpenAIClient(server.url)
            steps = await extended(client, PATH.grow(STEP, 0), 2)
        assert client.mode == "prefill"
        assert [step.text for step in steps] == ["so\n\n", "so\n\n"]
        sent = server.asked("/v1/chat/completions")[-1]
        assert sent["messages"][-1] == {"role": "assistant", "content": STEP.text}
        assert (sent["add_generation_prompt"], sent["continue_final_message"], sent["n"]) == (False, True, 1)
        assert {body["seed"] for body in server.asked("/v1/chat/completions")[-2:]} == {5, 6}

    async def test_the_first_step_is_an_ordinary_chat(self):
        routes = {"/v1/models": ENGINE, "/v1/chat/completions": self.chat(trims=False)}
        async with Stub(**routes).listening() as server:
            await extended(OpenAIClient(server.url))
        sent = server.asked("/v1/chat/completions")[-1]
        assert sent["messages"] == PROBLEM.messages
        assert "continue_final_message" not in sent

    async def test_a_template_that_trims_the_blank_line_is_seen(self):
        routes = {"/v1/models": ENGINE, "/v1/chat/completions": self.chat(trims=True)}
        async with Stub(**routes).listening() as server:
            client = OpenAIClient(server.url)
            with pytest.raises(errors.UsageError, match="trims the blank line"):
                await extended(client)
            assert client.mode == "chat"

    async def test_insisting_on_it_where_it_cannot_work(self):
        routes = {"/v1/models": ENGINE, "/v1/chat/completions": self.chat(trims=True)}
        async with Stub(**routes).listening() as server:
            client = OpenAIClient(server.url, mode="prefill")
            with pytest.raises(errors.UsageError, match="does not work with mode='prefill': its chat template trims"):
                await client.connect()
            await client.aclose()


HOSTED = {"/v1/models": models("gpt"), "/v1/chat/completions": chat_reply()}


class TestChat:
    """Hosted APIs, llama.cpp, Ollama: whole solutions only."""

    async def test_nothing_is_paid_for_before_it_is_known_to_work(self):
        async with Stub(**HOSTED).listening() as server:
            client = OpenAIClient(server.url)
            with pytest.raises(errors.UsageError) as caught:
                await extended(client)
        assert "writes whole solutions only" in str(caught.value)
        assert "best_of_n or majority, or a server that continues token ids, such as vLLM" in str(caught.value)
        assert not server.asked("/v1/chat/completions")
        assert not server.asked("/v1/completions")

    async def test_samples_are_requests_with_consecutive_seeds(self):
        async with Stub(**HOSTED).listening() as server:
            client = OpenAIClient(server.url)
            steps = await extended(client, n=3, whole=True)
        assert steps == [Step("Therefore, $\\boxed{4}$.", "eos", None, 5)] * 3
        sent = server.asked("/v1/chat/completions")
        assert sorted(body["seed"] for body in sent) == [5, 6, 7]
        assert (client.mode, client.can_continue) == ("chat", False)

    async def test_only_common_parameters_are_sent(self):
        async with Stub(**HOSTED).listening() as server:
            await extended(OpenAIClient(server.url), whole=True, seed=2**60 + 3)
            await extended(OpenAIClient(server.url), whole=True, sampling=Sampling(top_k=20))
        plain, unusual = server.asked("/v1/chat/completions")
        assert plain == {
            "model": "gpt",
            "messages": PROBLEM.messages,
            "max_tokens": 100,
            "temperature": 0.8,
            "top_p": 1.0,
            "seed": 3,
        }
        assert unusual["top_k"] == 20

    @pytest.mark.parametrize(
        ("finish", "expected"), [("stop", "eos"), ("length", "length"), ("content_filter", "length")]
    )
    async def test_finish(self, finish, expected):
        async with Stub(**{**HOSTED, "/v1/chat/completions": chat_reply(finish=finish)}).listening() as server:
            (step,) = await extended(OpenAIClient(server.url), whole=True)
        assert step.finish == expected

    async def test_a_model_that_only_reasons_says_nothing(self):
        async with Stub(**{**HOSTED, "/v1/chat/completions": chat_reply(None)}).listening() as server:
            (step,) = await extended(OpenAIClient(server.url), whole=True)
        assert step.text == ""

    async def test_parameters_that_a_server_refuses_are_left_out_from_then_on(self):
        def picky(body, _request):
            if "max_tokens" in body:
                said = "Unsupported parameter: 'max_tokens' is not supported. Use 'max_completion_tokens' instead."
                return 400, openai_error(said)
            return (422, {"detail": "extra fields not permitted: seed"}) if "seed" in body else chat_reply()

        async with Stub(**{**HOSTED, "/v1/chat/completions": picky}).listening() as server:
            client = OpenAIClient(server.url)
            await client.extend(PATH, 1, sampling=SAMPLING, seed=1, whole=True)
            await extended(client, whole=True)
        sent = server.asked("/v1/chat/completions")
        assert len(sent) == 4
        assert sent[-1].keys() == {"model", "messages", "max_completion_tokens", "temperature", "top_p"}

    async def test_a_refusal_that_stays_is_an_error(self):
        answer = (400, openai_error("Unknown parameter: 'seed'."))
        async with Stub(**{**HOSTED, "/v1/chat/completions": answer}).listening() as server:
            with pytest.raises(errors.BadRequest, match="seed"):
                await extended(OpenAIClient(server.url), whole=True)
        assert len(server.asked("/v1/chat/completions")) == 2

    async def test_a_solution_that_has_begun_cannot_be_ended(self):
        async with Stub(**HOSTED).listening() as server:
            with pytest.raises(errors.UsageError, match="whole solutions only"):
                await extended(OpenAIClient(server.url), PATH.grow(STEP, 0), whole=True)

    async def test_one_failure_leaves_nothing_behind(self):
        answers = [chat_reply(), (400, openai_error("no")), chat_reply()]
        async with Stub(**{**HOSTED, "/v1/chat/completions": answers}).listening() as server:
            client = OpenAIClient(server.url)
            with pytest.raises(errors.BadRequest):
                await extended(client, n=8, whole=True)
        assert (client.endpoint.limiter.in_use, client.endpoint.limiter.waiting) == (0, 0)

    @pytest.mark.parametrize(
        ("listed", "wanted"), [("llama3.2:latest", "llama3.2"), ("models/gemini-2", "gemini-2"), ("gpt", "gpt")]
    )
    async def test_names_that_servers_also_take(self, listed, wanted):
        async with Stub(**{**HOSTED, "/v1/models": models("other", listed)}).listening() as server:
            await extended(OpenAIClient(server.url, model=wanted), whole=True)
        assert server.asked("/v1/chat/completions")[0]["model"] == wanted

    async def test_a_tree_search_says_so_at_once(self):
        async with Stub(**HOSTED).listening() as server:
            with pytest.raises(errors.UsageError, match="majority, best_of_n"):
                await asearch.dvts(server.url, lambda problem, steps: 1.0, "What is 2 + 2?", n=8)
            assert {route for route, *_ in server.requests} == {"/v1/models", "/info"}
            result = await asearch.majority(server.url, None, "What is 2 + 2?", n=3)
            assert result.answer == "4"


class TestURLs:
    """base_url with and without /v1, as the SDK's users write it; servers whose API lies elsewhere."""

    @pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1/"])
    async def test_with_and_without_v1(self, suffix):
        async with Stub(**VLLM).listening() as server:
            await extended(OpenAIClient(server.url + suffix))
        assert {route for route, *_ in server.requests} == {"/v1/models", "/tokenize", "/v1/completions"}

    async def test_a_base_url_that_is_complete(self):
        routes = {"/v1beta/openai/models": models("gemini"), "/v1beta/openai/chat/completions": chat_reply()}
        async with Stub(**routes).listening() as server:
            await extended(OpenAIClient(f"{server.url}/v1beta/openai/"), whole=True)
        assert server.asked("/v1beta/openai/chat/completions")

    async def test_a_gateway_that_lists_no_models_takes_the_given_name(self):
        async with Stub(**{"/v1/chat/completions": chat_reply()}).listening() as server:
            await extended(OpenAIClient(server.url, model="azure-gpt"), whole=True)
        assert server.asked("/v1/chat/completions")[0]["model"] == "azure-gpt"

    @pytest.mark.parametrize("url", ["", "http://", "ftp://host", "http://host:99999", "http://a b", "://x"])
    def test_no_url(self, url):
        with pytest.raises(errors.UsageError, match="is not an http"):
            OpenAIClient(url)

    @pytest.mark.parametrize("given", [None, 7, object(), {"http://localhost"}])
    def test_no_client(self, given):
        with pytest.raises(errors.UsageError, match="expected a URL"):
            as_client(given)

    def test_ipv6(self):
        assert Endpoint("http://[::1]:8000/v1").url == "http://[::1]:8000"

    def test_a_host_alone(self):
        assert Endpoint("localhost:8000").url == "http://localhost:8000"


class TestSDK:
    """An openai.AsyncOpenAI is taken over: its base_url, key, headers, query, timeout."""

    async def test_everything_that_the_user_set_arrives(self):
        async with Stub(**VLLM).listening() as server:
            sdk = openai.AsyncOpenAI(
                base_url=f"{server.url}/v1",
                api_key="sk-mine",
                default_headers={"X-Team": "blue"},
                default_query={"api-version": "7"},
                organization="org-1",
                timeout=33.0,
            )
            client = as_client(sdk)
            await extended(client)
            await sdk.close()
        for _, headers, query, _ in server.requests:
            assert headers["Authorization"] == "Bearer sk-mine"
            assert headers["X-Team"] == "blue"
            assert headers["OpenAI-Organization"] == "org-1"
            assert query == {"api-version": "7"}
            assert "X-Stainless-Lang" not in headers
        assert client.endpoint.timeouts == Timeouts(connect=10.0, read=33.0)
        assert "sk-mine" not in repr(client)

    def test_timeouts_of_httpx(self):
        sdk = openai.AsyncOpenAI(base_url="http://h/v1", api_key="k", timeout=openai.Timeout(9.0, connect=2.0))
        assert make_endpoint(sdk).timeouts == Timeouts(connect=2.0, read=9.0)

    def test_the_default_timeout_of_the_sdk(self):
        sdk = openai.AsyncOpenAI(base_url="http://h/v1", api_key="k")
        assert make_endpoint(sdk).timeouts.read == 600

    def test_an_authorization_header_of_the_users_own(self):
        sdk = openai.AsyncOpenAI(base_url="http://h/v1", api_key="k", default_headers={"Authorization": "Basic abc"})
        assert make_endpoint(sdk).replicas[0].headers["Authorization"] == "Basic abc"

    async def test_the_key_of_the_environment(self, monkeypatch):
        monkeypatch.setenv("OPENAI_API_KEY", "sk-env")
        async with Stub(**VLLM).listening() as server:
            await extended(OpenAIClient(server.url))
            await extended(OpenAIClient(server.url, api_key="sk-given"))
        sent = [headers["Authorization"] for _, headers, _, _ in server.requests]
        assert set(sent) == {"Bearer sk-env", "Bearer sk-given"}

    def test_a_client_stays_what_it_is(self):
        client = OpenAIClient("http://localhost:1")
        assert as_client(client) is client
        assert isinstance(as_client("tgi+http://localhost:1"), TGIClient)


class TestCalls:
    async def test_refused_before_anything_is_sent(self):
        async with Stub(**VLLM).listening() as server:
            client = OpenAIClient(server.url)
            await client.connect()
            before = len(server.requests)
            with pytest.raises(errors.UsageError, match="at least 1, not 0"):
                await client.extend(PATH, 0, sampling=SAMPLING, seed=1)
            done = PATH.grow(Step("done", "eos", (1,), 1), 0)
            with pytest.raises(errors.UsageError, match="finished"):
                await extended(client, done)
            assert len(server.requests) == before

    def test_options(self):
        with pytest.raises(errors.UsageError, match="unknown mode 'magic'"):
            OpenAIClient("http://localhost", mode="magic")
        with pytest.raises(errors.UsageError, match="limit"):
            OpenAIClient("http://localhost", limit=0)
        with pytest.raises(errors.UsageError, match="rate"):
            OpenAIClient("http://localhost", rate=0)

    async def test_more_than_the_limit_waits(self):
        now = peak = 0

        async def busy(body, request):
            nonlocal now, peak
            now += body["n"]
            peak = max(peak, now)
            for _ in range(5):
                await asyncio.sleep(0)
            now -= body["n"]
            return complete(body, request)

        async with Stub(**{**VLLM, "/v1/completions": busy}).listening() as server:
            client = OpenAIClient(server.url, limit=6)
            await asyncio.gather(*(client.extend(PATH, 3, sampling=SAMPLING, seed=i) for i in range(10)))
            await extended(client)
        assert peak == 6

    def test_a_client_outlives_its_event_loop(self):
        async def once(client):
            async with Stub(**VLLM).listening() as server:
                client.endpoint.replicas[0].url = server.url
                return await extended(client)

        client = OpenAIClient("http://localhost:1")
        assert asyncio.run(once(client)) == asyncio.run(once(client))

    async def test_a_client_belongs_to_one_loop_at_a_time(self):
        async with Stub(**VLLM).listening() as server:
            client = OpenAIClient(server.url)
            await client.connect()
            with pytest.raises(errors.UsageError, match="in use on another event loop"):
                await asyncio.to_thread(lambda: asyncio.run(client.endpoint.get("/v1/models")))
            await extended(client)

    async def test_proxies_are_for_the_world_outside(self, monkeypatch):
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
        async with Stub(**VLLM).listening() as server:
            await extended(OpenAIClient(server.url))
            away = OpenAIClient("http://example.invalid")
            with pytest.raises(errors.Unreachable, match=r"Connect call failed|refused"):
                await away.connect()
            await away.aclose()


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"finish_reason": "stop", "stop_reason": "\n\n"}, "step"),
        ({"finish_reason": "stop", "stop_reason": None}, "eos"),
        ({"finish_reason": "stop", "stop_reason": 4}, "eos"),
        ({"finish_reason": "stop"}, "eos"),
        ({"finish_reason": "stop", "matched_stop": "\n\n"}, "step"),
        ({"finish_reason": "stop", "matched_stop": 2}, "eos"),
        ({"finish_reason": "length", "stop_reason": None}, "length"),
        ({"finish_reason": "abort"}, "length"),
        ({}, "length"),
    ],
)
def test_finish_of(choice, expected):
    assert finish_of(choice) == expected


def test_nothing_of_a_key_in_json():
    client = OpenAIClient("http://localhost:8000", api_key="sk-secret", model="m")
    assert "sk-secret" not in json.dumps([repr(client), repr(client.endpoint), str(client.endpoint.stats)])
