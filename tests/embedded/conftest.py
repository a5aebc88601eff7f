"""A tiny model, and a server on it. Matrix products use one thread: tests share the machine."""

from __future__ import annotations

import os

import pytest

for _variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")  # read by numpy when the fixtures import it


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """The folder of a tiny model."""
    from embedded_models import write_checkpoint

    return write_checkpoint(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
async def live(tiny):
    from embedded_models import serving

    async with serving(tiny, served_model_name="tiny") as running:
        yield running
