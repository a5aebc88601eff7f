"""Two replicas of each server, of which one dies, freezes or stumbles: the run goes on, and comes to the same results."""

from contextlib import AsyncExitStack

from fault_proxy import FaultProxy, at_random
from mortal import mortal_servers
from seeded_runs import PATIENT, RETRY, Script, assert_same, clients, searched, searched_by, until

from asearch import Retry, Sampled, Scored, Timeouts

# Any wait before another attempt would be of ten seconds at least.
SLUGGISH = Retry(attempts=6, total=300.0, first=20.0, longest=40.0)


async def test_one_of_two_dies_and_nobody_waits(servers, problems, undisturbed):
    """What was under way there is asked of the other at once; the dead one gets nothing until it is back."""
    async with mortal_servers("policy", "prm") as (policy, prm):
        pairs = [servers.policy, policy.url], [servers.prm, prm.url]
        async with clients(*pairs, SLUGGISH, Timeouts()) as (client, verifier):
            script = Script(
                (Sampled, 150, lambda: policy.soon(policy.kill())), (Scored, 120, lambda: prm.soon(prm.kill()))
            )
            run = await searched_by(client, verifier, problems[:25], on_event=script)
            assert_same(run.results, undisturbed[:25])
            for stats in (run.policy, run.prm):
                assert stats.failures == 0
                assert stats.moves == stats.retries > 0
            assert script.longest_pause < SLUGGISH.first / 2
            mortals = [endpoint.replicas[1] for endpoint in (client.endpoint, verifier.endpoint)]
            assert not any(replica.up for replica in mortals)
            await policy.start()
            await prm.start()
            await until(lambda: all(replica.up for replica in mortals))
            before = [replica.stats.sequences for replica in mortals]
            again = await searched_by(client, verifier, [f"{problem} " for problem in problems[:10]])
            assert all(result.answer is not None for result in again.results)
            assert all(replica.stats.sequences > count for replica, count in zip(mortals, before, strict=True))


async def test_all_replicas_die_one_after_another_and_come_back(problems, undisturbed):
    """For a while nobody is there at all: requests wait as their retry policy says, and nothing is lost."""
    async with mortal_servers("policy", "policy", "prm", "prm") as (a, b, c, d):
        script = Script(
            (Sampled, 100, lambda: (a.soon(a.renew()), b.soon(b.renew()))),
            (Scored, 120, lambda: (c.soon(c.renew()), d.soon(d.renew()))),
        )
        run = await searched([a.url, b.url], [c.url, d.url], problems[:25], retry=PATIENT, on_event=script)
        assert [server.lives for server in (a, b, c, d)] == [2, 2, 2, 2]
    assert_same(run.results, undisturbed[:25])
    assert run.policy.failures == run.prm.failures == 0


async def test_one_of_two_freezes(servers, problems, undisturbed):
    """It takes requests and never answers: each is asked of the other after the read timeout."""
    async with mortal_servers("policy", "prm") as (policy, prm):
        script = Script((Sampled, 150, policy.freeze), (Scored, 120, prm.freeze))
        pairs = [servers.policy, policy.url], [servers.prm, prm.url]
        run = await searched(*pairs, problems[:25], retry=SLUGGISH, on_event=script)
        assert_same(run.results, undisturbed[:25])
        for stats in (run.policy, run.prm):
            assert stats.failures == 0
            assert stats.moves == stats.retries > 0


async def test_both_stumble(servers, problems, undisturbed):
    """A fifth of all requests to all four breaks; what one replica fails at, the other may do."""
    async with AsyncExitStack() as stack:
        proxies = [
            await stack.enter_async_context(FaultProxy(url, at_random(seed)).listening())
            for seed, url in enumerate([servers.policy, servers.policy, servers.prm, servers.prm])
        ]
        urls = [proxy.url for proxy in proxies]
        run = await searched(urls[:2], urls[2:], problems[:25])
        assert_same(run.results, undisturbed[:25])
        assert run.policy.failures == run.prm.failures == 0
        for proxy in proxies:
            assert proxy.errors == []
            assert sum(proxy.kinds().values()) > 0.1 * sum(proxy.sent.values())
        for pair in (proxies[:2], proxies[2:]):
            both = pair[0].sent + pair[1].sent
            for key in pair[0].posts() + pair[1].posts():
                assert both[key] <= RETRY.attempts + sum(proxy.faults[key, "reset before"] for proxy in pair)
                assert sum(proxy.answered[key] for proxy in pair) == 1, [proxy.story(key) for proxy in pair]
