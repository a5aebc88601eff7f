"""Who may come in: a wrong key is refused whatever the path, and no key is ever written anywhere."""

import asyncio
import logging

import pytest
from proxies import running

from asearch import UsageError
from asearch.proxy import Keys, load_keys
from worlds import ScriptedClient, ScriptedPRM, World

KEY = "sk-the-right-one-5f1e"
WRONG = "sk-a-wrong-one-77aa"
PATHS = ("/health", "/metrics", "/v1/models", "/v1/models/dvts-4", "/v1/chat/completions", "/nothing", "/", "//v1/../x")


@pytest.fixture
async def proxy():
    world = World(depth=2)
    async with running(ScriptedClient(world), ScriptedPRM(world), keys=Keys([KEY, "sk-another"])) as open_:
        yield open_


def bearer(key):
    return {"Authorization": f"Bearer {key}"}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "OPTIONS", "PATCH"])
@pytest.mark.parametrize(
    "headers",
    [
        bearer(WRONG),
        bearer(""),
        bearer(KEY[:-1]),
        bearer(KEY + "x"),
        bearer(KEY.upper()),
        {"Authorization": KEY},
        {"Authorization": f"Basic {KEY}"},
        {"Authorization": "Bearer \udcff\udcfe"},
    ],
    ids=["wrong", "empty", "shorter", "longer", "upper", "bare", "basic", "bytes"],
)
async def test_a_wrong_key_gets_401_whatever_the_path(proxy, path, method, headers):
    async with proxy.http.request(method, proxy.url + path, headers=headers, json={"model": "x"}) as reply:
        body = await reply.json()
        assert (reply.status, reply.headers["WWW-Authenticate"]) == (401, "Bearer")
        assert (body["error"]["type"], body["error"]["code"]) == ("authentication_error", "invalid_api_key")


@pytest.mark.parametrize("path", [path for path in PATHS if path != "/health"])
async def test_no_key_gets_401_except_for_the_health_of_the_process(proxy, path):
    async with proxy.http.get(proxy.url + path) as reply:
        assert reply.status == 401
    async with proxy.http.get(f"{proxy.url}/health") as reply:
        assert reply.status == 200


@pytest.mark.parametrize("headers", [bearer(KEY), bearer("sk-another"), {"Authorization": f"bearer  {KEY} "}])
async def test_a_right_key_opens(proxy, headers):
    for path in ("/health", "/metrics", "/v1/models"):
        async with proxy.http.get(proxy.url + path, headers=headers) as reply:
            assert reply.status == 200
    async with proxy.post(headers=headers) as reply:
        assert reply.status == 200


async def test_every_key_is_compared_whichever_matches(monkeypatch):
    compared = []

    def compare(a, b):
        compared.append(b)
        return a == b

    monkeypatch.setattr("hmac.compare_digest", compare)
    keys = Keys(["a", "b", "c"])
    for given in ("Bearer a", "Bearer c", "Bearer x", None, "a"):
        keys.admit(given)
    assert len(compared) == 15
    assert all(len(digest) == 32 for digest in compared), "what is compared has one length, whatever the keys' are"


async def test_keys_are_never_logged(proxy, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    host, port = proxy.url.removeprefix("http://").split(":")
    for headers in (bearer(KEY), bearer(WRONG)):
        for path in PATHS:
            async with proxy.http.get(proxy.url + path, headers=headers) as reply:
                assert KEY not in await reply.text()
        for body in ({"model": "dvts-4"}, {"model": "dvts-4", "messages": [{"role": "user", "content": "x"}]}):
            async with proxy.http.post(f"{proxy.url}/v1/chat/completions", headers=headers, json=body) as reply:
                await reply.read()
    for key in (KEY, WRONG):  # what is not even HTTP
        for raw in (
            f"GET / HTTP/1.1\r\nAuthorization: Bearer {key}\x00\r\n\r\n",
            f"GET / HTTP/1.1\r\nHost: x\r\nAuthori zation: Bearer {key}\r\n\r\n",
            f"Authorization: Bearer {key}\r\n\r\n",
            f"POST /v1/chat/completions HTTP/1.1\r\nAuthorization: Bearer {key}\r\nContent-Length: x\r\n\r\n",
        ):
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(raw.encode())
            writer.write_eof()
            await reader.read()
            writer.close()
    printed = capfd.readouterr()
    written = caplog.text + printed.out + printed.err + repr(proxy.proxy.options)
    assert "a request was not HTTP" in written, "the malformed requests were noticed"
    assert KEY not in written
    assert WRONG not in written


def test_keys_come_from_a_file_and_from_the_environment(tmp_path):
    file = tmp_path / "keys"
    file.write_text("# ours\nsk-one\n\n sk-two  # Ann's\nsk-one\n")
    keys = load_keys(file, {"ASEARCH_API_KEYS": "sk-three, sk-four"})
    assert len(keys) == 4
    assert all(keys.admit(f"Bearer sk-{name}") for name in ("one", "two", "three", "four"))
    assert not keys.admit("Bearer # ours")
    assert len(load_keys(None, {})) == len(load_keys(None, {"ASEARCH_API_KEYS": " "})) == 0


@pytest.mark.parametrize("text", ["", "# none\n\n", "sk one\n", "sk-é\n"])
def test_a_file_that_would_leave_the_proxy_open_is_refused(tmp_path, text):
    file = tmp_path / "keys"
    file.write_text(text)
    with pytest.raises(UsageError) as caught:
        load_keys(file, {})
    assert "sk" not in str(caught.value).replace(str(file), "")


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"gone cannot be read: No such file"):
        load_keys(tmp_path / "gone", {})
    with pytest.raises(UsageError, match="no API key"):
        load_keys(None, {"ASEARCH_API_KEYS": ", ,"})
