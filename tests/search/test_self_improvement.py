"""The policy that revises its own attempts, and the policy that judges its own steps."""

import math

import pytest

from asearch import DVTS, FunctionPRM, Majority, Problem, SelfRefine, SelfVerifier, SelfVerify, Step, solve
from asearch.problem import REVISION_PROMPT, VERIFICATION_PROMPT, revision, verification
from asearch.strategies.verification import first_token, share_of_yes
from worlds import ListedClient, ScriptedClient, ScriptedPRM, World, boxed, run

WORLD = World(branching=10**6, depth=3)


def test_a_revision_shows_the_attempts_as_a_conversation():
    problem = Problem("What?", system="S", history=(("user", "Hi"), ("assistant", "Hello")), id="7")
    turns = revision(problem, ["first", "second"]).messages
    assert [turn["role"] for turn in turns] == ["system", "user", "assistant", *["user", "assistant"] * 2, "user"]
    assert [turn["content"] for turn in turns[3:]] == ["What?", "first", REVISION_PROMPT, "second", REVISION_PROMPT]
    assert revision(problem, ["first"]).id == "7"


def test_chains_of_revisions_see_what_came_before():
    client = ScriptedClient(WORLD, latency=lambda *_: 1)
    result = run(solve(SelfRefine(n=8, revisions=4, memory=2), client, ScriptedPRM(WORLD), "What?"))
    assert client.requests == 8
    assert result.usage.seconds == pytest.approx(4)  # the two chains run side by side
    shown = sorted(len(path.problem.history) for path, _, _, _ in client.asked)
    assert shown == [0, 0, 2, 2, 4, 4, 4, 4]  # nothing, one attempt, and never more than two
    texts = [path.text for path in result.paths]
    for path, _, _, _ in client.asked:
        assert all(turn[1] in (*texts, "What?", REVISION_PROMPT) for turn in path.problem.history)
    assert len({path.text for path in result.paths}) == 8
    assert all(path.problem.text == "What?" for path in result.paths)  # the verifier judges the problem itself
    assert [path.id[0] for path in result.paths] == list(range(8))


def test_revisions_without_a_verifier_are_a_majority():
    result = run(solve(SelfRefine(n=4, revisions=4), ListedClient([boxed(a) for a in (1, 2, 2, 1)]), None, "What?"))
    assert (result.answer, result.votes[0].count, result.strategy["select"]) == ("1", 2, "majority")
    assert result.score is None


def test_an_attempt_that_says_nothing_is_not_shown():
    client = ListedClient(["", boxed(2), boxed(2), boxed(2)])
    result = run(solve(SelfRefine(n=4), client, FunctionPRM(lambda *_: 0.5), "What?"))
    assert result.answer == "2"
    assert result.values[0] == 0.0


# -- the policy as verifier --------------------------------------------------------------------------------------------


def test_the_question_stands_behind_the_solution():
    turns = verification(Problem("What?", system=None), "Step 1").messages
    assert [(turn["role"], turn["content"]) for turn in turns] == [
        ("user", "What?"),
        ("assistant", "Step 1"),
        ("user", VERIFICATION_PROMPT),
    ]


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        ([("Yes", 0.6), ("No", 0.2), ("Maybe", 0.2)], 0.75),
        ([(" yes", 0.3), ("YES", 0.3), ("n", 0.2)], 0.75),
        ([("Y", 0.5), ("Ye", 0.1), ("N", 0.2)], 0.75),
        ([("Yesterday", 0.9), ("No", 0.1)], 0.0),
        ([("Perhaps", 0.9)], 0.5),
        ([], 0.5),
    ],
)
def test_the_share_of_yes(tokens, expected):
    assert share_of_yes([(token, math.log(p)) for token, p in tokens]) == pytest.approx(expected)


def test_the_first_token_of_a_chat_reply():
    content = [{"token": "Yes", "top_logprobs": [{"token": "Yes", "logprob": -0.5}, {"token": "No", "logprob": -1}]}]
    reply = {"choices": [{"logprobs": {"content": content}}]}
    assert first_token(reply) == [("Yes", -0.5), ("No", -1.0)]


class Critic(ScriptedClient):
    """Solves, and when asked for a verdict says Yes of solutions whose last mark is even (after some hesitation)."""

    async def extend(self, path, n, **options):
        if path.problem.text != VERIFICATION_PROMPT:
            return await super().extend(path, n, **options)
        said = path.problem.history[-1][1]
        yes = "" if "boxed{1}" in said else "yes, "
        return [Step(f"{yes}No" if i % 2 else "Yes", "eos", None, 1) for i in range(n)]


def test_votes_are_shares_with_any_client():
    world = World(branching=10**6, depth=3, answers=2)
    result = run(solve(SelfVerify(n=8, votes=4, early_stop=False), Critic(world), None, "What?"))
    assert {path.score for path in result.paths} <= {0.5, 1.0}
    assert {answer for path, answer in zip(result.paths, result.answers, strict=True) if path.score == 0.5} == {"1"}
    assert result.usage.scored == 8 * 3


def test_it_is_a_prm_for_every_strategy():
    client = Critic(World(branching=10**6, depth=3, answers=2))
    result = run(solve(DVTS(n=4, width=4, select="best"), client, SelfVerifier(client, votes=4), "What?"))
    assert (result.answer, result.score) == ("0", 1.0)


def test_a_prm_that_is_not_asked_is_not_connected_to():
    prm = ScriptedPRM(WORLD)
    run(solve(SelfVerify(n=2, votes=1), Critic(WORLD), prm, "What?"))
    run(solve(Majority(n=2), ScriptedClient(WORLD), prm, "What?"))
    assert (prm.connected, prm.requests) == (0, 0)
