"""The problems of these tests, and what an undisturbed run makes of them."""

import asyncio

import pytest
from seeded_runs import searched

from asearch.embedded import embedded_problems


@pytest.fixture(scope="session")
def problems():
    return [problem for problem, _ in asyncio.run(embedded_problems(50, seed=11))]


@pytest.fixture(scope="session")
def undisturbed(servers, problems):
    """The results of a run without faults, one per problem."""
    return asyncio.run(searched(servers.policy, servers.prm, problems)).results
