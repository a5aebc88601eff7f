"""The stand-in, on the embedded policy."""

import pytest

from tgi.openapi import OpenAPI
from tgi.standin import StandIn


@pytest.fixture(scope="session")
def document():
    """TGI's own OpenAPI document; None where it does not lie beside the repository."""
    return OpenAPI.of_tgi()


@pytest.fixture
async def standin(servers, document):
    """A stand-in that held every request and reply to TGI's document, if there is one."""
    server = StandIn(servers.policy, document)
    async with server.listening() as server.url:
        yield server
    assert not server.violations
