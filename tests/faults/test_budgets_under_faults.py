"""Budgets stay hard when requests fail: another attempt is a request, too, and a lost answer is no gift."""

import pytest
from fault_proxy import KINDS, at_random, fault_proxies
from seeded_runs import STRATEGY, clients

from asearch import Budget, solve

QUICK = [kind for kind in KINDS if kind != "hang"]


def policy_fails_twice(key, attempt, body):
    """The first two attempts at every step fail."""
    return "500" if attempt < 2 and key.startswith("POST /v1/completions") and b'"stop"' in body else None


@pytest.mark.parametrize("requests", [2, 5, 9, 20])
async def test_attempts_count_and_the_last_one_allowed_is_the_last_one_sent(requests, servers, problems):
    async with (
        fault_proxies(servers, policy_fails_twice) as (policy, prm),
        clients(policy.url, prm.url) as (client, verifier),
    ):
        await client.connect()
        before = sum(policy.sent[key] for key in policy.posts())  # to find out what the server can do
        result = await solve(STRATEGY, client, verifier, problems[0], budget=Budget(requests=requests))
    assert result.stopped_by == "requests"
    assert result.errors == ()
    sent = sum(policy.sent[key] for key in policy.posts()) - before
    assert 0 < sent <= requests
    assert (result.usage.retries > 0) == (requests > 2)  # both are needed for the first attempts of both subtrees


@pytest.mark.parametrize("tokens", [150, 600])
async def test_tokens_of_answers_that_came_stay_within_the_budget(tokens, servers, problems):
    async with (
        fault_proxies(servers, at_random(seed=4, share=0.4, kinds=QUICK)) as (policy, prm),
        clients(policy.url, prm.url) as (client, verifier),
    ):
        result = await solve(STRATEGY, client, verifier, problems[0], budget=Budget(tokens=tokens))
    assert result.stopped_by == "tokens"
    assert result.usage.tokens <= tokens


async def test_a_deadline_ends_a_search_that_waits_for_another_attempt(servers, problems):
    def never(key, attempt, body):
        return "503" if key.startswith("POST /v1/completions") and b'"stop"' in body else None

    async with (
        fault_proxies(servers, never) as (policy, prm),
        clients(policy.url, prm.url) as (client, verifier),
    ):
        result = await solve(STRATEGY, client, verifier, problems[0], budget=Budget(seconds=0.3))
        assert (result.stopped_by, result.errors) == ("seconds", ())
