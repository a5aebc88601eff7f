"""A Ray cluster of two nodes on this machine, started once."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "evaluation"))  # what the tests of evaluations share


@pytest.fixture(scope="session")
def cluster():
    """Joined; the head node runs nothing, the two others two workers each."""
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))  # the workers import the strategies of these tests
    running = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        for _ in range(2):
            running.add_node(num_cpus=2)
        ray.init(address=running.address, log_to_driver=False, logging_level="ERROR")
        yield running
        ray.shutdown()
    finally:
        running.shutdown()
        monkeypatch.undo()


@pytest.fixture(scope="session")
def workers():
    import asyncio

    from asearch import AnswerWorkers

    pool = AnswerWorkers(size=1)
    yield pool
    asyncio.run(pool.aclose())
