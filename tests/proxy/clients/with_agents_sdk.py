"""The OpenAI Agents SDK pointed at the proxy: a run, a stream, a second turn, and a refusal; prints what came as JSON."""

import asyncio
import json
import sys

import openai
from agents import Agent, ModelSettings, OpenAIChatCompletionsModel, Runner, set_tracing_disabled

QUESTION = "What is $3 + 4 \\cdot 5 - 2$?"


async def main(url, key):
    set_tracing_disabled(disabled=True)
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0) as client:

        def solver(model):
            return Agent(
                name="solver",
                instructions="Solve the problem.",
                model=OpenAIChatCompletionsModel(model=model, openai_client=client),
                model_settings=ModelSettings(extra_body={"seed": 0}, include_usage=True),
            )

        first = await Runner.run(solver("dvts-8"), QUESTION)
        run = Runner.run_streamed(solver("dvts-8"), QUESTION)
        pieces = [
            event.data.delta
            async for event in run.stream_events()
            if event.type == "raw_response_event" and event.data.type == "response.output_text.delta"
        ]
        again = [*first.to_input_list(), {"role": "user", "content": "What is $2 + 2$?"}]
        second = await Runner.run(solver("dvts-8"), again)
        refusal = ""
        try:
            await Runner.run(solver("dvts-6"), QUESTION)
        except openai.BadRequestError as failure:
            refusal = str(failure)
    sys.stdout.write(
        json.dumps(
            {
                "text": first.final_output,
                "tokens": first.context_wrapper.usage.total_tokens,
                "streamed": "".join(pieces),
                "second": second.final_output,
                "refusal": refusal,
            }
        )
    )


asyncio.run(main(*sys.argv[1:]))
