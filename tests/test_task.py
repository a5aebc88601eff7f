"""The task of the embedded models: its generator, its splits, and its checker."""

from __future__ import annotations

import random
import re
import subprocess
import sys

import pytest

from asearch_backends.embedded import task

KNOWN = [(r"What is $1 + 12 + (9 \cdot 5 + 7)$?", "65"), (r"What is $(11 - (13 + 9)) \cdot 6$?", "-66")]


def python_value(shown):
    """An independent reading of the canonical text, by Python's own precedence rules."""
    source = shown.replace(r"\cdot", "*")
    assert re.fullmatch(r"[-+*() \d]+", source)
    return eval(source)


@pytest.fixture(scope="module")
def problems():
    return task.generate(3, 200, "train")


def test_the_same_arguments_give_the_same_problems(problems):
    assert task.generate(3, 200, "train") == problems
    assert task.generate(4, 200, "train") != problems
    assert task.generate(3, 50, "train") == problems[:50]


def test_known_problem_so_that_shipped_weights_and_generator_stay_together():
    assert [(each.text, each.answer) for each in task.generate(0, 2, "test")] == KNOWN


def test_text_and_answer_agree_with_python(problems):
    for problem in problems:
        shown = re.fullmatch(r"What is \$(.*)\$\?", problem.text).group(1)
        assert python_value(shown) == int(problem.answer)


def test_every_step_keeps_the_value_and_the_bounds(problems):
    for problem in problems:
        steps = list(task.reductions(problem.expression))
        assert task.MIN_OPERATIONS <= len(steps) <= task.MAX_OPERATIONS
        for step in steps:
            assert python_value(task.render(step.remaining)) == int(problem.answer)
            assert max(map(abs, (step.left, step.right, step.value))) <= task.MAX_VALUE


def test_splits_never_share_an_expression():
    shown = {split: {each.text for each in task.generate(0, 300, split)} for split in ("train", "validation", "test")}
    assert not shown["train"] & shown["test"]
    assert not shown["train"] & shown["validation"]
    assert not shown["test"] & shown["validation"]


def test_problems_of_one_call_differ():
    assert len({each.text for each in task.generate(0, 500, "test")}) == 500


def test_free_phrasings_keep_the_expression():
    for problem in task.generate(5, 200, varied=1.0):
        bare = re.sub(r"[^-+*()\d]", "", problem.text.replace(r"\times", "*").replace(r"\cdot", "*"))
        assert python_value(bare) == int(problem.answer)


@pytest.mark.parametrize(
    ("tree", "shown"),
    [
        (task.Operation("-", 12, task.Operation("*", 3, task.Operation("+", 4, 5))), r"12 - 3 \cdot (4 + 5)"),
        (task.Operation("-", 1, task.Operation("-", 2, 3)), "1 - (2 - 3)"),
        (task.Operation("-", task.Operation("-", 1, 2), 3), "1 - 2 - 3"),
        (task.Operation("+", -4, -5), "-4 + (-5)"),
        (task.Operation("*", 2, task.Operation("+", -4, 5)), r"2 \cdot (-4 + 5)"),
        (task.Operation("+", 1, task.Operation("*", -4, 5)), r"1 + (-4) \cdot 5"),
        (-7, "-7"),
    ],
)
def test_rendering(tree, shown):
    assert task.render(tree) == shown
    assert python_value(shown) == task.evaluate(tree)


def test_the_solution_is_in_the_format_of_the_article():
    tree = task.Operation("+", task.Operation("*", 3, 5), 7)
    problem = task.Problem("", "22", tree)
    assert task.solution(problem) == (
        "## Step 1: Multiply\n$3 \\cdot 5 = 15$, which leaves $15 + 7$.\n\n"
        "## Step 2: Add\n$15 + 7 = 22$.\n\n"
        "Therefore, the final answer is: $\\boxed{22}$. I hope it is correct."
    )


def test_checker_accepts_the_solution_and_every_prefix_of_steps(problems):
    for problem in problems[:50]:
        steps = task.split_steps(task.solution(problem))
        assert steps == task.solution_steps(problem.expression)
        assert task.is_right(problem, "".join(steps))
        for count in range(len(steps)):
            assert task.first_wrong_step(problem, "".join(steps[:count])) is None


def test_checker_finds_the_step_with_a_changed_character(problems):
    rng = random.Random(0)
    for problem in problems:
        steps = task.solution_steps(problem.expression)
        spoiled = rng.randrange(len(steps))
        place = rng.choice([place for place, character in enumerate(steps[spoiled]) if character.isdigit()])
        digit = rng.choice("0123456789".replace(steps[spoiled][place], ""))
        steps[spoiled] = steps[spoiled][:place] + digit + steps[spoiled][place + 1 :]
        assert task.first_wrong_step(problem, "".join(steps)) == spoiled
        assert not task.is_right(problem, "".join(steps))


def test_text_after_the_end_is_wrong(problems):
    text = task.solution(problems[0])
    assert task.first_wrong_step(problems[0], text + task.BLANK_LINE + "More.") is not None


@pytest.mark.parametrize(("arguments", "message"), [((0, -1), "negative"), ((0, 1, "dev"), "unknown split 'dev'")])
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        task.generate(*arguments)


def test_needs_nothing_but_python():
    code = "import sys; before = set(sys.modules); from asearch_backends.embedded import task;"
    code += "assert not {'numpy', 'torch', 'tokenizers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
