"""A fifth of all requests breaks, in nine ways: the searches come to the same trees, and ask no oftener than they may."""

import orjson
import pytest
from fault_proxy import KINDS, at_random, fault_proxies
from seeded_runs import RETRY, assert_same, searched

from asearch import Retry, Timeouts


async def test_fifty_problems_come_out_the_same(servers, problems, undisturbed):
    async with fault_proxies(servers, at_random(seed=1)) as proxies:
        run = await searched(*(proxy.url for proxy in proxies), problems)
    assert_same(run.results, undisturbed)
    assert {kind for proxy in proxies for kind in proxy.kinds()} == set(KINDS)
    for proxy, stats in zip(proxies, (run.policy, run.prm), strict=True):
        assert proxy.errors == []
        assert sum(proxy.kinds().values()) > 0.1 * sum(proxy.sent.values())
        assert stats.requests == sum(proxy.sent.values())
        assert stats.failures == 0
        assert_asked_no_oftener_than_needed(proxy)


def assert_asked_no_oftener_than_needed(proxy):
    """Once more for each time that an answer failed to come, and never again after it came."""
    for key in proxy.posts():
        assert proxy.answered[key] == 1, proxy.story(key)
        assert proxy.sent[key] == 1 + proxy.broken(key) + proxy.left[key], proxy.story(key)
        # a kept connection that breaks before the answer is replaced at once, which is no attempt
        assert proxy.sent[key] <= RETRY.attempts + proxy.faults[key, "reset before"]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "slow"])
async def test_a_problem_that_fails_for_good_is_tried_as_often_as_allowed_and_no_other_suffers(
    kind, servers, problems, undisturbed
):
    """One problem's prompt can never be had: it is asked for as often as the policy allows, the others are the same."""
    few, retry, doomed = problems[:4], Retry(attempts=3, first=0.001), set()
    timeouts = Timeouts(read=1.0 if kind == "hang" else 30.0)

    def plan(key, _, body):
        if key.startswith("POST /tokenize") and orjson.dumps(problems[2]) in body:
            doomed.add(key)
        return kind if key in doomed else None

    async with fault_proxies(servers, plan) as (policy, prm):
        run = await searched(policy.url, prm.url, few, retry=retry, timeouts=timeouts)
    lost = run.results.pop(2)
    assert (lost.answer, lost.stopped_by, len(lost.errors)) == (None, "error", 1)
    assert_same(run.results, [clean for i, clean in enumerate(undisturbed[:4]) if i != 2])
    (key,) = doomed
    assert policy.sent[key] <= retry.attempts + (retry.attempts if kind == "reset before" else 0)
    assert policy.sent[key] >= retry.attempts
    assert run.policy.failures == 1
