"""Each check of the policy, on a server that has exactly that fault, and on the same server without it."""

import json
import shutil
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import pytest

import asearch_backends
from asearch.doctor import diagnose
from asearch.doctor.examination import WIRE
from asearch.doctor.policy import POLICY_CHECKS, PolicyPatient
from asearch.embedded import embedded_server
from clients.stub_server import Stub, chat_reply, models
from doctor.faulty import Faulty, each_choice, in_chats, in_completions
from tgi.standin import StandIn

BOS = 1
MODELS = Path(asearch_backends.__file__).parent / "embedded" / "models"


async def examine(url, *names):
    """The findings of some checks, by name."""
    patient = PolicyPatient(url, None, WIRE)
    try:
        await patient.connect()
        return [await check(patient) for name, check in POLICY_CHECKS if name in names]
    finally:
        await patient.aclose()


async def finding(upstream, name, **fault):
    """What a check finds on a server with a fault."""
    async with Faulty(upstream, **fault).listening() as url:
        (found,) = await examine(url, name)
    return found


async def test_a_healthy_server_passes_every_check(servers):
    report = await diagnose(servers.policy)
    assert [(f.check, f.status) for f in report.findings if f.check != "burst"] == [
        ("server", "pass"),
        *((name, "pass") for name, _ in POLICY_CHECKS if name != "burst"),
    ]
    assert all(not f.advice for f in report.findings if f.status == "pass")


async def test_the_server_and_its_version_are_named(servers):
    (found,) = (await diagnose(servers.policy)).findings[:1]
    assert found.found.startswith("asearch's embedded server 0.")
    async with Stub(
        **{"/v1/models": models("m", owned_by="vllm"), "/version": {"version": "0.32.0"}}
    ).listening() as stub:
        report = await diagnose(stub.url)
    assert report.findings[0].found == f"vLLM 0.32.0 at {stub.url}"


class TestReaching:
    async def test_nobody_there(self):
        report = await diagnose("http://127.0.0.1:9", "http://127.0.0.1:9")
        assert [(f.server, f.check, f.status) for f in report.findings] == [
            ("policy", "server", "fail"),
            ("prm", "server", "fail"),
        ]
        assert "start the server" in report.findings[0].advice

    async def test_a_wrong_key(self):
        refusal = (401, {"error": "Unauthorized"})
        async with Stub(**{"/v1/models": refusal}).listening() as stub:
            report = await diagnose(stub.url)
        assert [f.status for f in report.findings] == ["fail"]
        assert "OPENAI_API_KEY" in report.findings[0].advice

    async def test_no_model_server(self):
        async with Stub(**{"/v1/models": {"hello": "world"}}).listening() as stub:
            report = await diagnose(stub.url)
        assert "no model server" in report.findings[0].found

    async def test_a_verifier_in_place_of_the_policy(self):
        async with Stub(
            **{"/v1/models": models("m", max_model_len=512), "/tokenize": {"tokens": [1, 2]}}
        ).listening() as stub:
            report = await diagnose(stub.url)
        assert report.findings[0].status == "fail"
        assert "is it a verifier?" in report.findings[0].found

    async def test_a_server_that_hangs_does_not_hang_us(self, servers):
        import asyncio

        async def hang(_body, _request):
            await asyncio.Event().wait()

        routes = {"/v1/models": models("m"), "/v1/chat/completions": hang}
        async with Stub(**routes).listening() as stub:
            report = await diagnose(stub.url, patience=0.2)
        assert [f.found for f in report.findings if f.status == "fail"] == ["no result within 0.2 s"] * 2


async def test_a_short_context():
    async with embedded_server("policy", "--max-model-len", "256") as url:
        (found,) = await examine(url, "model")
    assert found.status == "warn"
    assert "a context of 256 tokens" in found.found


