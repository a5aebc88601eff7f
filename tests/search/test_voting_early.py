"""Ending a vote early: never another answer, fewer samples, and the same result whatever the order of replies."""

import asyncio
import math
import random
from fractions import Fraction

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from asearch import BestOfN, FunctionPRM, Majority, Result, UsageError, solve
from asearch.answers import Group
from asearch.jury import sure
from worlds import ListedClient, boxed, run


def votes(answers, scores=None, *, latency=None, seed=0, workers=None, **options):
    """The result of a vote over listed answers, and its client; scores make it a weighted one."""
    texts = [
        (f"{i} half a thought, {boxed(answer[0])}", "length") if isinstance(answer, tuple) else f"{i} {boxed(answer)}"
        for i, answer in enumerate(answers)
    ]
    if answers and None in answers:
        texts = [
            text if answer is not None else f"{i} nothing"
            for i, (text, answer) in enumerate(zip(texts, answers, strict=True))
        ]
    client = ListedClient(texts, latency=latency)
    n = len(answers)
    if scores is None:
        return run(solve(Majority(n=n, **options), client, None, "What?", seed=seed, workers=workers)), client
    said = [text if isinstance(text, str) else text[0] for text in texts]
    prm = FunctionPRM(lambda _, steps: scores[said.index("".join(steps))])
    return run(solve(BestOfN(n=n, **options), client, prm, "What?", seed=seed)), client


answer = st.one_of(st.integers(0, 2), st.integers(0, 2), st.none(), st.tuples(st.integers(0, 2)))
elections = st.lists(answer, min_size=1, max_size=24)
weighted = st.lists(st.tuples(answer, st.floats(0, 1)), min_size=1, max_size=16)


@settings(max_examples=1000, deadline=None)
@given(elections, st.sampled_from([True, "any_order"]), st.sampled_from([None, 1.0]), st.integers(0, 99))
def test_a_majority_that_is_called_early_is_the_majority(answers, early, confidence, order):
    latency = random.Random(order).random
    full, _ = votes(answers, early_stop=False)
    called, client = votes(answers, early_stop=early, confidence=confidence, latency=lambda _: latency())
    assert called.answer == full.answer
    if called.stopped_by == "decided":
        assert len(called.paths) < len(answers)
    assert client.open == 0


@settings(max_examples=700, deadline=None)
@given(weighted, st.sampled_from([True, "any_order"]), st.sampled_from([None, 1.0]), st.integers(0, 99))
def test_a_weighted_vote_that_is_called_early_is_the_vote(ballots, early, confidence, order):
    answers, scores = zip(*ballots, strict=True)
    latency = random.Random(order).random
    full, _ = votes(answers, scores, early_stop=False)
    called, client = votes(answers, scores, early_stop=early, confidence=confidence, latency=lambda _: latency())
    assert called.answer == full.answer
    assert client.open == 0


def without_usage(result: Result):
    return result.to_json() | {"usage": None}


@settings(max_examples=200, deadline=None)
@given(elections, st.permutations(range(24)))
def test_counted_in_order_the_whole_result_is_the_same_whatever_comes_first(answers, order):
    one, _ = votes(answers)
    other, _ = votes(answers, latency=lambda i: 1 + order[i])
    assert without_usage(one) == without_usage(other)


class Bridging:
    """Answers are sums of letters, and equal if they share one: a+b is equal to a and to b, which are not to each other."""

    async def group(self, answers):
        letters = {i: set(answer.split("+")) for i, answer in enumerate(answers) if answer is not None}
        found = []
        for i, mine in letters.items():
            same = [group for group in found if any(mine & letters[j] for j in group)]
            found = [group for group in found if group not in same] + [sorted([*(j for g in same for j in g), i])]
        return [Group(answers[group[0]], tuple(group)) for group in sorted(found)]


@settings(max_examples=500, deadline=None)
@given(st.lists(st.sampled_from(["2a", "2a", "2a", "2b", "2c", "2b+2c", "2a+2b"]), min_size=1, max_size=16))
@example([*["2a"] * 4, *["2b", "2c"] * 2, "2b+2c"])
def test_an_answer_that_makes_two_others_equal_is_reckoned_with(answers):
    full, _ = votes(answers, early_stop=False, workers=Bridging())
    called, _ = votes(answers, workers=Bridging())
    assert called.answer in {answers[i] for i in winning_members(full)}


def winning_members(result):
    return next(group.members for group in result.groups if result.votes[0].example in group.members)


