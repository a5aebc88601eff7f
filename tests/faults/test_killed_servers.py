"""Servers are killed in the middle of a run: it goes on, and comes to the same results."""

from mortal import mortal_servers
from seeded_runs import PATIENT, Script, assert_same, searched

from asearch import Sampled, Scored


async def test_both_servers_die_and_come_back(problems, undisturbed):
    async with mortal_servers("policy", "prm") as (policy, prm):
        script = Script(
            (Sampled, 150, lambda: policy.soon(policy.renew())), (Scored, 120, lambda: prm.soon(prm.renew()))
        )
        run = await searched(policy.url, prm.url, problems[:25], retry=PATIENT, on_event=script)
        assert (policy.lives, prm.lives) == (2, 2)
    assert_same(run.results, undisturbed[:25])
    assert run.policy.retries > 0
    assert run.prm.retries > 0
    assert run.policy.failures == run.prm.failures == 0
