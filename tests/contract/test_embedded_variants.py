"""The laws where they are hard: a chat template that trims, a server that is overloaded, one that wants a key."""

import asyncio
import json
import shutil
from pathlib import Path as File

import pytest

import asearch_backends.embedded
from asearch.client import OpenAIClient
from asearch.embedded import embedded_server
from asearch.errors import AuthError, UsageError
from asearch.path import Path, Sampling
from asearch.problem import Problem
from asearch.testing import assert_client_laws
from asearch.transport import Retry

SHIPPED = File(asearch_backends.embedded.__path__[0]) / "models" / "policy"
PATH = Path(Problem("What is $12 - 3 \\cdot (4 + 5)$?"))


@pytest.fixture
async def trimming(tmp_path):
    """The shipped policy with a chat template that trims every turn, as that of Llama 3 does."""
    folder = tmp_path / "trimming"
    shutil.copytree(SHIPPED, folder)
    file = folder / "tokenizer_config.json"
    config = json.loads(file.read_text())
    assert "content" in config["chat_template"]
    config["chat_template"] = (
        "<|begin|>{% for m in messages %}<|{{ m.role }}|>{{ m.content | trim }}"
        "{% if m.role == 'assistant' and not (loop.last and continue_final_message) %}<|end|>{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    file.write_text(json.dumps(config))
    async with embedded_server(str(folder)) as url:
        yield url


async def test_token_ids_do_not_care_about_a_trimming_template(trimming):
    for mode in ("tokens", "text"):
        client = OpenAIClient(trimming, mode=mode)
        await assert_client_laws(client)
        await client.aclose()


async def test_a_prefilled_turn_does_and_is_refused(trimming):
    client = OpenAIClient(trimming, mode="prefill")
    with pytest.raises(UsageError, match="trims the blank line"):
        await client.connect()
    await client.aclose()


async def test_overload_is_waited_out():
    async with embedded_server("policy", "--max-num-seqs", "2", "--max-num-queued-reqs", "2") as url:
        client = OpenAIClient(url, retry=Retry(attempts=1000, first=0.01, longest=0.05))
        draws = [client.extend(PATH, 2, sampling=Sampling(), seed=10 * i) for i in range(20)]
        assert [len(steps) for steps in await asyncio.gather(*draws)] == [2] * 20
        assert client.endpoint.stats.retries > 0
        await client.aclose()


async def test_a_limit_spares_the_server_the_overload():
    async with embedded_server("policy", "--max-num-seqs", "2", "--max-num-queued-reqs", "2") as url:
        client = OpenAIClient(url, limit=2)
        await asyncio.gather(*(client.extend(PATH, 2, sampling=Sampling(), seed=10 * i) for i in range(20)))
        assert client.endpoint.stats.retries == 0
        await client.aclose()


async def test_a_key_is_asked_for():
    async with embedded_server("policy", "--api-key", "sk-embedded") as url:
        stranger = OpenAIClient(url, api_key="sk-other")
        with pytest.raises(AuthError, match="check the API key"):
            await stranger.connect()
        await stranger.aclose()
        client = OpenAIClient(url, api_key="sk-embedded")
        assert len(await client.extend(PATH, 1, sampling=Sampling(), seed=1)) == 1
        await client.aclose()
