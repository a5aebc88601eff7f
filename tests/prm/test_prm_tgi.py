"""A causal verifier over TGI: the likeliest tokens of the stand-in, held to TGI's own document."""

from __future__ import annotations

from dataclasses import replace

import pytest

from asearch import Problem, UsageError
from asearch.families import EMBEDDED
from asearch.prm import CausalPRM, as_prm
from asearch.testing import assert_prm_laws
from asearch.testing.prms import PROBLEM, STEPS, path_of
from tgi.openapi import DOCUMENT, OpenAPI
from tgi.standin import StandIn


@pytest.fixture
async def tgi(servers):
    """TGI, as far as its protocol goes, with the embedded PRM inside."""
    if not DOCUMENT.exists():
        pytest.skip("TGI's OpenAPI document does not lie beside the repository")
    server = StandIn(servers.prm, OpenAPI.of_tgi())
    async with server.listening() as server.url:
        yield server
    assert not server.violations


@pytest.fixture
async def exact(servers):
    prm = CausalPRM(servers.prm)
    await prm.connect()
    yield prm
    await prm.aclose()


async def test_scores_over_tgi_are_those_over_vllms_protocol(tgi, exact):
    """Equal where both verdicts are among the five likeliest tokens, else a bound that is counted."""
    prm = CausalPRM(f"tgi+{tgi.url}", family=replace(EMBEDDED, ids=exact.verdicts))
    try:
        for k in range(1, len(STEPS) + 1):
            path = path_of(Problem(PROBLEM), STEPS[:k], [0.5] * (k - 1))
            bounded = prm.bounded
            (score,), (truth,) = await prm.score(path), await exact.score(path)
            if prm.bounded == bounded:
                assert score == pytest.approx(truth, abs=1e-5)
            else:
                assert abs(score - 0.5) <= abs(truth - 0.5)  # a bound claims no more than is known
        assert prm.bounded < len(STEPS)
        if not prm.bounded:
            await assert_prm_laws(prm)
    finally:
        await prm.aclose()
    asked = [body for route, _, body in tgi.requests if route == "/generate"]
    assert all(body["parameters"]["top_n_tokens"] == 5 for body in asked)
    beginning = tgi.prompts[0][0]
    assert all(prompt.count(beginning) == 1 for prompt in tgi.prompts)  # TGI adds the BOS: ours must not be there, too


async def test_a_model_that_is_not_known_by_its_name(tgi):
    prm = as_prm(tgi.url)
    try:
        with pytest.raises(UsageError, match=r"'asearch/standin'.*pass family="):
            await prm.connect()
    finally:
        await prm.aclose()


async def test_a_family_without_ids_cannot_be_read_there(tgi):
    prm = as_prm(tgi.url, family="embedded")
    try:
        with pytest.raises(UsageError, match="pass a family with ids"):
            await prm.connect()
    finally:
        await prm.aclose()
