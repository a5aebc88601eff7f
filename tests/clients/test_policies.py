"""Policies as data: how long to wait, how often, how fast; and what URLs and headers become."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asearch.errors import UsageError
from asearch.transport import Endpoint, Retry
from asearch.transport.policies import throttler
from asearch.transport.urls import is_loopback, merge_headers, parse_url, secrets_of


@given(st.integers(1, 40), st.floats(0.001, 10), st.floats(0.001, 100))
def test_waits_grow_up_to_the_longest_with_jitter(failures, first, longest):
    full = min(longest, first * 2 ** (failures - 1))
    assert 0.5 * full <= Retry(first=first, longest=longest).wait(failures, None) <= full


@given(st.floats(0, 1000), st.floats(0.001, 10))
def test_what_the_server_asks_for_is_a_lower_bound(asked, first):
    assert asked <= Retry(first=first).wait(1, asked) <= asked + first


@pytest.mark.parametrize(("rate", "burst", "period"), [(0.5, 1, 2.0), (1, 1, 1.0), (10, 10, 1.0), (2.5, 2, 0.8)])
def test_a_rate_is_kept_in_bursts_of_a_second(rate, burst, period):
    throttle = throttler(rate)
    assert (throttle.rate_limit, throttle.period) == (burst, pytest.approx(period))
    assert throttle.rate_limit / throttle.period == pytest.approx(rate)


@pytest.mark.parametrize("rate", [0, -1, math.inf, math.nan])
def test_no_rate(rate):
    with pytest.raises(UsageError, match="rate is in requests per second"):
        throttler(rate)


def test_no_throttle_by_default():
    assert throttler(None) is None


@pytest.mark.parametrize(
    ("given_url", "root", "query", "basic"),
    [
        ("http://h:1", "http://h:1", {}, None),
        ("http://h:1/v1/?a=b&c=", "http://h:1", {"a": "b", "c": ""}, None),
        ("https://u@h/x/v1", "https://h/x", {}, "Basic dTo="),
        ("https://u:p%40q@h", "https://h", {}, "Basic dTpwQHE="),
        ("http://[::1]:8/v1", "http://[::1]:8", {}, None),
        ("HTTP://Host", "http://host", {}, None),
    ],
)
def test_urls(given_url, root, query, basic):
    assert parse_url(given_url) == (root, query, basic)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://localhost:1", True),
        ("http://127.0.0.1", True),
        ("http://[::1]", True),
        ("http://a.localhost", True),
        ("http://10.0.0.1", False),
        ("http://localhost.example.com", False),
    ],
)
def test_loopback(url, expected):
    assert is_loopback(url) is expected


def test_headers_are_merged_whatever_their_case():
    assert merge_headers({"X-A": "1", "B": "2"}, {"x-a": "3"}) == {"x-a": "3", "B": "2"}


def test_the_users_authorization_goes_before_the_key():
    endpoint = Endpoint("http://me:pw@h", api_key="sk-key", headers={"authorization": "Custom x"})
    assert endpoint.replicas[0].headers["authorization"] == "Custom x"
    assert "Authorization" not in endpoint.replicas[0].headers


def test_secrets():
    headers = {"Authorization": "Bearer sk-abcdef", "X-Team": "blueberry", "Cookie": "session=12345678", "key": "abc"}
    assert secrets_of(headers, {"api-key": "in-query", "page": "seventeen"}) == (
        "Bearer sk-abcdef",
        "session=12345678",
        "sk-abcdef",
        "in-query",
    )
