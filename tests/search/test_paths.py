"""Paths are values: they share their beginnings, and cutting a text into steps loses nothing."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asearch import Path, Problem, Step
from asearch.path import split_steps
from asearch.search import descend

ROOT = Path(Problem("What is 1 + 1?"))


def grown(*texts, finish="eos"):
    path = ROOT
    for i, text in enumerate(texts):
        path = path.grow(Step(text, "step" if i < len(texts) - 1 else finish, (i,), 1), i)
    return path


def test_growing_leaves_the_parent_as_it_was():
    parent = grown("a\n\n", finish="step")
    child = parent.grow(Step("b", "eos", (7,), 1), 2)
    assert child.parent is parent
    assert (parent.text, child.text) == ("a\n\n", "a\n\nb")
    assert (child.name, child.depth, child.token_ids, child.tokens) == ("0.2", 2, (0, 7), 2)
    assert child.complete
    assert not parent.finished


def test_a_path_that_ran_out_of_room_is_finished_and_not_complete():
    path = grown("a", finish="length")
    assert path.finished
    assert not path.complete


def test_scores_go_to_the_last_steps_and_leave_the_earlier_ones_shared():
    path = grown("a\n\n", finish="step").with_scores([0.5])
    child = path.grow(Step("b", "eos"), 0)
    scored = child.with_scores([0.25])
    assert scored.scores == (0.5, 0.25)
    assert scored.parent is path
    assert child.scores == (0.5,)
    assert child.with_scores([]) is child
    with pytest.raises(ValueError, match="too many"):
        child.with_scores([1, 1, 1])


def test_one_step_without_ids_and_the_path_has_none():
    assert ROOT.grow(Step("a", "step"), 0).token_ids is None


def test_thousands_of_steps_are_no_recursion():
    text = "\n\n".join(f"line {i}" for i in range(5000))
    path = descend(ROOT, Step(text, "eos", None, 5000), 3, "\n\n")
    assert path.depth == 5000
    assert path.text == text
    scored = path.with_scores([0.5] * 5000)
    assert scored.scores == (0.5,) * 5000
    assert scored.tokens == 5000


@given(st.text(alphabet="ab \n", max_size=60))
def test_pieces_joined_are_the_text_and_each_says_something(text):
    pieces = split_steps(text)
    assert "".join(pieces) == text
    if text.strip():
        assert all(piece.strip() for piece in pieces)
    assert all("\n\n" in piece for piece in pieces[:-1])


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("", []),
        ("a", ["a"]),
        ("a\n\n", ["a\n\n"]),
        ("a\n\nb", ["a\n\n", "b"]),
        ("\n\na\n\n\n\nb\n\n", ["\n\na\n\n\n\n", "b\n\n"]),
        ("a\n\n\nb", ["a\n\n", "\nb"]),
        ("\n\n", ["\n\n"]),
    ],
)
def test_blank_pieces_belong_to_the_step_before(text, pieces):
    assert split_steps(text) == pieces


def test_a_hostile_text_is_cut_in_linear_work():
    began = time.process_time()
    assert len(split_steps("\n\n" * 200_000 + "a")) == 1
    assert time.process_time() - began < 20  # quadratic work would take hours


def test_whole_solutions_share_out_their_tokens():
    path = descend(ROOT, Step("aaaa\n\nbb\n\nc", "eos", (1, 2, 3, 4), 4), 2, "\n\n")
    assert path.id == (2, 0, 0)
    assert [step.finish for step in path.chain] == ["step", "step", "eos"]
    assert path.tokens == 4
