"""A search as a tool of the OpenAI Agents SDK: the agent talks, and leaves the calculation to asearch.

python examples/agents_sdk_tool.py                          # the agent's part is scripted, the search is real
OPENAI_API_KEY=... python examples/agents_sdk_tool.py --model gpt-4.1-mini
"""

import asyncio
import json

from agents import Agent, Model, ModelResponse, RunContextWrapper, Runner, Usage, function_tool, set_tracing_disabled
from openai.types.responses import ResponseFunctionToolCall, ResponseOutputMessage, ResponseOutputText
from servers import parser, search_servers

import asearch

QUESTION = r"Ann buys 4 bags of 5 apples, gets 3 more and eats 2: what is $3 + 4 \cdot 5 - 2$?"


@function_tool
async def solve_math(context: RunContextWrapper[dict], problem: str) -> str:
    """Solve a problem of arithmetic with certainty. Ask in one sentence, with the formula in LaTeX.

    Args:
        problem: the question, such as: What is $2 + 3$?
    """
    servers, n = context.context["servers"], context.context["n"]
    budget = asearch.Budget(seconds=30)  # a tool must come back: at the deadline with what there is
    result = await asearch.dvts(servers.policy, servers.prm, problem, n=n, budget=budget)
    return json.dumps({"answer": result.answer, "confidence": result.score})


class ScriptedModel(Model):
    """What a model would do here, without one: call the tool, then say what it found."""

    async def get_response(self, system_instructions, input, *_, **__):  # noqa: A002, ARG002 - the SDK's names
        items = input
        if isinstance(items, str) or items[-1].get("type") != "function_call_output":
            arguments = json.dumps({"problem": r"What is $3 + 4 \cdot 5 - 2$?"})
            said = ResponseFunctionToolCall(
                type="function_call", name="solve_math", arguments=arguments, call_id="call-1", id="item-1"
            )
        else:
            found = json.loads(items[-1]["output"])
            text = ResponseOutputText(type="output_text", text=f"Ann has {found['answer']} apples.", annotations=[])
            said = ResponseOutputMessage(
                id="item-2", type="message", role="assistant", status="completed", content=[text]
            )
        return ModelResponse(output=[said], usage=Usage(), response_id=None)

    async def stream_response(self, *_, **__):
        raise NotImplementedError("this script is not streamed")
        yield


async def main():
    arguments = parser(__doc__)
    arguments.add_argument("--model", help="a model of the OpenAI API to be the agent; none: a script")
    options = arguments.parse_args()
    if options.model is None:
        set_tracing_disabled(disabled=True)
    agent = Agent(
        name="helper",
        instructions="Answer in a sentence. Calculate with the tool, never by yourself.",
        model=options.model or ScriptedModel(),
        tools=[solve_math],
    )
    async with search_servers(options) as servers:
        run = await Runner.run(agent, QUESTION, context={"servers": servers, "n": options.n})
    for item in run.new_items:
        print(f"{item.type}: {getattr(item, 'output', '')}".rstrip(": "))
    print(run.final_output)


if __name__ == "__main__":
    asyncio.run(main())
