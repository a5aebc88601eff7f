r"""A verifier that is a Python function: it recalculates each step, and needs no model.

A step of these solutions states one operation, `$4 \cdot 5 = 20$`. The function reads it with a regular expression (what a
model wrote is never evaluated) and says how likely the solution is right so far.

    python examples/function_verifier.py
"""

import asyncio
import operator
import re

from servers import parser, search_servers

import asearch

QUESTION = r"What is $(12 - 3 \cdot 5) \cdot 4 + 7 - (2 - 9)$?"
NUMBER = r"\(?(-?\d{1,6})\)?"
STEP = re.compile(rf"\${NUMBER} (\+|-|\\cdot) {NUMBER} = (-?\d{{1,6}})\$")
OPERATIONS = {"+": operator.add, "-": operator.sub, r"\cdot": operator.mul}


def is_right(step):
    """Whether the arithmetic of a step is right; one that states none is as good as what stands before it."""
    found = STEP.search(step)
    if found is None:
        return True
    left, sign, right, stated = found.groups()
    return OPERATIONS[sign](int(left), int(right)) == int(stated)


async def verify(_question, steps):
    """A score from 0 to 1 for each step: how likely the solution is right up to there."""
    scores, right = [], True
    for step in steps:
        right = right and is_right(step)
        scores.append(0.95 if right else 0.05)
    return scores


async def main():
    options = parser(__doc__).parse_args()
    async with search_servers(options) as servers:
        alone = await asearch.greedy(servers.policy, None, QUESTION)
        searched = await asearch.beam_search(servers.policy, verify, QUESTION, n=options.n)
    print(searched.text)
    print(f"\nwithout a verifier: {alone.answer}\nwith the function:  {searched.answer}  (score {searched.score:.2f})")


if __name__ == "__main__":
    asyncio.run(main())
