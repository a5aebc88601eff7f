"""Several TGI servers behind one client."""

import pytest

import asearch
from asearch.client import TGIClient, as_client
from asearch.errors import UsageError
from tgi.standin import StandIn


async def search(client):
    result = await asearch.best_of_n(client, lambda _problem, steps: len(steps) / 100, "What is $1 + 2$?", n=6)
    texts = [path.text for path in result.paths]
    await client.aclose()
    return texts


async def test_siblings_are_spread_and_say_the_same(servers, standin):
    other = StandIn(servers.policy, None)
    async with other.listening() as other.url:
        alone = await search(TGIClient(standin.url))
        standin.prompts.clear()
        client = as_client([f"tgi+{standin.url}", other.url])
        assert isinstance(client, TGIClient)
        assert await search(client) == alone
        assert [len(server.prompts) for server in (standin, other)] == [3, 3]
        assert [replica.stats.completion_tokens > 0 for replica in client.endpoint.replicas] == [True, True]


async def test_replicas_must_be_alike(servers, standin):
    other = StandIn(servers.policy, None, max_total_tokens=300)
    async with other.listening() as other.url:
        client = TGIClient([standin.url, other.url])
        with pytest.raises(UsageError, match=r"has max_total_tokens (300|512), and not (300|512) as the others do"):
            await client.connect()
        await client.aclose()
