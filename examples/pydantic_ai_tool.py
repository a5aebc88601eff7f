"""A search as a tool of pydantic-ai: dependencies carry the servers, the agent asks, asearch answers.

python examples/pydantic_ai_tool.py                         # the agent's part is scripted, the search is real
OPENAI_API_KEY=... python examples/pydantic_ai_tool.py --model openai:gpt-4.1-mini
"""

import asyncio
from dataclasses import dataclass

from pydantic import BaseModel
from pydantic_ai import Agent, RunContext
from pydantic_ai.messages import ModelResponse, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models.function import FunctionModel
from servers import parser, search_servers

import asearch
from asearch.embedded import EmbeddedServers

QUESTION = r"Ann buys 4 bags of 5 apples, gets 3 more and eats 2: what is $3 + 4 \cdot 5 - 2$?"


@dataclass
class Searching:
    """What the tool needs: where the servers are, and how much to search."""

    servers: EmbeddedServers
    n: int


class Found(BaseModel):
    """What the tool tells the agent."""

    answer: str | None
    confidence: float | None
    solution: str


agent = Agent(deps_type=Searching, instructions="Answer in a sentence. Calculate with the tool, never by yourself.")


@agent.tool
async def solve_math(context: RunContext[Searching], problem: str) -> Found:
    """Solve a problem of arithmetic; ask in one sentence, with the formula in LaTeX: What is $2 + 3$?"""
    servers, n = context.deps.servers, context.deps.n
    budget = asearch.Budget(seconds=30)  # a tool must come back: at the deadline with what there is
    result = await asearch.dvts(servers.policy, servers.prm, problem, n=n, budget=budget)
    return Found(answer=result.answer, confidence=result.score, solution=result.text)


def script(messages, _info):
    """What a model would do here, without one: call the tool, then say what it found."""
    last = messages[-1].parts[-1]
    if isinstance(last, ToolReturnPart):
        return ModelResponse(parts=[TextPart(f"Ann has {last.content.answer} apples.")])
    return ModelResponse(parts=[ToolCallPart("solve_math", {"problem": r"What is $3 + 4 \cdot 5 - 2$?"})])


async def main():
    arguments = parser(__doc__)
    arguments.add_argument("--model", help="a model to be the agent, such as openai:gpt-4.1-mini; none: a script")
    options = arguments.parse_args()
    async with search_servers(options) as servers:
        model = options.model or FunctionModel(script)
        run = await agent.run(QUESTION, model=model, deps=Searching(servers, options.n))
    for message in run.all_messages():
        print(*(f"{part.part_kind}: {getattr(part, 'content', part)}" for part in message.parts), sep="\n")
    print(run.output)


if __name__ == "__main__":
    asyncio.run(main())
