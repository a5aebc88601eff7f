"""The services of the profile `cpu`, started as processes by the very command, environment and port of the compose file.

Each container has addresses of its own; here each gets one of the loopback network, 127.x.y.z, and that is all that is
changed. Their health checks are asked as Compose would.
"""

import json
import os
import random
import subprocess
import sys
import urllib.request
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from compose.stack import COMPOSE, services

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has all of 127.0.0.0/8")
STACK = services(profile="cpu")
PROGRAMS = {"python": [sys.executable], "asearch": [sys.executable, "-m", "asearch"]}


class Places:
    """An address for each service."""

    def __init__(self):
        net = f"127.{random.randint(16, 250)}.{random.randint(1, 250)}"
        self.of = {name: f"{net}.{i}" for i, name in enumerate(STACK, 2)}

    def moved(self, name, words):
        """A command of a service at its address."""
        own = [word.replace("0.0.0.0", self.of[name]).replace("127.0.0.1", self.of[name]) for word in words]
        for other, address in self.of.items():
            own = [word.replace(f"//{other}:", f"//{address}:") for word in own]
        return [*PROGRAMS[own[0]], *own[1:]]


@contextmanager
def started(name, places, folder):
    service = STACK[name]
    environment = {"PATH": os.environ["PATH"], **service.get("environment", {})}
    with (folder / f"{name}.log").open("w") as log:
        process = subprocess.Popen(
            places.moved(name, service["command"]), env=environment, cwd=folder, stdout=log, stderr=log
        )
        try:
            wait_until_healthy(name, places, process, folder)
            yield process
        finally:
            process.terminate()
            assert process.wait(timeout=60) == 0, (folder / f"{name}.log").read_text()


def health(name, places):
    """What the container's health check says."""
    check = [word.replace("/opt/asearch/", f"{COMPOSE}/") for word in STACK[name]["healthcheck"]["test"][1:]]
    return subprocess.run(places.moved(name, check), capture_output=True, check=False).returncode


def wait_until_healthy(name, places, process, folder):
    while health(name, places) != 0:
        assert process.poll() is None, (folder / f"{name}.log").read_text()


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    """All services, each started when those that it depends on are healthy."""
    places, folder, running = Places(), tmp_path_factory.mktemp("stack"), {}
    with ExitStack() as opened:
        while len(running) < len(STACK):
            for name, service in STACK.items():
                if name not in running and set(service.get("depends_on", {})) <= set(running):
                    running[name] = opened.enter_context(started(name, places, folder))
        yield places


@pytest.mark.parametrize("name", STACK)
def test_every_service_is_healthy(stack, name):
    assert health(name, stack) == 0


def test_a_chat_with_the_proxy_is_a_search_on_the_servers(stack):
    body = {"model": "dvts-4", "messages": [{"role": "user", "content": "What is $3 + 4 \\cdot 5 - 2$?"}], "seed": 0}
    request = urllib.request.Request(
        f"http://{stack.of['proxy']}:8080/v1/chat/completions",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=120) as reply:
        answer = json.load(reply)
    assert "\\boxed{21}" in answer["choices"][0]["message"]["content"]


def healthy(url):
    return subprocess.run([sys.executable, COMPOSE / "healthy.py", url], capture_output=True, text=True, check=False)


def test_the_health_check_tells_well_from_ill(stack):
    policy = f"http://{stack.of['policy']}:8000"
    assert healthy(f"{policy}/health").returncode == 0
    missing = healthy(f"{policy}/nothing-here")
    assert (missing.returncode, "404" in missing.stderr) == (1, True)
    nobody = healthy("http://127.0.0.1:9/health")
    assert (nobody.returncode, nobody.stderr.count("\n")) == (1, 1)


def test_the_health_check_needs_nothing_but_python():
    source = (Path(COMPOSE) / "healthy.py").read_text()
    assert [line for line in source.splitlines() if line.startswith(("import", "from"))] == [
        "import sys",
        "import urllib.request",
    ]