class TestBeginning:
    async def test_the_server_adds_a_second_bos_to_chats(self, servers):
        def doubled(route, body, reply):
            return (
                {**reply, "tokens": [BOS, *reply["tokens"]]} if route == "/tokenize" and "messages" in body else reply
            )

        found = await finding(servers.policy, "one BOS", answered=doubled)
        assert (found.status, "2 BOS" in found.found) == ("fail", True)

    async def test_the_engine_adds_one_to_what_it_is_sent(self, servers):
        def read(choice):
            choice["prompt_token_ids"] = [BOS, BOS, 5]

        found = await finding(servers.policy, "one BOS", answered=each_choice(read))
        assert found.status == "fail"

    async def test_an_engine_that_only_counts(self, servers):
        def counted(route, body, reply):
            for choice in reply.get("choices", ()):
                choice.pop("prompt_token_ids", None)
            if "usage" in reply:
                reply["usage"]["prompt_tokens"] += 1
            return reply

        found = await finding(servers.policy, "one BOS", answered=counted)
        assert found.status == "fail"

    async def test_no_bos_at_all(self, servers):
        def without(route, body, reply):
            if route == "/tokenize" and "messages" in body:
                reply["tokens"] = reply["tokens"][1:]
            return reply

        found = await finding(servers.policy, "one BOS", answered=without)
        assert found.status == "warn"

    async def test_a_tokenizer_without_one(self, servers):
        def without(route, body, reply):
            if route == "/tokenize" and reply["tokens"][:1] == [BOS]:
                reply["tokens"] = reply["tokens"][1:]
            return reply

        found = await finding(servers.policy, "one BOS", answered=without)
        assert found.status == "pass"


def trims(messages):
    messages[-1]["content"] = messages[-1]["content"].strip()


class TestBlankLine:
    async def test_a_template_that_trims_does_no_harm_to_token_ids(self, servers):
        found = await finding(servers.policy, "blank line", asked=in_chats(trims))
        assert found.status == "pass"
        assert "trims" in found.found
        assert "harmless" in found.found

    async def test_where_chats_would_have_to_be_continued_it_is_the_reason_why_not(self, servers):
        """A server without token ids, with such a template."""

        def no_ids(choice):
            choice.pop("token_ids", None)

        def answered(route, body, reply):
            if route == "/detokenize":
                return {}
            return each_choice(no_ids)(route, body, reply)

        async with Faulty(servers.policy, asked=in_chats(trims), answered=answered).listening() as url:
            mode, blank = await examine(url, "continuing", "blank line")
        assert (mode.status, blank.status) == ("warn", "warn")
        assert "whole solutions only" in mode.found


class TestDate:
    @pytest.mark.parametrize("form", ["%d %b %Y", "%Y-%m-%d", "%B %d, %Y"])
    @pytest.mark.parametrize("days", [-1, 0])
    async def test_of_today(self, servers, form, days):
        day = (datetime.now(UTC) + timedelta(days=days)).strftime(form)

        def dated(messages):
            messages[0]["content"] += f"\nToday Date: {day}"

        found = await finding(servers.policy, "date", asked=in_chats(dated))
        assert found.status == "warn"
        assert "date_string" in found.advice

    async def test_a_fixed_one_is_fine(self, servers):
        def dated(messages):
            messages[0]["content"] += "\nCutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024"

        found = await finding(servers.policy, "date", asked=in_chats(dated))
        assert (found.status, found.found) == ("pass", "the chat template writes a fixed date (2024-07-26)")


class TestSteps:
    async def test_a_server_that_drops_the_stop_string(self, servers):
        def unstopped(body):
            body.pop("stop", None)
            return body

        found = await finding(servers.policy, "steps", asked=in_completions(unstopped))
        assert found.status == "fail"
        assert "beyond a blank line" in found.found

    async def test_a_model_that_writes_the_blank_line_again(self, servers):
        turns = count()

        def again(route, body, reply):
            if route == "/v1/completions" and "stop" in body and next(turns) % 2:
                reply["choices"][0] |= {"text": "\n\n", "stop_reason": "\n\n", "finish_reason": "stop"}
            return reply

        found = await finding(servers.policy, "steps", answered=again)
        assert (found.status, "step 2 is blank" in found.found) == ("fail", True)

    async def test_a_model_that_does_not_end(self, servers):
        def endless(choice):
            choice |= {"finish_reason": "stop", "stop_reason": "\n\n", "text": "Hm.\n\n"}

        found = await finding(servers.policy, "steps", answered=each_choice(endless))
        assert (found.status, "within 12 steps" in found.found) == ("warn", True)

    async def test_a_model_without_steps(self, servers):
        def at_once(choice):
            choice |= {"finish_reason": "stop", "stop_reason": None, "text": "It is 4."}

        found = await finding(servers.policy, "steps", answered=each_choice(at_once))
        assert (found.status, "no steps" in found.found) == ("warn", True)

    async def test_a_model_that_is_cut_off(self, servers):
        def cut(choice):
            choice |= {"finish_reason": "length", "stop_reason": None, "text": "On and on"}

        found = await finding(servers.policy, "steps", answered=each_choice(cut))
        assert (found.status, "no end of text" in found.found) == ("warn", True)


