"""Where URLs come from."""

import asyncio
import os
import socket
from pathlib import Path

import pytest

from asearch.errors import Unreachable, UsageError
from asearch.transport import Endpoint
from asearch.transport.sources import FromDNS, FromFile, source_of


def urls(source):
    return [address.url for address in source.known()]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("http://a:1/v1", ["http://a:1"]),
        ("a:1, http://b:2/v1,", ["http://a:1", "http://b:2"]),
        (["http://a:1", "http://a:1/v1/", "https://c"], ["http://a:1", "https://c"]),
        (("tgi+http://a:1", "tgi+http://b:1"), ["http://a:1", "http://b:1"]),
        ("tgi+http://a:1,tgi+http://b:1", ["http://a:1", "http://b:1"]),
        ("http://a:1?key=x%2Cy", ["http://a:1"]),
    ],
)
def test_urls_as_people_write_them(given, expected):
    assert urls(source_of(given)) == expected


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([], "the list of URLs is empty"),
        (["http://a", 7], "not int"),
        (["http://a", "ftp://b"], "not an http"),
        ("http://a,ftp://b", "not an http"),
        (Path("/nowhere/endpoints.txt"), r"/nowhere/endpoints.txt: No such file"),
        ("file:/nowhere/endpoints.txt", "No such file"),
        ("dns+ftp://x", "not an http"),
    ],
)
def test_what_says_nothing_is_refused(given, words):
    with pytest.raises(UsageError, match=words):
        Endpoint(given)


@pytest.mark.parametrize("write", [lambda p: p, lambda p: f"file:{p}", lambda p: f"file://{p}"])
def test_a_file_lists_one_url_per_line(tmp_path, write):
    path = tmp_path / "endpoints.txt"
    path.write_text("# ours\nhttp://a:1/v1   # the first\n\n  b:2\nhttp://a:1\nhttp://c/x#y\n")
    assert urls(source_of(write(path))) == ["http://a:1", "http://b:2", "http://c/x"]


def test_a_file_with_nothing_in_it(tmp_path):
    path = tmp_path / "endpoints.txt"
    path.write_text("# later\n")
    with pytest.raises(UsageError, match="lists no endpoints: write one URL per line"):
        source_of(path)


async def test_a_file_is_read_again_when_it_changes(tmp_path):
    path = tmp_path / "endpoints.txt"
    path.write_text("http://a\n")
    source = FromFile(path)
    first = await source.look()
    assert await source.look() is first, "not read while it stays the same"
    path.write_text("http://a\nhttp://b\n")
    assert [address.url for address in await source.look()] == ["http://a", "http://b"]
    other = tmp_path / "other"
    other.write_text("http://c\nhttp://d\n")
    os.replace(other, path)
    assert [address.url for address in await source.look()] == ["http://c", "http://d"]
    path.unlink()
    with pytest.raises(UsageError, match="cannot be read"):
        await source.look()
    assert urls(source) == ["http://c", "http://d"], "what was known stays"


async def test_a_name_has_several_addresses(monkeypatch):
    async def answer(_host, port, **_):
        family = socket.AF_INET
        return [(family, socket.SOCK_STREAM, 6, "", (ip, port)) for ip in ("10.0.0.2", "10.0.0.1", "10.0.0.2")]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", answer)
    found = await FromDNS("http://me:pw@policy:8000/v1?team=x").look()
    assert [(address.url, address.ip) for address in found] == [
        ("http://policy:8000", "10.0.0.1"),
        ("http://policy:8000", "10.0.0.2"),
    ]
    assert found[0].basic is not None
    assert found[0].query == (("team", "x"),)


async def test_a_name_that_nobody_knows():
    endpoint = Endpoint("dns+http://no-such-host.invalid:8000")
    with pytest.raises(Unreachable, match=r"no address for 'no-such-host\.invalid'"):
        await endpoint.post("/v1/x", {})
    await endpoint.aclose()
