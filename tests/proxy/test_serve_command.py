"""`asearch serve` as an operator meets it: it says where it listens, stops in good order, and refuses in one line."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import asynccontextmanager

import aiohttp
import pytest
from proxies import events

from asearch.cli import main
from asearch.plan import read_plan

KEY = "sk-serve"


@asynccontextmanager
async def serving(*options, **environment):
    """The command as a process of its own; yields it and what it said first."""
    process = await asyncio.create_subprocess_exec(
        *[sys.executable, "-m", "asearch", "serve", "--port", "0", *options],
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **environment},
    )
    try:
        yield process, (await process.stdout.readline()).decode()
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_it_serves_what_it_says_and_stops_when_it_is_told(servers, tmp_path, number):
    keys = tmp_path / "keys"
    keys.write_text(f"{KEY}\n")
    options = (
        "--policy",
        servers.policy,
        "--prm",
        servers.prm,
        "--api-key-file",
        str(keys),
        "--budgets",
        "8,2",
        "--json",
    )
    async with serving(*options, "--log-level", "debug") as (process, line):
        said = json.loads(line)
        assert said["keys"] == 1
        assert {"dvts-8", "majority-2", "greedy"} <= set(said["models"])
        question = {"model": "dvts-8", "messages": [{"role": "user", "content": "What is $1 + 2$?"}]}
        headers = {"Authorization": f"Bearer {KEY}"}
        async with aiohttp.ClientSession() as session:
            async with session.post(f"{said['url']}/v1/chat/completions", json=question, headers=headers) as reply:
                assert reply.status == 200, await reply.text()
            async with session.post(f"{said['url']}/v1/chat/completions", json=question) as reply:
                assert reply.status == 401
            process.send_signal(number)
            out, err = await process.communicate()
        assert process.returncode == 0, err
        assert KEY not in (out + err).decode()
        assert "POST /v1/chat/completions 200" in err.decode(), "at this level each request has a line"


@pytest.mark.parametrize(("grace", "signals"), [("0", 1), ("600", 2)])
async def test_a_search_under_way_is_told_that_the_proxy_stops(servers, grace, signals):
    """When the grace period is over, or when somebody asks a second time."""
    options = ("--policy", servers.policy, "--prm", servers.prm, "--grace", grace, "--json")
    question = [{"role": "user", "content": "What is $7 - (12 - 5) + 8 - 3 + 4$?"}]
    body = {"model": "dvts-256", "messages": question, "stream": True, "asearch": {"progress": True}}
    async with serving(*options) as (process, line), aiohttp.ClientSession() as session:
        async with session.post(f"{json.loads(line)['url']}/v1/chat/completions", json=body) as reply:
            said = events(reply)
            await anext(said)
            for _ in range(signals):
                process.send_signal(signal.SIGTERM)
                await asyncio.sleep(0.05)  # two signals in one moment are one
            *_, failure, done = [event async for event in said]
        assert (failure["error"]["code"], done) == ("stopping", "[DONE]")
        assert await process.wait() == 0


async def test_embedded_servers_start_and_stop_with_it():
    async with serving("--embedded") as (process, line):
        assert line.startswith("asearch serves ")
        url = line.split(" at ")[1].split("/v1")[0]
        async with aiohttp.ClientSession() as session, session.get(f"{url}/v1/models") as reply:
            assert reply.status == 200
        process.terminate()
        assert await process.wait() == 0


async def test_keys_of_the_environment(servers):
    async with serving("--policy", servers.policy, ASEARCH_API_KEYS=f"{KEY},sk-2") as (process, line):
        assert "(2 API keys)" in line
        process.terminate()
        assert await process.wait() == 0


async def test_the_operator_chooses_the_plan(servers, tmp_path):
    plan = read_plan().to_json()
    plan["about"] = {"models": {"policy": "mine"}}
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    options = ("--policy", servers.policy, "--prm", servers.prm, "--plan", str(tmp_path / "plan.json"), "--json")
    question = [{"role": "user", "content": "What is $7 - (12 - 5)$?"}]
    body = {"model": "compute-optimal-4", "messages": question, "asearch": {"details": True}}
    async with serving(*options) as (process, line), aiohttp.ClientSession() as session:
        async with session.post(f"{json.loads(line)['url']}/v1/chat/completions", json=body) as reply:
            details = (await reply.json())["choices"][0]["asearch"]
        process.terminate()
        await process.wait()
    assert details["strategy"]["plan"]["about"] == {"models": {"policy": "mine"}}


def refused(*options):
    done = subprocess.run(
        [sys.executable, "-m", "asearch", "serve", *options], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1, done.stderr
    return done.returncode, done.stderr


def test_a_port_in_use_is_named(servers):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, said = refused("--policy", servers.policy, "--port", str(port))
    assert (status, said) == (
        1,
        f"asearch: cannot listen on 127.0.0.1:{port}: address already in use; choose another --port or --host\n",
    )


def test_a_policy_that_is_not_there_is_named_at_once():
    with socket.create_server(("127.0.0.1", 0)) as server:
        free = server.getsockname()[1]
    status, said = refused("--policy", f"http://127.0.0.1:{free}")
    assert status == 1
    assert f"http://127.0.0.1:{free}: no connection" in said


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ((), "no policy"),
        (("--embedded", "--plan", "missing.json"), "cannot read the plan missing.json"),
        (("--embedded", "--policy", "http://x"), "brings its own servers"),
        (("--embedded", "--port", "70000"), "--port must be between 0 and 65535"),
        (("--embedded", "--max-concurrent", "0"), "--max-concurrent must be at least 1"),
        (("--embedded", "--grace", "nan"), "--grace must be at least 0"),
        (("--embedded", "--max-seconds", "0"), "--max-seconds must be above 0"),
        (("--embedded", "--budgets", "4;16"), "--budgets must be whole numbers"),
        (("--embedded", "--budgets", "4,512"), "between 1 and --max-n=256"),
        (("--embedded", "--api-key-file", "/nowhere/keys"), "/nowhere/keys cannot be read"),
    ],
)
def test_a_wrong_call_is_refused_before_anything_starts(options, says, capsys):
    assert main(["serve", *options]) == 2
    assert says in capsys.readouterr().err


async def test_an_open_address_without_keys_is_warned_about(servers):
    async with serving("--policy", servers.policy, "--host", "0.0.0.0") as (process, _):
        process.terminate()
        _, err = await process.communicate()
        assert b"warning: no API keys: whoever reaches 0.0.0.0 can search here" in err