def test_samples_saved_are_counted():
    """Nine of sixteen equal answers settle the vote: seven requests are cancelled, or, in waves, never sent."""
    at_once, client = votes([4] * 16, latency=lambda i: 1 + i)
    assert (at_once.answer, at_once.stopped_by, len(at_once.paths)) == ("4", "decided", 9)
    assert (client.requests, client.cancelled, client.open) == (16, 7, 0)
    in_waves, client = votes([4] * 16, latency=lambda i: 1 + i, confidence=1.0)
    assert (in_waves.answer, in_waves.stopped_by, len(in_waves.paths)) == ("4", "decided", 9)
    assert (client.requests, client.cancelled) == (9, 0)
    assert len(at_once.tree) == 9


def test_a_straggler_does_not_hold_up_a_vote_in_any_order():
    called, client = votes([4] * 8, latency=lambda i: 10**6 if i == 0 else 1, early_stop="any_order")
    assert called.answer == "4"
    assert called.usage.seconds == pytest.approx(1)
    assert client.cancelled == 1


def test_a_tie_is_never_at_stake():
    """Two of four could still be caught up with, and a tie goes to the first seen, which may be another answer."""
    called, client = votes([1, 2, 2, 1], confidence=1.0)
    full, _ = votes([1, 2, 2, 1], early_stop=False)
    assert called.answer == full.answer == "1"
    assert client.requests == 4


def test_a_close_vote_is_looked_at_seldom(monkeypatch):
    from asearch.jury import Jury

    looks = 0
    verdict = Jury.verdict

    async def counted(self, paths, values, **options):
        nonlocal looks
        looks += 1
        return await verdict(self, paths, values, **options)

    monkeypatch.setattr(Jury, "verdict", counted)
    votes([i % 2 for i in range(256)])
    assert looks <= 10


def test_no_answer_decides_nothing():
    nobody, client = votes([None] * 6)
    assert (nobody.answer, nobody.stopped_by, client.cancelled) == (None, None, 0)


def test_answers_cut_off_vote_only_among_themselves():
    result, _ = votes([(1,), (1,), (1,), (1,), 2, None])
    assert (result.answer, result.votes[0].count) == ("2", 1)
    result, _ = votes([(1,), (1,), (2,), None])
    assert (result.answer, result.votes[0].count) == ("1", 2)


# -- adaptive consistency (arXiv 2305.11860) ---------------------------------------------------------------------------


def test_the_confidence_is_the_integral_of_the_beta_density():
    for first, second in [(1, 0), (3, 1), (7, 5), (20, 9)]:
        grid = 20_000
        density = [((i + 0.5) / grid) ** first * (1 - (i + 0.5) / grid) ** second for i in range(grid)]
        assert sure(first, second) == pytest.approx(math.fsum(density[grid // 2 :]) / math.fsum(density), abs=1e-6)
    assert Fraction(sure(4, 0)) == Fraction(31, 32)


def test_adaptive_consistency_asks_for_no_more_than_it_needs():
    result, client = votes([4] * 40, confidence=0.95)
    assert (result.answer, client.requests, client.cancelled) == ("4", 4, 0)
    result, client = votes([4, 4, 4, 5, *[4] * 36], confidence=0.95)
    first_enough = next(k for k in range(40) if sure(k, 1) >= 0.95)
    assert (result.answer, client.requests) == ("4", first_enough + 1)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 1), min_size=2, max_size=40), st.sampled_from([0.8, 0.95, 0.99]))
def test_waves_are_the_sequential_rule(answers, confidence):
    """Sending in waves asks for exactly as many samples as one at a time would."""
    result, client = votes(answers, confidence=confidence)
    needed = len(answers)
    for k in range(1, len(answers)):
        counts = sorted((answers[:k].count(0), answers[:k].count(1)), reverse=True)
        certain = counts[0] - counts[1] > len(answers) - k
        if sure(*counts) >= confidence or certain:
            needed = k
            break
    assert client.requests == needed
    assert (result.stopped_by == "decided") == (needed < len(answers))


@pytest.mark.parametrize(
    "strategy",
    [
        Majority(confidence=0.4),
        Majority(confidence=1.5),
        Majority(confidence="high"),
        Majority(confidence=0.9, early_stop=False),
        BestOfN(confidence=0.9),
        BestOfN(confidence=1.0, select="best"),
        Majority(early_stop="sometimes"),
    ],
)
def test_what_cannot_be_is_refused(strategy):
    with pytest.raises(UsageError):
        strategy.check()


def test_nothing_runs_on_after_the_call():
    async def main():
        client = ListedClient([boxed(4)] * 16, latency=lambda i: 1 + i)
        await solve(Majority(n=16), client, None, "What?")
        assert len(asyncio.all_tasks()) == 1
        return client

    assert run(main()).open == 0
