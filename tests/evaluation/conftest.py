"""Answer processes that all tests of evaluations share."""

import pytest

from asearch import AnswerWorkers


@pytest.fixture(scope="session")
def workers():
    pool = AnswerWorkers(size=1)
    yield pool
    import asyncio

    asyncio.run(pool.aclose())
