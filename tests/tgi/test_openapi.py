"""The stand-in really holds requests and replies to TGI's document."""

import aiohttp
import pytest

from tgi.openapi import Violation

GOOD = {"inputs": "1", "parameters": {"max_new_tokens": 2, "seed": 1, "stop": ["\n\n"], "details": True}}


@pytest.fixture
def held(document):
    if document is None:
        pytest.skip("TGI's OpenAPI document does not lie beside the repository")
    return document


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"seed": 0}, "seed is 0, not above 0"),
        ({"temperature": 0.0}, "temperature is 0.0, not above 0"),
        ({"top_p": 1.5}, "out of range"),
        ({"stop": ["a"] * 5}, "5 items"),
        ({"stop": "a"}, "not of type array"),
        ({"max_new_tokens": "2"}, "not of type integer"),
        ({"do_sample": 1}, "not of type boolean"),
    ],
)
def test_requests_that_the_document_forbids(held, parameters, words):
    held.check_request("/generate", GOOD)
    with pytest.raises(Violation, match=words):
        held.check_request("/generate", {**GOOD, "parameters": {**GOOD["parameters"], **parameters}})


def test_replies_that_the_document_forbids(held):
    details = {"finish_reason": "eos_token", "generated_tokens": 1, "prefill": [], "tokens": []}
    held.check_reply("post", "/generate", 200, {"generated_text": "1", "details": details})
    for broken in (
        {},
        {"generated_text": "1", "details": {**details, "finish_reason": "stop"}},
        {"generated_text": None},
    ):
        with pytest.raises(Violation):
            held.check_reply("post", "/generate", 200, broken)
    with pytest.raises(Violation, match="no reply with status 418"):
        held.check_reply("post", "/generate", 418, {})


async def test_the_server_refuses_and_remembers(held, standin):
    async with aiohttp.ClientSession() as session:
        bad = {**GOOD, "parameters": {"seed": 0, "n": 4}}
        async with session.post(f"{standin.url}/generate", json=bad) as reply:
            assert reply.status == 422
        async with session.post(
            f"{standin.url}/generate", json={**GOOD, "parameters": {"n": 4, "max_new_tokens": 2}}
        ) as reply:
            assert reply.status == 200
    assert ["seed" in standin.violations[0], "unknown parameters ['n']" in standin.violations[1]] == [True, True]
    standin.violations.clear()
