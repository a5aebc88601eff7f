"""PRM scores through real vLLM equal a plain forward pass and the embedded server's, to 1e-5."""

from __future__ import annotations

import pytest
import reference_scores as reference
from vllm_servers import MODELS

from asearch import CausalPRM, Problem
from asearch.embedded import embedded_problems, embedded_server
from asearch.families import RLHFLOW_DEEPSEEK, Family
from asearch.prm import DetectedPRM, PoolingPRM, as_prm
from asearch.prm.causal import LikeliestTokens
from asearch.testing.prms import PROBLEM, STEPS, assert_prm_laws, path_of
from asearch.usage import Ledger, ledger

TOLERANCE = 1e-5


async def scores(prm, problem: Problem, steps=STEPS) -> list[float]:
    try:
        return list(await prm.score(path_of(problem, steps)))
    finally:
        await prm.aclose()


async def test_embedded_prm_is_the_same_on_three_runtimes(verifier):
    problems = [Problem(text) for text, _answer in await embedded_problems(8, seed=3)]
    plain = reference.Causal(MODELS / "prm")
    async with embedded_server("prm") as url:
        for problem in problems:
            vllm = await scores(as_prm(verifier), problem)
            embedded = await scores(as_prm(url), problem)
            assert vllm == pytest.approx(plain.embedded(problem.text, STEPS), abs=TOLERANCE)
            assert vllm == pytest.approx(embedded, abs=TOLERANCE)


async def test_cached_tokens_are_booked(verifier):
    """A text that the server has read before comes from its cache, and the search's books say so."""
    book = Ledger()
    before = ledger.set(book)
    try:
        for _ in range(2):
            await scores(as_prm(verifier), Problem(f"{PROBLEM} And once more: {PROBLEM}"), STEPS[:1])
    finally:
        ledger.reset(before)
    assert 32 <= book.usage.prm_cached_tokens < book.usage.prm_tokens / 2  # a whole block, and only of the second time


async def test_rlhflow_on_its_own_chat_template(llama, checkpoints):
    """The template is the server's: a random Llama whose chat template is not Llama 3.1's own."""
    got = await scores(CausalPRM(llama, family="rlhflow-deepseek"), Problem(PROBLEM))
    expected = reference.Causal(checkpoints / "llama").rlhflow(PROBLEM, STEPS)
    assert got == pytest.approx(expected, abs=TOLERANCE)
    assert max(got) - min(got) > 1e-3  # the checkpoint tells steps apart, so agreement says something


async def test_versa_on_a_random_llama(llama, checkpoints):
    got = await scores(CausalPRM(llama, family="versaprm"), Problem(PROBLEM))
    expected = reference.Causal(checkpoints / "llama").versa(PROBLEM, STEPS)
    assert got == pytest.approx(expected, abs=TOLERANCE)


async def test_an_older_vllm_by_its_likeliest_tokens(verifier):
    """The fall-back of servers without logprob_token_ids gives the same where both verdicts are likely."""
    exact = await scores(CausalPRM(verifier), Problem(PROBLEM))
    older = CausalPRM(verifier)
    await older.connect()
    older._route = LikeliestTokens(older.endpoint, older.model, older.family, older.verdicts, older._tokens_of)
    got = await scores(older, Problem(PROBLEM))
    assert sum(a == pytest.approx(b, abs=TOLERANCE) for a, b in zip(got, exact, strict=True)) == 4 - older.bounded
    assert all(abs(a - 0.5) <= abs(b - 0.5) + TOLERANCE for a, b in zip(got, exact, strict=True))


async def test_qwen_process_reward_model_over_pooling(qwen_prm, checkpoints):
    prm = as_prm(qwen_prm)
    assert isinstance(prm, DetectedPRM)
    got = await scores(prm, Problem(PROBLEM))
    assert got == pytest.approx(reference.qwen(checkpoints / "qwen_prm", PROBLEM, STEPS), abs=TOLERANCE)
    assert max(got) - min(got) > 1e-3


async def test_math_shepherd_on_a_random_mistral(mistral, checkpoints):
    got = await scores(as_prm(mistral), Problem(PROBLEM))
    expected = reference.Causal(checkpoints / "mistral").shepherd(PROBLEM, STEPS)
    assert got == pytest.approx(expected, abs=TOLERANCE)
    assert max(got) - min(got) > 1e-3


async def test_token_classifier_of_trl_over_pooling(qwen_tokens, checkpoints):
    """A row per token comes back, of which the ends of the steps are picked."""
    got = await scores(as_prm(qwen_tokens), Problem(PROBLEM))
    assert got == pytest.approx(reference.trl(checkpoints / "qwen_tokens", PROBLEM, STEPS), abs=TOLERANCE)
    assert max(got) - min(got) > 1e-3


async def test_outcome_reward_model_over_classify(qwen_outcome, checkpoints):
    got = await scores(as_prm(qwen_outcome, family="outcome"), Problem(PROBLEM))
    expected = reference.outcome(checkpoints / "qwen_outcome", PROBLEM, "".join(STEPS))
    assert got == pytest.approx([expected] * len(STEPS), abs=TOLERANCE)


async def test_a_wrong_family_says_so(llama, qwen_prm):
    from asearch import ProtocolError, UsageError

    with pytest.raises(ProtocolError, match="no /pooling"):
        await scores(PoolingPRM(llama, family="qwen-math"), Problem(PROBLEM))
    with pytest.raises(ProtocolError, match="cannot complete texts"):
        await scores(CausalPRM(qwen_prm, family="rlhflow-deepseek"), Problem(PROBLEM))
    with pytest.raises(UsageError, match="pass family="):
        await scores(as_prm(llama), Problem(PROBLEM))


@pytest.mark.parametrize(
    ("server", "family"),
    [
        ("verifier", None),
        ("llama", RLHFLOW_DEEPSEEK),
        ("mistral", None),
        ("qwen_prm", None),
        ("qwen_tokens", None),
    ],
)
async def test_laws(server: str, family: Family | None, request):
    prm = as_prm(request.getfixturevalue(server), family=family)
    try:
        await assert_prm_laws(prm, tolerance=TOLERANCE)
    finally:
        await prm.aclose()
