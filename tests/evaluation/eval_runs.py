"""What the tests of evaluations share: scripted servers, and records to compare."""

import json
from pathlib import Path

from asearch.evaluation import evaluate
from worlds import ScriptedClient, ScriptedPRM, World

WORLD = World(branching=4, depth=3, answers=4)
SPENT = ("policy_tokens", "policy_prompt_tokens", "scored")  # what does not depend on who was asked together with whom


def scripted(**options):
    return ScriptedClient(WORLD, **options), ScriptedPRM(WORLD, tokens=7)


def questions(count, answer="1"):
    return [(f"Problem {i}", answer) for i in range(count)]


async def small_run(out, *, client=None, prm=None, count=5, workers=None, **options):
    """Every kind of strategy over a few scripted problems."""
    default_client, default_prm = scripted()
    given = {"strategies": ["greedy", "best-of-n", "beam-search", "dvts"], "budgets": (2, 4, 8), "seeds": 2, **options}
    strategies = given.pop("strategies")
    return await evaluate(
        questions(count), client or default_client, prm or default_prm, strategies, out=out, workers=workers, **given
    )


def lines(run):
    """The records of a run as plain data, in the order of the log."""
    file = Path(run) / "records.jsonl" if Path(run).is_dir() else Path(run)
    return [json.loads(line) for line in file.read_bytes().splitlines()]


def key(line):
    return line["label"], line["n"], line["seed"], line["unique_id"]


def settled(run):
    """What two runs with the same seeds have in common: all but timing, and how requests were put together."""
    found = {}
    for line in lines(run):
        assert key(line) not in found, "a search is in the log twice"
        usage = {name: line["usage"][name] for name in SPENT}
        found[key(line)] = line | {"usage": usage}
    return found
