"""LiteLLM pointed at the proxy: complete, async, streaming, and a refusal; prints what came as JSON."""

import asyncio
import json
import os
import sys

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # the list of prices is not fetched
import litellm

QUESTION = [{"role": "user", "content": "What is $3 + 4 \\cdot 5 - 2$?"}]


async def main(url, key):
    server = {"api_base": f"{url}/v1", "api_key": key, "max_retries": 0}
    wanted = {"asearch": {"details": True}}
    whole = await litellm.acompletion(
        model="openai/dvts-8", messages=QUESTION, seed=0, extra_body=wanted, timeout=60, **server
    )
    stream = await litellm.acompletion(model="openai/dvts-8", messages=QUESTION, seed=0, stream=True, **server)
    pieces = [chunk.choices[0].delta.content or "" async for chunk in stream]
    refusal = ""
    try:
        await litellm.acompletion(model="openai/dvts-6", messages=QUESTION, **server)
    except litellm.BadRequestError as failure:
        refusal = str(failure)
    sync = await asyncio.to_thread(litellm.completion, model="openai/majority-4", messages=QUESTION, **server)
    sys.stdout.write(
        json.dumps(
            {
                "text": whole.choices[0].message.content,
                "tokens": whole.usage.total_tokens,
                "streamed": "".join(pieces),
                "sync": sync.choices[0].message.content,
                "refusal": refusal,
            }
        )
    )


asyncio.run(main(*sys.argv[1:]))
