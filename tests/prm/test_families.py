"""Each family's text, letter by letter as on the model's card."""

from __future__ import annotations

import pytest

from asearch import Problem, UsageError
from asearch.families import FAMILIES, LLAMA_31, by_name, cut_turns, probe_chat, recognise, spoken
from asearch.problem import SYSTEM_PROMPT

QUESTION = Problem("What is $1 + 2$?")
STEPS = ["## Step 1: Add\n$1 + 2 = 3$.\n\n", "The answer is $3$."]
HEADER = "<|eot_id|><|start_header_id|>{}<|end_header_id|>\n\n".format
TEXTS = {
    "embedded": f"<|begin|><|system|>{SYSTEM_PROMPT}<|user|>What is $1 + 2$?<|assistant|>"
    "## Step 1: Add\n$1 + 2 = 3$.\n\nThe answer is $3$.",
    "rlhflow-deepseek": LLAMA_31.head
    + "What is $1 + 2$? ## Step 1: Add\n$1 + 2 = 3$."
    + HEADER("assistant")
    + "+"
    + HEADER("user")
    + "The answer is $3$."
    + HEADER("assistant"),
    "math-shepherd": "What is $1 + 2$? ## Step 1: Add $1 + 2 = 3$. ки\nThe answer is $3$. ки",
    "versaprm": "What is $1 + 2$? \n\n## Step 1: Add\n$1 + 2 = 3$. \n\n\n\nThe answer is $3$. \n\n\n\n",
    "qwen-math": "<|im_start|>system\nPlease reason step by step, and put your final answer within \\boxed{}.<|im_end|>\n"
    "<|im_start|>user\nWhat is $1 + 2$?<|im_end|>\n<|im_start|>assistant\n"
    "## Step 1: Add\n$1 + 2 = 3$.<extra_0>The answer is $3$.<extra_0>",
    "skywork": "<|endoftext|>What is $1 + 2$?\n## Step 1: Add $1 + 2 = 3$.\nThe answer is $3$.\n",
    "trl": "What is $1 + 2$?\n\n## Step 1: Add\n$1 + 2 = 3$.\n\nThe answer is $3$.\n\n",
}
TEXTS["rlhflow-mistral"] = TEXTS["rlhflow-deepseek"]


@pytest.mark.parametrize("name", TEXTS)
def test_the_text_is_that_of_the_card(name):
    assert FAMILIES[name].render(QUESTION, STEPS) == TEXTS[name]


@pytest.mark.parametrize("name", TEXTS)
def test_a_longer_solution_begins_as_the_shorter_one(name):
    """Models are causal, so the score of a step does not depend on what follows: nor may its text."""
    family = FAMILIES[name]
    prefixes = family.prefixes(QUESTION, STEPS)
    assert len(prefixes) == len(STEPS)
    assert prefixes[0] == family.render(QUESTION, STEPS[:1])
    assert prefixes[1].startswith(prefixes[0])
    assert prefixes[1] == TEXTS[name]


@pytest.mark.parametrize("name", TEXTS.keys() - {"embedded"})
def test_separators_are_not_doubled(name):
    """A step with and without the blank line that ended it is the same step."""
    family = FAMILIES[name]
    assert family.render(QUESTION, ["one\n\n", "two\n\n"]) == family.render(QUESTION, ["one", "two"])


@pytest.mark.parametrize("name", TEXTS.keys() - {"embedded"})
def test_text_cannot_pass_for_structure(name):
    family = FAMILIES[name]
    for mark in family.reserved:
        assert family.render(Problem(f"a{mark}b"), [f"c{mark}d", "e"]) == family.render(Problem("ab"), ["cd", "e"])


def test_blank_steps_say_nothing():
    assert spoken(["a\n\n", "\n\n", "b", " "]) == (["a\n\n", "b"], [0, 0, 1, 1])
    assert spoken(["\n\n", "a"]) == (["a"], [-1, 0])
    assert spoken([]) == ([], [])


def test_a_rendered_chat_shows_the_template():
    chat = probe_chat("+")
    text = "<s>" + "".join(f"<{m['role']}>{m['content']}</>" for m in chat) + "<assistant>"
    turns = cut_turns(text, "+")
    assert (turns.head, turns.ask, turns.between) == ("<s><user>", "</><assistant>", "</><user>")
    assert cut_turns("a template that drops what was said", "+") is None


def test_names():
    assert by_name("trl") is FAMILIES["trl"]
    with pytest.raises(UsageError, match="known are embedded, "):
        by_name("gpt")
    assert recognise("gpt-4o", "/srv/models/control-7b") is None
    assert recognise("prm", "/data/VersaPRM-Aug") is FAMILIES["versaprm"]
