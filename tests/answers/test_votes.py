"""Votes and pass@k, against brute force."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asearch.answers import group, pass_at_k
from asearch.scoring import Vote, best_vote, majority_vote, reduce_scores, weighted_vote

CANDIDATES = st.lists(
    st.tuples(st.sampled_from(["1", "2", "x=2", "0.5", r"\frac12", None, ""]), st.floats(0, 1)), max_size=9
)
VALUE = {"1": 1.0, "2": 2.0, "x=2": 2.0, "0.5": 0.5, r"\frac12": 0.5}


def brute_force(candidates, weigh):
    """Weight per value by plain loops; ties to the value that was seen first."""
    order, table = [], {}
    for answer, score in candidates:
        if answer:
            value = VALUE[answer]
            if value not in table:
                order.append(value)
            table.setdefault(value, []).append(score)
    return sorted(((value, weigh(table[value])) for value in order), key=lambda item: -item[1])


@given(CANDIDATES)
def test_majority(candidates):
    votes = majority_vote(group([a for a, _ in candidates]))
    assert [(VALUE[v.answer], v.weight) for v in votes] == brute_force(candidates, len)
    assert all(v.count == v.weight and candidates[v.example][0] == v.answer for v in votes)


@given(CANDIDATES)
def test_weighted(candidates):
    scores = [score for _, score in candidates]
    votes = weighted_vote(group([a for a, _ in candidates]), scores)
    assert [(VALUE[v.answer], v.weight) for v in votes] == brute_force(candidates, math.fsum)
    assert all(VALUE[candidates[v.example][0]] == VALUE[v.answer] for v in votes)


@given(CANDIDATES)
def test_best(candidates):
    scores = [score for _, score in candidates]
    votes = best_vote(group([a for a, _ in candidates]), scores)
    voting = [i for i, (answer, _) in enumerate(candidates) if answer]
    if not voting:
        assert votes == ()
        return
    winner = max(voting, key=lambda i: (scores[i], -i))
    assert votes[0].example == winner
    assert VALUE[votes[0].answer] == VALUE[candidates[winner][0]]
    assert sorted(v.weight for v in votes) == sorted(weight for _, weight in brute_force(candidates, max))


def test_the_table():
    groups = group(["7", "8", "8", "7", "9", None])
    scores = [0.2, 0.9, 0.1, 0.7, 0.95, 1.0]
    assert majority_vote(groups) == (Vote("7", 2.0, 2, 0), Vote("8", 2.0, 2, 1), Vote("9", 1.0, 1, 4))
    assert [(v.answer, v.count, v.example) for v in weighted_vote(groups, scores)] == [
        ("8", 2, 1),
        ("9", 1, 4),
        ("7", 2, 3),
    ]
    assert best_vote(groups, scores) == (Vote("9", 0.95, 1, 4), Vote("8", 0.9, 2, 1), Vote("7", 0.7, 2, 3))


def test_a_blank_answer_never_wins():
    assert majority_vote(group(["", "", "", None, None, "5"]))[0].answer == "5"


def test_a_score_that_is_no_number_never_wins():
    groups = group(["7", "8"])
    assert best_vote(groups, [math.nan, 0.1])[0].answer == "8"
    assert weighted_vote(groups, [math.nan, 0.1])[0].answer == "8"


def test_reductions():
    scores = [0.5, 0.25, 1.0]
    assert reduce_scores(scores) == reduce_scores(scores, "last") == 1.0
    assert reduce_scores(scores, "min") == 0.25
    assert reduce_scores(scores, "prod") == 0.125
    assert reduce_scores(scores, "mean") == pytest.approx(1.75 / 3)


def test_reductions_of_nothing_and_by_unknown_names():
    with pytest.raises(ValueError, match="no scored step"):
        reduce_scores([])
    with pytest.raises(ValueError, match="known are last, min, prod, mean"):
        reduce_scores([1.0], "median")


def test_pass_at_k_is_the_mean_over_all_subsets():
    for n in range(1, 13):
        for c in range(n + 1):
            for k in range(1, n + 1):
                right = sum(min(chosen) < c for chosen in itertools.combinations(range(n), k))
                assert pass_at_k(n, c, k) == pytest.approx(right / math.comb(n, k), abs=1e-15)


@pytest.mark.parametrize(("n", "c", "k"), [(0, 0, 1), (4, 5, 1), (4, -1, 1), (4, 2, 0), (4, 2, 5)])
def test_pass_at_k_refuses(n, c, k):
    with pytest.raises(ValueError, match="pass_at_k needs"):
        pass_at_k(n, c, k)
