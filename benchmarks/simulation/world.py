"""What the models say, without models: steps, their lengths and scores, drawn by hash from the path and the seed.

Lengths are assumptions in the shape of what small instruction-tuned models write on MATH, for which no published table was
found: a solution has 1 + Poisson(m) steps with m between 3 and 12 by the problem (8.5 steps on average); a step has a
log-normal number of tokens with median 45 and mean 54. In every 300th step a path loses its thread and goes on until its
2048 tokens are spent, as small models do: 2 to 3 % of the solutions. Scores are uniform and independent, and answers
one of eight numbers; no length depends on a score.

A step is written as `<name:tokens>`, and as token ids [name, tokens, 0, 0, ...], so that servers can read a prompt at the
price of its steps. The name is a hash of all that stands before, too.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from simulation.cache import Piece

MASK = 2**64 - 1
NAMES = 2**52  # what JSON numbers carry exactly
SYSTEM = 1  # the name of the system prompt
SYSTEM_TOKENS = 190  # of the article's prompt with Llama 3's chat template
MEDIAN, SPREAD, SHORTEST, LONGEST = 45.0, 0.6, 4, 400
FEWEST, MOST = 3, 12  # the Poisson mean of a problem's steps after the first
LOST = 1 / 300
ANSWERS = 8
STEP = re.compile(r"<(\d+):(\d+)>")
_LEVELS = 1024


def mix(a: int, b: int) -> int:
    """A hash of two numbers: the finaliser of splitmix64 over both."""
    z = (a * 0x9E3779B97F4A7C15 + b * 0xC2B2AE3D27D4EB4F + 0x165667B19E3779F9) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def unit(number: int) -> float:
    """A number in (0, 1) from a hash."""
    return (number % NAMES + 0.5) / NAMES


def _lengths() -> tuple[int, ...]:
    quantile = NormalDist(math.log(MEDIAN), SPREAD).inv_cdf
    drawn = (math.exp(quantile((i + 0.5) / _LEVELS)) for i in range(_LEVELS))
    return tuple(min(LONGEST, max(SHORTEST, round(tokens))) for tokens in drawn)


def _hazards(mean: float) -> tuple[float, ...]:
    """The chance that step k (from 0) is the last, given that those before were not, of 1 + Poisson(mean) steps."""
    chances = [math.exp(-mean + k * math.log(mean) - math.lgamma(k + 1)) for k in range(60)]
    return tuple(chances[k] / max(sum(chances[k:]), 1e-300) for k in range(50))


LENGTHS = _lengths()
HAZARDS = {mean: _hazards(mean) for mean in range(FEWEST, MOST + 1)}


@dataclass(frozen=True, slots=True)
class Said:
    """A generated step: its name, its tokens, and whether it is the last ("eos"), was cut off ("length") or neither."""

    name: int
    tokens: int
    finish: str
    text: str


def question(number: int) -> str:
    """Problem `number` as text."""
    name = mix(7, number) % NAMES
    return f"Problem {number} <{name}:{40 + 2 * LENGTHS[name % _LEVELS] // 3}>"


def next_step(problem: int, path: Sequence[Piece], seed: int, room: int) -> Said:
    """What the policy writes after a path.

    Args:
        problem: the name of the problem.
        path: system prompt, problem, and the steps so far.
        seed: of the sample.
        room: tokens that it may have.
    """
    drawn = mix(path[-1][0], seed)
    number = len(path) - 2  # steps before this one
    lost = bool(path[-1][0] & 1 and number) or unit(mix(drawn, 1)) < LOST
    tokens = LENGTHS[mix(drawn, 2) % _LEVELS]
    mean = FEWEST + mix(problem, 3) % (MOST - FEWEST + 1)
    last = not lost and unit(mix(drawn, 4)) < HAZARDS[mean][min(number, 49)]
    name = (drawn % NAMES) & ~1 | lost  # a path that has lost its thread is known by its odd name
    if tokens > room:
        return Said(name, room, "length", f"<{name}:{room}>")
    if last:
        answer = mix(problem, mix(drawn, 5) % ANSWERS) % 100
        return Said(name, tokens, "eos", f"<{name}:{tokens}> The answer is $\\boxed{{{answer}}}$.")
    return Said(name, tokens, "step", f"## Step {number + 1}: <{name}:{tokens}>\n\n")


def score(name: int) -> float:
    """The verifier's verdict on a step."""
    return unit(mix(name, 11))


def as_ids(said: Sequence[Said]) -> list[int]:
    """Steps as token ids."""
    ids: list[int] = []
    for step in said:
        ids += [step.name, step.tokens, *[0] * (step.tokens - 2)][: step.tokens]
    return ids


def read_ids(ids: Sequence[int]) -> list[Piece]:
    """Token ids as pieces."""
    pieces, at = [], 0
    while at < len(ids):
        name, at = ids[at], at + ids[at + 1]
        pieces.append((name, at))
    return pieces


def read_text(text: str, first: int, each: int) -> list[Piece]:
    """A text as pieces, with `first` tokens before the first and `each` after every one (of a chat template)."""
    pieces, at = [], first
    for name, tokens in STEP.findall(text):
        at += int(tokens) + each
        pieces.append((int(name), at))
    return pieces
