"""What the environment says about the way to a server: read once, used for the world outside, never for this machine."""

import logging
import threading
import urllib.request
from base64 import b64encode

import pytest
from stub_server import Stub, models

from asearch.transport import Endpoint
from asearch.transport.urls import login_for, proxy_for

OUTSIDE = "http://gpu.invalid:8000"


def basic(login: str) -> str:
    return f"Basic {b64encode(login.encode()).decode()}"


@pytest.fixture(autouse=True)
def bare(monkeypatch, tmp_path):
    """No proxies, and an empty home."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "NETRC"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def logins(monkeypatch, tmp_path):
    """A file of logins with the given text."""

    def write(text):
        path = tmp_path / "logins"
        path.write_text(text)
        monkeypatch.setenv("NETRC", str(path))

    return write


async def ask(url, times=1, **options):
    endpoint = Endpoint(url, **options)
    try:
        for _ in range(times):
            await endpoint.get("/v1/models")
    finally:
        await endpoint.aclose()


async def test_a_proxy_is_looked_up_once_and_no_request_needs_a_thread(monkeypatch):
    """aiohttp's trust_env asks the environment in two threads for each request, which costs more than the request."""
    looked, getproxies = [], urllib.request.getproxies
    monkeypatch.setattr(urllib.request, "getproxies", lambda: looked.append(1) or getproxies())
    async with Stub(**{"/v1/models": models("m")}).listening() as proxy:
        monkeypatch.setenv("http_proxy", f"http://ann:p%40ss@127.0.0.1:{proxy.port}")
        before = threading.active_count()
        await ask(OUTSIDE, times=5)
        assert threading.active_count() == before
    assert len(proxy.requests) == 5
    assert len(looked) == 1
    for _, headers, _, _ in proxy.requests:
        assert headers["Host"] == "gpu.invalid:8000"
        assert headers["Proxy-Authorization"] == basic("ann:p@ss")


async def test_the_login_of_a_proxy_may_stand_in_the_file(monkeypatch, logins):
    logins("machine 127.0.0.1 login bob password s3cr:t/x\n")
    async with Stub(**{"/v1/models": models("m")}).listening() as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"127.0.0.1:{proxy.port}")
        await ask(OUTSIDE)
    assert proxy.requests[0][1]["Proxy-Authorization"] == basic("bob:s3cr:t/x")


async def test_a_login_for_the_server(monkeypatch, logins):
    logins("machine gpu.invalid login ann password secret\n")
    async with Stub(**{"/v1/models": models("m")}).listening() as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
        await ask(OUTSIDE)
        await ask(OUTSIDE, api_key="sk-mine")
        await ask("http://bob:other@gpu.invalid:8000")
        await ask(OUTSIDE, headers={"authorization": "Token t"})
    sent = [headers["Authorization"] for _, headers, _, _ in proxy.requests]
    assert sent == [basic("ann:secret"), "Bearer sk-mine", basic("bob:other"), "Token t"]


async def test_this_machine_needs_neither(monkeypatch, logins):
    logins("default login ann password secret\n")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    async with Stub(**{"/v1/models": models("m")}).listening() as server:
        await ask(server.url)
    assert "Authorization" not in server.requests[0][1]


def test_which_proxy(monkeypatch, caplog):
    monkeypatch.setenv("HTTP_PROXY", "http://proxy:3128")
    monkeypatch.setenv("HTTPS_PROXY", "https://proxy:3129")
    monkeypatch.setenv("NO_PROXY", "inside.invalid,.cluster")
    assert proxy_for("http://gpu.invalid:8000") == "http://proxy:3128"
    assert proxy_for("http://inside.invalid:8000") is None
    assert proxy_for("http://policy.cluster") is None
    with caplog.at_level(logging.WARNING, "asearch.transport"):
        assert proxy_for("https://gpu.invalid") is None
    assert "proxies that speak https" in caplog.text


def test_a_file_that_cannot_be_read_is_said_and_not_fatal(monkeypatch, logins, tmp_path, caplog):
    assert login_for("gpu.invalid") is None
    assert not caplog.records, "nobody needs such a file"
    logins("machine gpu.invalid nonsense")
    assert login_for("gpu.invalid") is None
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    assert login_for("gpu.invalid") is None
    assert [record.message.split(" cannot")[0] for record in caplog.records] == [
        str(tmp_path / "logins"),
        str(tmp_path / "none"),
    ]