class TestSeeds:
    async def test_ignored(self, servers):
        def unseeded(body):
            body.pop("seed", None)
            return body

        found = await finding(servers.policy, "seeds", asked=in_completions(unseeded))
        assert (found.status, "cannot be repeated" in found.found) == ("warn", True)

    async def test_fixed(self, servers):
        found = await finding(servers.policy, "seeds", asked=in_completions(lambda body: {**body, "seed": 1}))
        assert (found.status, "other seeds" in found.found) == ("fail", True)

    async def test_sampling_is_off(self, servers):
        found = await finding(
            servers.policy, "seeds", asked=in_completions(lambda body: {**body, "temperature": 0.001, "top_k": 1})
        )
        assert (found.status, "all the same" in found.found) == ("fail", True)

    async def test_they_depend_on_n(self, servers):
        def shifted(body):
            return {**body, "seed": body["seed"] + 1000 * (body.get("n", 1) > 1)} if "seed" in body else body

        found = await finding(servers.policy, "seeds", asked=in_completions(shifted))
        assert (found.status, "how many are asked for" in found.found) == ("warn", True)


async def test_defaults_of_the_checkpoint_are_named(tmp_path):
    """A real server on a checkpoint whose generation_config has opinions."""
    folder = shutil.copytree(MODELS / "policy", tmp_path / "policy")
    config = json.loads((folder / "generation_config.json").read_text())
    opinions = {"temperature": 0.3, "top_k": 5, "do_sample": True}
    (folder / "generation_config.json").write_text(json.dumps(config | opinions))
    async with embedded_server(str(folder)) as url:
        seeds, defaults = await examine(url, "seeds", "sampling defaults")
    assert seeds.status == "pass"
    assert defaults.status == "warn"
    assert "for temperature, top_k (" in defaults.found
    assert "--generation-config vllm" in defaults.advice


async def test_where_seeds_mean_nothing_defaults_are_not_judged(servers):
    def unseeded(body):
        body.pop("seed", None)
        return body

    async with Faulty(servers.policy, asked=in_completions(unseeded)).listening() as url:
        assert (await examine(url, "seeds", "sampling defaults"))[1] is None


async def test_a_prefix_cache_that_keeps_nothing(servers):
    numbers = count(20)

    def always_new(body):
        return {**body, "prompt": [next(numbers) % 90 + 10, *body["prompt"]]} if "prompt" in body else body

    found = await finding(servers.policy, "prefix cache", asked=in_completions(always_new))
    assert (found.status, "read again" in found.found) == ("warn", True)


async def test_a_server_that_refuses_a_burst(servers):
    async with Faulty(servers.policy, at_once=12).listening() as url:
        (found,) = await examine(url, "burst")
    assert (found.status, "too many" in found.found) == ("warn", True)


async def test_a_hosted_api_is_asked_what_it_can_answer():
    texts = count()

    def reply(body, _request):
        return chat_reply(f"Sample {body.get('seed', next(texts)) % 997}")

    async with Stub(**{"/v1/models": models("gpt"), "/v1/chat/completions": reply}).listening() as stub:
        report = await diagnose(stub.url)
    assert {f.check: f.status for f in report.findings if f.check != "burst"} == {
        "server": "pass",
        "model": "pass",
        "continuing": "warn",
        "seeds": "pass",
    }


async def test_tgi(servers):
    """The stand-in for TGI, which has its own routes for everything."""
    standin = StandIn(servers.policy, None)
    async with standin.listening() as url:
        report = await diagnose(f"tgi+{url}")
    assert {f.check: f.status for f in report.findings if f.check != "burst"} == {
        "server": "pass",
        "model": "warn",
        "continuing": "pass",
        "one BOS": "pass",
        "date": "pass",
        "steps": "pass",
        "seeds": "pass",
    }
    assert report.findings[0].found.startswith("TGI 3.3.0")
