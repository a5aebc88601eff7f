"""What a chat request may ask for: each field is honoured, ignored or refused, and none of them silently."""

import math

import orjson
import pytest

from asearch.problem import SYSTEM_PROMPT
from asearch.proxy import wire
from asearch.proxy.errors import ApiError

USER = {"role": "user", "content": "1 + 1?"}


def parsed(**fields):
    return wire.parse(orjson.dumps({"model": "dvts-4", "messages": [USER], **fields}))


def refused(**fields):
    def read():
        wire.problem_of(parsed(**fields).messages)

    with pytest.raises(ApiError) as caught:
        read()
    return caught.value


def test_options_reach_the_strategy_under_openai_s_names_and_ours():
    request = parsed(temperature=0.5, top_p=0.9, max_tokens=100, asearch={"width": 2, "early_stop": "any_order"})
    assert request.of_strategy() == {
        "temperature": 0.5,
        "top_p": 0.9,
        "max_tokens": 100,
        "width": 2,
        "early_stop": "any_order",
    }


def test_max_completion_tokens_is_the_newer_name():
    assert parsed(max_tokens=100, max_completion_tokens=50).of_strategy() == {"max_tokens": 50}


def test_what_is_not_given_is_left_to_the_strategy():
    assert parsed().of_strategy() == {}
    assert parsed(temperature=None, n=None, asearch=None, stream=None).of_strategy() == {}


@pytest.mark.parametrize("name", sorted(wire.IGNORED))
def test_bookkeeping_of_the_caller_is_ignored(name):
    assert parsed(**{name: {"any": ["thing"]}}).of_strategy() == {}


@pytest.mark.parametrize("name", sorted(wire.REFUSED))
def test_what_cannot_be_had_is_refused_unless_it_asks_for_nothing(name):
    nothing, why = wire.REFUSED[name]
    for value in nothing:
        parsed(**{name: value})
    refusal = refused(**{name: [{"type": "function"}]})
    assert (refusal.status, refusal.param, refusal.code) == (400, name, "unsupported_parameter")
    assert why in str(refusal)


def test_a_field_that_nobody_knows_is_refused_by_name():
    assert refused(top_k=5).param == "top_k"
    assert "widht" in str(refused(asearch={"widht": 4}))


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 0}, "n"),
        ({"n": "2"}, "n"),
        ({"n": True}, "n"),
        ({"temperature": 2.5}, "temperature"),
        ({"temperature": -1}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 10**9}, "max_tokens"),
        ({"seed": 1.5}, "seed"),
        ({"seed": 2**63}, "seed"),
        ({"timeout": 0}, "timeout"),
        ({"stream": "yes"}, "stream"),
        ({"model": None}, "model"),
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": [{"content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": []}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": " \n"}]}, "messages"),
        ({"messages": [USER, {"role": "assistant", "content": "2"}]}, "messages"),
        ({"messages": [{"role": "tool", "content": "2", "tool_call_id": "1"}, USER]}, "messages[0].role"),
        ({"messages": [{"role": "assistant", "content": "", "tool_calls": [{}]}, USER]}, "messages[0]"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
        ({"asearch": {"depth": 0}}, "asearch.depth"),
        ({"asearch": {"votes": 10**6}}, "asearch.votes"),
        ({"asearch": {"budget_tokens": 0}}, "asearch.budget_tokens"),
        ({"asearch": {"plan": "/etc/passwd"}}, "asearch.plan"),
        ({"asearch": []}, "asearch"),
    ],
)
def test_bad_values_are_named_as_the_caller_wrote_them(fields, param):
    refusal = refused(**fields)
    assert (refusal.status, refusal.param) == (400, param), str(refusal)


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b'"x"', b"\xff", b"NaN", b"[" * 5000, b'{"model": "\\ud800"}']
)
def test_a_body_that_is_no_json_object_is_refused(body):
    with pytest.raises(ApiError):
        wire.parse(body)


def test_options_cannot_be_infinite():
    for value in (math.inf, math.nan):
        with pytest.raises(ApiError):
            wire.parse(b'{"model": "dvts", "messages": [], "temperature": %s}' % str(value).encode())


def problem(*messages, **options):
    return wire.problem_of(parsed(messages=list(messages)).messages, **options)


def test_the_last_message_is_the_problem_and_the_turns_before_it_are_kept():
    made = problem(USER, {"role": "assistant", "content": "2"}, {"role": "user", "content": "And 2 + 2?"})
    assert made.text == "And 2 + 2?"
    assert made.history == (("user", "1 + 1?"), ("assistant", "2"))
    assert made.system == SYSTEM_PROMPT


def test_the_caller_s_system_prompt_comes_before_the_one_that_makes_steps():
    french = {"role": "developer", "content": "Answer in French."}
    short = {"role": "system", "content": "Be brief."}
    assert problem(french, short, USER).system == f"Answer in French.\n\nBe brief.\n\n{SYSTEM_PROMPT}"
    assert problem(french, USER, step_prompt=False).system == "Answer in French."
    assert problem(USER, step_prompt=False).system is None


def test_a_system_message_in_the_middle_stays_where_it_is():
    made = problem(USER, {"role": "system", "content": "Be brief."}, USER)
    assert made.history == (("user", "1 + 1?"), ("system", "Be brief."))


def test_a_text_may_come_in_parts():
    parts = [{"type": "text", "text": "What is"}, {"type": "text", "text": "1 + 1?"}]
    assert problem({"role": "user", "content": parts, "name": "ann"}).text == "What is\n1 + 1?"


def test_an_answer_of_this_proxy_can_stand_in_the_history():
    reply = {"role": "assistant", "content": "2", "refusal": None, "reasoning_content": "0.9", "tool_calls": None}
    assert problem(USER, reply, USER).history[1] == ("assistant", "2")
