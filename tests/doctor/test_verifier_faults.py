"""Each check of the verifier, on a server that has exactly that fault."""

import pytest

from asearch.doctor import diagnose
from asearch.doctor.verifier import GOOD, VERIFIER_CHECKS
from doctor.faulty import Faulty
from prm.stub_servers import Stub


async def examine(prm, **options):
    """All findings, by check."""
    report = await diagnose(prm=prm, **options)
    assert len({finding.check for finding in report.findings}) == len(report.findings)
    return {finding.check: finding for finding in report.findings}


async def test_a_healthy_verifier_passes_every_check(servers):
    findings = await examine(servers.prm)
    expected = [name for name, _ in VERIFIER_CHECKS if name != "step by step"]  # a causal one is so by construction
    assert list(findings) == ["server", *expected]
    assert {finding.status for finding in findings.values()} == {"pass"}


async def test_a_policy_in_its_place(servers):
    findings = await examine(servers.policy)
    assert findings["family"].status == "fail"
    assert "--prm-family" in findings["family"].advice
    assert "good above bad" not in findings  # nothing is said about what could not be read


async def test_a_family_that_the_name_contradicts(servers):
    found = (await examine(servers.prm, prm_family="versaprm"))["family"]
    assert (found.status, found.found) == (
        "fail",
        "asearch-prm is of the family embedded, and would be read as versaprm",
    )


async def test_an_unknown_model_is_read_as_the_user_says(servers):
    async with Stub(name="my-own", root="/models/mine").listening() as url:
        assert (await examine(url))["family"].status == "fail"
        found = (await examine(url, prm_family="versaprm"))["family"]
    assert found.status == "pass"
    assert "as you say" in found.found


async def test_verdicts_the_wrong_way_round(servers):
    def swapped(route, body, reply):
        for choice in reply.get("choices", ()):
            for top in (choice.get("logprobs") or {}).get("top_logprobs") or ():
                names = [f"token_id:{token}" for token in body["logprob_token_ids"]]
                top[names[0]], top[names[1]] = top[names[1]], top[names[0]]
        return reply

    async with Faulty(servers.prm, answered=swapped).listening() as url:
        found = (await examine(url))["good above bad"]
    assert found.status == "fail"
    assert "astray" in found.found


async def test_a_verifier_that_cannot_tell():
    async with Stub(
        name="Qwen2.5-Math-PRM-7B", completions="none", rows=lambda text: [[0.5, 0.5]] * text.count("<extra_0>")
    ).listening() as url:
        findings = await examine(url)
    assert findings["rows per step"].status == "pass"
    assert findings["good above bad"].status == "fail"


@pytest.mark.parametrize("rows", [lambda _: [], lambda _: [[0.1, 0.9]]], ids=["a wrong step tag", "one row for all"])
async def test_rows_that_are_not_one_per_step(rows):
    async with Stub(name="Qwen2.5-Math-PRM-7B", completions="none", rows=rows).listening() as url:
        found = (await examine(url))["rows per step"]
    assert found.status == "fail"
    assert f"for {len(GOOD)} steps" in found.found
    assert "step_tag_id" in found.found


async def test_a_score_that_depends_on_what_comes_later():
    def rows(text):
        count = text.count("<extra_0>")
        return [[1 - (value := 0.9 / count), value] for _ in range(count)]

    async with Stub(name="Qwen2.5-Math-PRM-7B", completions="none", rows=rows).listening() as url:
        found = (await examine(url))["step by step"]
    assert (found.status, "when it is asked for" in found.found) == ("warn", True)


async def test_a_server_that_returns_only_the_likeliest_tokens():
    class Always(dict):
        def __bool__(self):
            return True

        def get(self, _prefix, _default):
            return "-"

    async with Stub(completions="old", mute=Always()).listening() as url:
        found = (await examine(url))["exact scores"]
    assert (found.status, "bounds" in found.found) == ("warn", True)


async def test_a_function_is_a_verifier_too():
    findings = await examine(lambda problem, steps: [0.2 + 0.6 * ("-15" in step) for step in steps][-1])
    assert findings["good above bad"].status == "pass"
    assert "family" not in findings
