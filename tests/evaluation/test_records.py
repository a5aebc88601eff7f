"""A record holds the whole search: votes and costs are recomputed from it, here by code that shares nothing with ours."""

import itertools
import json
import math
from collections import defaultdict
from dataclasses import replace
from fractions import Fraction

import pytest
from eval_runs import WORLD, lines, scripted, small_run

from asearch import DVTS, BeamSearch, BestOfN, UsageError, solve
from asearch.evaluation import BadRecord, Question, Record, outcomes, pass_at_k, vote
from asearch.evaluation.records import record_of
from asearch.evaluation.votes import cost_at, parts
from worlds import run

QUESTION = Question("7", "What?", "1", solution="by hand", subject="Algebra", level=3)


def searched(strategy, seed=0, **options):
    return run(solve(strategy, *scripted(**options), "What?", seed=seed))


def recorded(result, seed=0, *, tree=True):
    correct = [answer == "1" for answer in result.answers]
    return record_of(result, QUESTION, label="x", model="m", seed=seed, correct=correct, prompt_tokens=9, tree=tree)


STRATEGIES = [BestOfN(n=16, early_stop=False), DVTS(n=16, width=4), BeamSearch(n=8, width=2)]


@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda strategy: strategy.name)
def test_a_record_survives_its_line(strategy):
    record = recorded(searched(strategy))
    line = record.to_line()
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    again = Record.from_line(line)
    assert again.to_line() == line
    assert again.key == ("x", strategy.n, 0, "7")
    assert again.usage == record.usage


@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda strategy: strategy.name)
def test_a_record_says_what_the_result_said(strategy):
    result = searched(strategy)
    record = recorded(result)
    assert list(record.completions) == [path.text for path in result.paths]
    assert [record.step_texts(i) for i in range(len(result.paths))] == [[s.text for s in p.chain] for p in result.paths]
    assert record.pred == result.text
    assert record.answers[record.winner] == result.answer
    assert record.explored_tokens == result.usage.policy_tokens == sum(record.branch_tokens)
    assert record.explored_steps == len(result.tree)
    assert [(tuple(place), fate) for place, fate, *_ in record.tree] == [(n.path.id, n.fate) for n in result.tree.nodes]
    assert (record.level, record.subject, record.solution) == (3, "Algebra", "by hand")


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("strategy", STRATEGIES[:2], ids=lambda strategy: strategy.name)
def test_smaller_budgets_are_what_the_result_says_they_are(strategy, seed):
    result = searched(strategy, seed)
    record = recorded(result, seed, tree=False)
    for k in parts(record, range(1, 17)):
        part = result.at(k) if k < strategy.n else result
        for select in ("majority", "weighted", "best"):
            winner = vote(record, k, select)
            assert record.answers[winner] == part.voted(select).answer
            assert record.completions[winner] == part.voted(select).text
        assert cost_at(record, k).policy_tokens == sum(node.path.step.tokens for node in part.tree.nodes)
        alone = searched(replace(strategy, n=k), seed)  # the smaller run itself
        assert alone.answer == record.answers[vote(record, k)]
        assert alone.usage.policy_tokens == cost_at(record, k).policy_tokens


def by_hand(line, k, how):
    """Majority, weighted and naive accuracy from a line of the log, as Beeching et al. define them."""
    members = [i for i, place in enumerate(line["ids"]) if place[0] < k] if k < line["n"] else range(len(line["ids"]))
    ended = [i for i in members if line["finishes"][i] == "eos" and line["answers"][i] is not None]
    voters = ended or [i for i in members if line["answers"][i] is not None]
    if not voters:
        return False
    group = {i: number for number, group in enumerate(line["groups"]) for i in group}
    if how == "best":
        return line["correct"][max(voters, key=lambda i: (line["scores"][i][-1], -i))]
    weight = defaultdict(Fraction)
    for i in voters:
        weight[group[i]] += Fraction(line["scores"][i][-1]) if how == "weighted" else 1
    firsts = {number: min(i for i in voters if group[i] == number) for number in weight}
    winner = max(weight, key=lambda number: (float(weight[number]), -firsts[number]))
    return line["correct"][firsts[winner]]


async def test_votes_and_pass_at_k_by_independent_code(tmp_path, workers):
    await small_run(tmp_path / "run", count=12, workers=workers, seeds=3)
    ways = {"best-of-N, weighted": "weighted", "best-of-N, best": "best", "majority": "majority"}
    checked = 0
    for line in lines(tmp_path / "run"):
        record = Record.from_line(json.dumps(line))
        for outcome in outcomes(record, [2, 4, 8]):
            how = ways.get(outcome.label, "majority" if outcome.label == "greedy" else "weighted")
            assert outcome.right == by_hand(line, outcome.n, how), (outcome, line)
            checked += outcome.n < line["n"]
        n, right = len(line["correct"]), sum(line["correct"])
        for k in range(1, n + 1) if n <= 8 else ():
            draws = list(itertools.combinations(line["correct"], k))
            assert pass_at_k(n, right, k) == pytest.approx(sum(map(any, draws)) / len(draws))
    assert checked > 100


async def test_the_log_has_the_columns_of_the_published_datasets(tmp_path, workers):
    """As scripts for those datasets read them: types as in their features."""
    await small_run(tmp_path / "run", workers=workers)
    for line in lines(tmp_path / "run"):
        count = len(line["completions"])
        assert all(isinstance(text, str) for text in line["completions"])
        assert len(line["scores"]) == len(line["completion_tokens"]) == len(line["agg_scores"]) == count
        if line["label"] != "greedy":
            assert all(isinstance(score, float) for scores in line["scores"] for score in scores)
            assert [scores[-1] for scores in line["scores"]] == line["agg_scores"]
        assert line["pred"] in line["completions"]
        assert {"problem", "answer", "unique_id"} <= line.keys()


@pytest.mark.parametrize("wrong", ["", "[]", "null", "{", '{"label": "x"}', '{"usage": 3}'])
def test_what_is_no_record_is_refused(wrong):
    with pytest.raises(BadRecord, match="no record"):
        Record.from_line(wrong)


def test_columns_of_a_later_version_are_left_out():
    data = json.loads(recorded(searched(DVTS(n=4))).to_line())
    data["usage"]["new"] = data["new"] = 1
    assert Record.from_line(json.dumps(data)).label == "x"


def test_competitors_have_no_parts():
    record = recorded(searched(BeamSearch(n=8, width=2)))
    assert parts(record, [1, 2, 4]) == [8]
    with pytest.raises(UsageError, match="no run of n=4"):
        vote(record, 4)


def test_a_vote_that_ended_early_stands_for_itself_only():
    result = searched(BestOfN(n=16, confidence=1.0))
    assert result.stopped_by == "decided"
    record = recorded(result)
    assert parts(record, [1, 2, 4, 8]) == [16]
    assert [outcome.label for outcome in outcomes(record, [4])] == ["x"]


def test_pass_at_k_at_its_ends():
    assert pass_at_k(5, 0, 3) == 0
    assert pass_at_k(5, 5, 1) == 1
    assert math.isclose(pass_at_k(10, 3, 1), 0.3)
    with pytest.raises(ValueError, match="no 6 of 5"):
        pass_at_k(5, 1, 6)


def test_the_world_of_these_tests_has_right_and_wrong_answers():
    answers = {WORLD.step(steps[:-1], 0)[0][-4] for steps in WORLD.solutions()}
    assert len(answers) > 1
