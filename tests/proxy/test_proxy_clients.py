"""Real clients, pointed at the proxy. Each runs in a process of its own: they patch, warn and import as they like."""

import asyncio
import json
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from proxies import running

from asearch.proxy import Keys

CLIENTS = Path(__file__).parent / "clients"
KEY = "sk-clients"


@pytest.mark.parametrize(
    ("module", "script"),
    [("litellm", "with_litellm"), ("pydantic_ai", "with_pydantic_ai"), ("agents", "with_agents_sdk")],
)
async def test_a_real_client(module, script, servers):
    if find_spec(module) is None:
        pytest.skip(f"needs {module}: pip install -e '.[agents]'")
    async with running(servers.policy, servers.prm, keys=Keys([KEY])) as proxy:
        command = [sys.executable, str(CLIENTS / f"{script}.py"), proxy.url, KEY]
        process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        out, err = await process.communicate()
        assert process.returncode == 0, err.decode()
        said = json.loads(out.splitlines()[-1])
        assert "boxed" in said["text"]
        assert said["streamed"].strip() == said["text"].strip()
        assert said["tokens"] > 100
        assert "multiple of width=4" in said["refusal"]
        assert "boxed" in said.get("second", said.get("sync"))
        assert proxy.proxy.admission.in_use == 0
