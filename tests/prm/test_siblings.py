"""Siblings are laid out from what they share: the same texts, and the same beginnings, as each by itself."""

import pytest

from asearch import CausalPRM, Path, Problem, Step
from asearch.families import FAMILIES
from asearch.prm.base import Reading, says_one_thing

CHAINS = {
    "none before": [],
    "two before": ["## Step 1: one\n\n", "## Step 2: two <|eot_id|>\n\n"],
    "blank ones among them": ["\n\n", "first\n\n", " \n\n", "second\n\n", "\n\n"],
}


def siblings(texts):
    parent = Path(Problem("What is $1 + 2$? <|eot_id|>"))
    for text in texts:
        parent = parent.grow(Step(text, "step", None, 1, 0.5), 0)
    return [parent.grow(Step(f"number {i}\n\n", "step", None, 1), i) for i in range(3)]


@pytest.mark.parametrize(
    "url", ["http://localhost:1", ["http://localhost:1", "http://localhost:2"]], ids=["one", "two"]
)
@pytest.mark.parametrize("texts", CHAINS.values(), ids=CHAINS)
@pytest.mark.parametrize("family", FAMILIES)
def test_laid_out_from_what_they_share(family, texts, url):
    prm, begun = CausalPRM(url, family=family), {}
    for path in siblings(texts):
        assert says_one_thing(path)
        shared, (alone,) = prm._next_prefix(path, begun), prm._prefixes(path, Reading(path))
        assert shared == alone
        assert getattr(shared, "beginnings", None) == getattr(alone, "beginnings", None)
    assert len(begun) == 1


@pytest.mark.parametrize(
    ("steps", "one"),
    [
        ([], False),
        ([("a", None)], True),
        ([("a", 0.5)], False),
        ([("a", 0.5), ("b", None)], True),
        ([("a", 0.5), (" \n", None)], False),
        ([("a", None), ("b", None)], False),
        ([("a", 0.5), ("\n", None), ("b", None)], False),
    ],
)
def test_what_wants_a_score(steps, one):
    path = Path(Problem("Which?"))
    for text, score in steps:
        path = path.grow(Step(text, "step", None, 1, score), 0)
    assert says_one_thing(path) == one
    assert [step.text for step in path.unscored] == [text for text, score in steps if score is None]
    if one:
        assert Reading(path).spread([0.25]) == [0.25]


@pytest.mark.parametrize(
    ("steps", "new", "given", "expected"),
    [
        ([("\n", None)], [], [], [0.0]),
        ([("a", 0.7), ("\n", None)], [], [], [0.7]),
        ([("a", 0.7), ("\n", 0.7), ("\n", None), ("b", None), ("\n", None)], [1], [0.2], [0.7, 0.2, 0.2]),
        ([("\n", None), ("a", None), ("b", None)], [0, 1], [0.4, 0.3], [0.0, 0.4, 0.3]),
    ],
)
def test_a_blank_step_has_the_score_of_what_stands_before_it(steps, new, given, expected):
    path = Path(Problem("Which?"))
    for text, score in steps:
        path = path.grow(Step(text, "step", None, 1, score), 0)
    reading = Reading(path)
    assert reading.new == new
    assert reading.spread(given) == expected
