"""pydantic-ai pointed at the proxy: a run, a stream, a second turn, and a refusal; prints what came as JSON."""

import asyncio
import json
import sys

from pydantic_ai import Agent
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

QUESTION = "What is $3 + 4 \\cdot 5 - 2$?"


async def main(url, key):
    provider = OpenAIProvider(base_url=f"{url}/v1", api_key=key)
    agent = Agent(
        OpenAIChatModel("dvts-8", provider=provider),
        instructions="Solve the problem.",
        model_settings={"seed": 0, "extra_body": {"asearch": {"step_prompt": True}}},
    )
    first = await agent.run(QUESTION)
    async with agent.run_stream(QUESTION) as run:
        streamed = "".join([piece async for piece in run.stream_text(delta=True)])
    second = await agent.run("What is $2 + 2$?", message_history=first.all_messages())
    refusal = ""
    try:
        await Agent(OpenAIChatModel("dvts-6", provider=provider)).run(QUESTION)
    except ModelHTTPError as failure:
        refusal = str(failure)
    used = first.usage() if callable(first.usage) else first.usage
    sys.stdout.write(
        json.dumps(
            {
                "text": first.output,
                "tokens": used.total_tokens,
                "streamed": streamed,
                "second": second.output,
                "refusal": refusal,
            }
        )
    )


asyncio.run(main(*sys.argv[1:]))
