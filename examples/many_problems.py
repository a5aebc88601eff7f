"""Many problems at once: they share the servers' batches, and results come in the order of the problems.

python examples/many_problems.py --problems 20 -n 8
"""

import asyncio

from servers import parser, search_servers

import asearch
from asearch.embedded import embedded_problems


async def main():
    arguments = parser(__doc__)
    arguments.add_argument("--problems", type=int, default=20)
    options = arguments.parse_args()
    pairs = await embedded_problems(options.problems, seed=1)  # any list of (question, answer) will do
    questions, answers = [question for question, _ in pairs], [answer for _, answer in pairs]
    right = tokens = 0
    async with search_servers(options) as servers, asearch.AnswerWorkers() as workers:
        results = asearch.solve_all(asearch.DVTS(n=options.n), servers.policy, servers.prm, questions, workers=workers)
        number = 0
        async for result in results:
            correct = await workers.grade(result.text, answers[number])
            right, tokens, number = right + correct, tokens + result.usage.tokens, number + 1
            print(f"{number:3}  {'right' if correct else 'wrong'}  {result.answer or '-':>5}  {questions[number - 1]}")
    print(f"\n{right} of {len(questions)} right, {tokens:,} tokens")


if __name__ == "__main__":
    asyncio.run(main())
