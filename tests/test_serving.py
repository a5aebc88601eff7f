"""Bodies of requests to the servers of this project, over real sockets: compressed ones are refused, and nothing hangs."""

import asyncio
import gzip
import json
import zlib

import aiohttp
import pytest
from aiohttp import web

from asearch.serving import BodyError, listening, read_body, url_of
from raw_http import raw_post

pytestmark = pytest.mark.timeout(20)
PLAIN = b'{"prompt": "1+1", "max_tokens": 1}'
BODIES = {
    "two bytes": b"{}",
    "not compressed": PLAIN,
    "nothing": b"",
    "cut off": zlib.compress(PLAIN)[:-6],
    "followed by more": zlib.compress(PLAIN) + b"more",
    "deflated": zlib.compress(PLAIN),
    "zipped": gzip.compress(PLAIN),
    "large": b"x" * 300_000,
}
CODINGS = ("deflate", "gzip", "br", "zstd", "DEFLATE", "identity, deflate", "nonsense")


async def echo(request):
    try:
        return web.Response(body=await read_body(request))
    except BodyError as failure:
        return web.Response(text=str(failure), status=failure.status)


@pytest.fixture
async def url():
    app = web.Application(client_max_size=1000)
    app.router.add_post("/", echo)
    async with listening(app) as runner:
        yield url_of(runner)


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
async def test_a_compressed_body_is_refused_unseen(url, coding, body):
    for pieces in ((), (1, 1)):
        for length in (None, 0):
            ((status, said),) = await raw_post(
                url, "/", body, headers=[("Content-Encoding", coding)], pieces=pieces, length=length
            )
            assert (status, said) == (415, b"the body must not be compressed: send it without Content-Encoding")


@pytest.mark.parametrize("headers", [(), [("Content-Encoding", "identity")], [("Content-Encoding", " Identity ")]])
async def test_any_other_body_is_what_was_sent(url, headers):
    for pieces in ((), (1, 1)):
        for length in (None, 0):
            assert await raw_post(url, "/", PLAIN, headers=headers, pieces=pieces, length=length) == [(200, PLAIN)]


async def test_one_of_several_headers_is_enough_to_be_refused(url):
    headers = [("Content-Encoding", "identity"), ("Content-Encoding", "deflate")]
    ((status, _),) = await raw_post(url, "/", b"{}", headers=headers)
    assert status in (400, 415)


async def test_the_connection_is_good_for_the_next_request(url):
    then = b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 2\r\n\r\n{}"
    refused, taken = await raw_post(url, "/", PLAIN, headers=[("Content-Encoding", "deflate")], then=then)
    assert (refused[0], taken) == (415, (200, b"{}"))


async def test_a_large_body_is_refused_by_its_size(url):
    ((status, _),) = await raw_post(url, "/", b"x" * 2000)
    assert status == 413


async def test_a_body_that_does_not_come_is_given_up(url, monkeypatch):
    monkeypatch.setattr("asearch.serving.BODY_SECONDS", 0.02)
    ((status, said),) = await raw_post(url, "/", b"{}", length=1000)
    assert (status, said) == (408, b"the body did not arrive within 0.02 s")


async def test_a_body_that_is_no_chunk_is_told_so(url):
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = b"POST / HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n"
    writer.write(head)
    await writer.drain()
    writer.write(b"nonsense\r\n")
    assert b" 400 " in await reader.readline()
    writer.close()


@pytest.mark.parametrize("route", ["/v1/completions", "/v1/chat/completions", "/tokenize", "/detokenize"])
@pytest.mark.parametrize("server", ["policy", "prm"])
async def test_the_embedded_servers_refuse_compressed_bodies(servers, server, route):
    url = getattr(servers, server)
    for body in BODIES.values():
        ((status, said),) = await raw_post(url, route, body, headers=[("Content-Encoding", "deflate")])
        error = json.loads(said)["error"]
        assert (status, error["code"]) == (415, 415)
        assert "must not be compressed" in error["message"]
    async with aiohttp.ClientSession() as http, http.get(f"{url}/health") as reply:
        assert reply.status == 200


async def test_the_embedded_servers_refuse_what_clients_compress_by_themselves(servers):
    async with aiohttp.ClientSession() as http:
        async with http.post(f"{servers.policy}/v1/completions", json=json.loads(PLAIN), compress="deflate") as reply:
            assert reply.status == 415
        async with http.post(f"{servers.policy}/v1/completions", json=json.loads(PLAIN)) as reply:
            assert reply.status == 200
