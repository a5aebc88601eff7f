"""Five thousand bad requests, and not one server error."""

import asyncio
import http.client
import json
import threading
from collections import Counter

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from proxies import running

from worlds import ScriptedClient, ScriptedPRM, World

BAD = 5000

ODD = [
    None, True, False, 0, 1, -1, 2, 3, 0.5, 2**31, 2**53, 2**63, -(2**63), 2**64, 10**30, 1e308, -0.0, float("inf"), float("nan"),
    "", " ", "1", "null", "user", "system", "text", "auto", "none", "last", "majority", "any_order", "dvts-4", "best-of-n-0",
    "dvts--1", "beam_search-4", "greedy-2", "x" * 5000, "\x00", "\ud800", "../../etc/passwd", "%s%n", "\u202e", "é" * 50,
    [], [[]], [None], ["user"], [1, 2], [{}], [{"type": "text"}], [{"type": "text", "text": "1 + 1?"}], [{"type": "image_url"}],
    [{"role": "user", "content": "1 + 1?"}], [{"role": "user"}], [{"role": "tool", "content": "x"}], [[[[[[]]]]]],
    {}, {"": ""}, {"n": 4}, {"n": -4}, {"type": "text"}, {"type": "json_object"}, {"include_usage": 1}, {"a": {"b": {"c": []}}},
]  # fmt: skip
anything = st.sampled_from(ODD) | st.sampled_from(ODD) | st.integers() | st.text(max_size=10)
FIELDS = [
    "model",
    "messages",
    "n",
    "temperature",
    "top_p",
    "max_tokens",
    "max_completion_tokens",
    "seed",
    "stream",
    "stream_options",
    "timeout",
    "asearch",
    "tools",
    "tool_choice",
    "functions",
    "response_format",
    "stop",
    "logprobs",
    "logit_bias",
    "user",
    "metadata",
    "store",
    "modalities",
    "foo",
]
OPTIONS = [
    "n",
    "width",
    "depth",
    "lookahead",
    "reduction",
    "select",
    "early_stop",
    "confidence",
    "revisions",
    "memory",
    "weight_temperature",
    "iterations",
    "balance",
    "votes",
    "progress",
    "details",
    "tree",
    "step_prompt",
    "budget_tokens",
    "budget_requests",
    "plan",
]
models = st.sampled_from(
    ["dvts-4", "greedy", "best-of-n-4", "self-refine-4", "rebase-4", "particle-filter-4", "self-verify-4"]
)
role = st.sampled_from(["user", "system", "assistant", "developer", "tool"]) | anything
message = st.fixed_dictionaries(
    {"role": role, "content": anything}, optional={"name": anything, "tool_calls": anything}
)
good = {"model": "best-of-n-4", "messages": [{"role": "user", "content": "1 + 1?"}]}
chat = st.builds(
    lambda model, wrong, options: {**good, "model": model, **({"asearch": options} if options else {}), **wrong},
    models,
    st.dictionaries(st.sampled_from(FIELDS), anything | st.lists(message, max_size=3), min_size=1, max_size=3),
    st.dictionaries(st.sampled_from(OPTIONS), anything, max_size=2),
)
bodies = st.one_of(
    chat.map(lambda value: json.dumps(value).encode()),
    chat.map(lambda value: json.dumps(value).encode()),
    chat.map(lambda value: json.dumps(value).encode()[:-3]),
    anything.map(lambda value: json.dumps(value).encode()),
    st.binary(max_size=50),
)
chat_requests = st.tuples(
    st.just("POST"),
    st.just("/v1/chat/completions"),
    st.sampled_from([{"Content-Type": "application/json"}] * 20 + [
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/json; charset=nonsense"},
        {"Content-Type": "application/json", "Content-Encoding": "gzip"},
        {"Content-Type": "application/json", "Content-Encoding": "deflate"},
        {"Content-Type": "application/json", "Content-Encoding": "nonsense"},
        {"Content-Type": "application/json", "Expect": "100-nonsense"},
        {"Content-Type": "application/json", "X-Stainless-Read-Timeout": "nan"},
    ]),
    bodies,
)  # fmt: skip
path = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=20).map(lambda text: "/" + text)
other_requests = st.tuples(
    st.sampled_from(["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD", "TRACE"]),
    path
    | st.sampled_from(
        ["/v1/models/%00", "/v1/models/dvts-7", "/v1/models//", "/v1/completions", "/v1/models/%ff", "*"]
    ),
    st.just({}),
    st.binary(max_size=10),
)


@pytest.fixture(scope="module")
def proxy_url():
    """A proxy over a scripted world, on a thread of its own."""
    ready, finish, url = threading.Event(), threading.Event(), []

    async def serve():
        world = World(depth=2)
        async with running(ScriptedClient(world), ScriptedPRM(world), max_body=10_000, max_n=16) as proxy:
            url.append(proxy.url)
            ready.set()
            await asyncio.to_thread(finish.wait)
            assert proxy.proxy.admission.in_use == 0

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    ready.wait()
    yield url[0].removeprefix("http://")
    finish.set()
    thread.join()


def test_bad_requests_are_never_server_errors(proxy_url):
    statuses = Counter()
    kept = http.client.HTTPConnection(proxy_url, timeout=20)

    def exchange(method, where, headers, body):
        kept.request(method, where, body, headers)
        reply = kept.getresponse()
        return reply, reply.read()

    @settings(
        max_examples=BAD + BAD // 20,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(chat_requests | chat_requests | chat_requests | other_requests)
    def ask(request):
        try:
            reply, answer = exchange(*request)
        except (ConnectionError, http.client.HTTPException):  # the last request was such that its connection was closed
            kept.close()
            reply, answer = exchange(*request)
        statuses[reply.status] += 1
        assert reply.status < 500, answer
        if reply.status >= 400 and reply.headers["Content-Type"].startswith("application/json") and answer:
            assert set(json.loads(answer)["error"]) == {"message", "type", "param", "code"}

    ask()
    kept.close()
    bad = sum(count for status, count in statuses.items() if 400 <= status < 500)
    assert bad >= BAD, statuses
    assert {400, 404, 405, 415} <= set(statuses), statuses
