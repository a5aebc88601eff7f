"""Everything that can go wrong on the wire becomes its own typed error, which says where, what status, and what to do."""

import asyncio
import datetime as dt
import ssl
import subprocess

import pytest
from aiohttp import web
from stub_server import Stub, hang, models, openai_error, reset, reset_inside

from asearch import errors
from asearch.client import OpenAIClient
from asearch.transport import Endpoint, Retry, Timeouts

ONCE = Retry(attempts=1)
FAST = Retry(first=0.0001, longest=0.001)
HTML = web.Response
NGINX = "<html><head><title>502 Bad Gateway</title></head></html>"


def html(status=200, text="<!doctype html><title>Welcome</title>"):
    return lambda *_: web.Response(text=text, content_type="text/html", status=status)


def plain(text, status=200, **headers):
    return lambda *_: web.Response(text=text, status=status, headers=headers)


# what the server does, the error, its status, and what its message must say
FAULTS = {
    "html": (html(), errors.ProtocolError, 200, "HTML page; this is no model server"),
    "text": (plain("hello"), errors.ProtocolError, 200, "not JSON"),
    "nothing": (plain(""), errors.ProtocolError, 200, "nothing"),
    "a list": (plain("[1]"), errors.ProtocolError, 200, "JSON list, not a dict"),
    "truncated JSON": (plain('{"data": [{"id"'), errors.Truncated, 200, "truncated JSON"),
    "401": ((401, openai_error("Incorrect API key provided: sk-se***et")), errors.AuthError, 401, "check the API key"),
    "403": ((403, openai_error("not for you")), errors.AuthError, 403, "check the API key (not for you)"),
    "407": ((407, {}), errors.AuthError, 407, "proxy"),
    "quota": ((429, openai_error("You ran out", "insufficient_quota")), errors.AuthError, 429, "You ran out"),
    "404": ((404, {"detail": "Not Found"}), errors.NotFound, 404, "no route /v1/thing; is this an OpenAI-compatible"),
    "404 page": (html(404), errors.NotFound, 404, "no route /v1/thing"),
    "404 words": (plain("Cannot POST /v1/models", 404), errors.NotFound, 404, "Cannot POST"),
    "405": ((405, {"detail": "Method Not Allowed"}), errors.NotFound, 405, "no route /v1/thing"),
    "501": ((501, openai_error("The model does not support this")), errors.NotFound, 501, "does not support"),
    "unknown model": (
        (404, openai_error("The model `nope` does not exist. Valid aliases: l3.", "NotFoundError", 404)),
        errors.ModelNotFound,
        404,
        "Valid aliases: l3; pass model=",
    ),
    "ollama's": (
        (404, openai_error('model "x" not found, try pulling it first')),
        errors.ModelNotFound,
        404,
        "pulling",
    ),
    "400": ((400, openai_error("max_tokens must be at least 1")), errors.BadRequest, 400, "max_tokens must be"),
    "413": (html(413), errors.BadRequest, 413, "the server refused /v1/thing"),
    "422": ((422, {"error": "Input validation error", "error_type": "validation"}), errors.BadRequest, 422, "Input"),
    "424": ((424, {"error": "Request failed", "error_type": "generation"}), errors.ServerError, 424, "failed"),
    "429": ((429, openai_error("Rate limit reached")), errors.Overloaded, 429, "Rate limit reached"),
    "503": ((503, openai_error("The engine is currently busy")), errors.Overloaded, 503, "currently busy"),
    "529": (plain("", 529), errors.Overloaded, 529, "come back later"),
    "500": ((500, openai_error("EngineCore encountered an issue")), errors.ServerError, 500, "EngineCore"),
    "502 page": (html(502, NGINX), errors.ServerError, 502, "see its log"),
    "408": ((408, {}), errors.RequestTimeout, 408, "gave up waiting"),
    "504 page": (html(504, NGINX), errors.RequestTimeout, 504, "gave up waiting"),
    "redirect": (
        plain("", 307, Location="https://user:pw@other.example/v1/thing?key=k"),
        errors.Redirected,
        307,
        "redirects to https://other.example/v1/thing; pass that URL instead",
    ),
    "reset before": (reset, errors.ServerError, None, "broke off before an answer to /v1/thing"),
    "reset inside": (reset_inside, errors.Truncated, None, "the answer to /v1/thing broke off"),
    "hang": (hang, errors.RequestTimeout, None, "no answer in time to /v1/thing; is the server overloaded?"),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_each_fault_is_its_own_error(fault):
    answer, kind, status, words = FAULTS[fault]
    timeouts = Timeouts(read=0.1 if fault == "hang" else 20.0)
    async with Stub(**{"/v1/thing": answer}).listening() as server:
        endpoint = Endpoint(server.url, api_key="sk-secret", retry=ONCE, timeouts=timeouts)
        with pytest.raises(errors.EndpointError) as caught:
            await endpoint.post("/v1/thing", {"a": 1})
        await endpoint.aclose()
    failure = caught.value
    assert type(failure) is kind
    assert failure.status == status
    assert failure.endpoint == server.url
    assert str(failure).startswith(f"{server.url}: ")
    assert words in str(failure)
    assert "\n" not in str(failure)
    assert status is None or f"(HTTP {status})" in str(failure)


def test_every_endpoint_error_is_provoked_here():
    provoked = {kind for _, kind, _, _ in FAULTS.values()} | {errors.Unreachable, errors.TLSFailed}
    kinds = {
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.EndpointError)
    }
    assert kinds - provoked == {errors.EndpointError}


RETRIED = ["truncated JSON", "429", "503", "529", "500", "502 page", "424", "408", "504 page", "reset before"]


@pytest.mark.parametrize("fault", sorted(FAULTS.keys() - {"hang"}))
async def test_only_what_may_pass_is_tried_again(fault):
    answer, kind, _, _ = FAULTS[fault]
    async with Stub(**{"/v1/thing": [answer, answer, {"fine": True}]}).listening() as server:
        endpoint = Endpoint(server.url, retry=FAST)
        if fault in RETRIED or fault == "reset inside":
            assert await endpoint.post("/v1/thing", {}) == {"fine": True}
            assert endpoint.stats.retries == 2
        else:
            with pytest.raises(kind):
                await endpoint.post("/v1/thing", {})
            assert endpoint.stats.requests == 1
        await endpoint.aclose()
        assert endpoint.limiter.in_use == 0


async def test_retries_end_and_are_reported():
    seen = []
    async with Stub(**{"/v1/thing": (500, {})}).listening() as server:
        endpoint = Endpoint(server.url, retry=Retry(attempts=4, first=0.0001))
        endpoint.stats.on_retry.append(lambda failure, count: seen.append((type(failure), count)))
        with pytest.raises(errors.ServerError):
            await endpoint.post("/v1/thing", {})
        await endpoint.aclose()
    assert seen == [(errors.ServerError, 1), (errors.ServerError, 2), (errors.ServerError, 3)]
    assert (endpoint.stats.requests, endpoint.stats.retries, endpoint.stats.failures) == (4, 3, 1)


@pytest.mark.parametrize("asked", ["0", "0.001", "Sat, 01 Jan 2000 00:00:00 GMT"])
async def test_retry_after_is_obeyed(asked):
    busy = plain("", 429, **{"Retry-After": asked})
    async with Stub(**{"/v1/thing": [busy, {"fine": True}]}).listening() as server:
        # without Retry-After the first wait would be longer than the test may take
        endpoint = Endpoint(server.url, retry=Retry(first=0.001, longest=1000.0))
        assert await endpoint.post("/v1/thing", {}) == {"fine": True}
        await endpoint.aclose()


def tomorrow():
    return (dt.datetime.now(dt.UTC) + dt.timedelta(days=1)).strftime("%a, %d %b %Y %H:%M:%S GMT")


@pytest.mark.parametrize("asked", ["3600", tomorrow()])
async def test_a_wait_beyond_all_patience_is_not_begun(asked):
    busy = plain('{"error": "later"}', 503, **{"Retry-After": asked})
    async with Stub(**{"/v1/thing": busy}).listening() as server:
        endpoint = Endpoint(server.url)
        with pytest.raises(errors.Overloaded, match="later") as caught:
            await endpoint.post("/v1/thing", {})
        await endpoint.aclose()
    assert caught.value.retry_after >= 3599
    assert endpoint.stats.requests == 1


@pytest.mark.parametrize("asked", ["soon", "", "nan", "inf"])
async def test_a_retry_after_that_says_nothing_is_ignored(asked):
    busy = plain("", 429, **{"Retry-After": asked})
    async with Stub(**{"/v1/thing": [busy, {"fine": True}]}).listening() as server:
        endpoint = Endpoint(server.url, retry=FAST)
        assert await endpoint.post("/v1/thing", {}) == {"fine": True}
        await endpoint.aclose()


class TestKeepAliveRace:
    """A server closes an idle connection in the moment in which it is used again."""

    @staticmethod
    def once_per_connection():
        used = set()

        def answer(_body, request):
            if request.transport in used:
                request.transport.abort()
                return web.Response()
            used.add(request.transport)
            return {"fine": True}

        return answer

    async def test_is_healed_without_a_retry(self):
        async with Stub(**{"/v1/thing": self.once_per_connection()}).listening() as server:
            endpoint = Endpoint(server.url, retry=ONCE)
            for _ in range(3):
                assert await endpoint.post("/v1/thing", {}) == {"fine": True}
            await endpoint.aclose()
        assert endpoint.stats.reconnects == 2
        assert endpoint.stats.requests == 5
        assert endpoint.stats.retries == 0

    async def test_happens_once_per_request(self):
        async with Stub(**{"/v1/thing": [{"fine": True}, reset]}).listening() as server:
            endpoint = Endpoint(server.url, retry=ONCE)
            await endpoint.post("/v1/thing", {})
            with pytest.raises(errors.ServerError):
                await endpoint.post("/v1/thing", {})
            await endpoint.aclose()
        assert endpoint.stats.requests == 3

    async def test_a_new_connection_that_breaks_is_no_race(self):
        async with Stub(**{"/v1/thing": reset}).listening() as server:
            endpoint = Endpoint(server.url, retry=ONCE)
            with pytest.raises(errors.ServerError):
                await endpoint.post("/v1/thing", {})
            await endpoint.aclose()
        assert (endpoint.stats.requests, endpoint.stats.reconnects) == (1, 0)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    """A certificate for localhost that nobody has signed but itself."""
    folder = tmp_path_factory.mktemp("tls")
    key, cert = folder / "key.pem", folder / "cert.pem"
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    files = ["-keyout", str(key), "-out", str(cert), "-days", "2"]
    subprocess.run([*command, *files, *names], check=True, capture_output=True)
    return key, cert


class TestTLS:
    @pytest.fixture
    async def server(self, certificate):
        key, cert = certificate
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(cert, key)
        async with Stub(**{"/v1/thing": {"fine": True}}).listening(tls=context) as server:
            yield server

    async def test_an_unknown_certificate_is_refused_at_once(self, server):
        endpoint = Endpoint(server.url)
        with pytest.raises(errors.TLSFailed, match="self-signed certificate; pass tls="):
            await endpoint.post("/v1/thing", {})
        await endpoint.aclose()
        assert endpoint.stats.requests == 1
        assert not server.requests

    async def test_a_known_authority_is_trusted(self, server, certificate):
        endpoint = Endpoint(server.url, tls=ssl.create_default_context(cafile=certificate[1]))
        assert await endpoint.post("/v1/thing", {}) == {"fine": True}
        await endpoint.aclose()

    async def test_https_spoken_to_http(self):
        async with Stub(**{"/v1/thing": {}}).listening() as server:
            endpoint = Endpoint(server.url.replace("http:", "https:"), retry=ONCE)
            with pytest.raises(errors.TLSFailed, match="try http://"):
                await endpoint.post("/v1/thing", {})
            await endpoint.aclose()

    async def test_http_spoken_to_https(self, server):
        endpoint = Endpoint(server.url.replace("https:", "http:"), retry=ONCE)
        with pytest.raises(errors.EndpointError, match=r"https|broke off"):
            await endpoint.post("/v1/thing", {})
        await endpoint.aclose()


class TestConnecting:
    """`connect` tells at once what is wrong with a URL."""

    @pytest.mark.parametrize(
        ("url", "words"),
        [
            ("http://127.0.0.1:9", "no connection (Connect call failed"),
            ("http://no-such-host.invalid", "no connection ("),
        ],
    )
    async def test_nobody_there(self, url, words):
        client = OpenAIClient(url, retry=Retry(attempts=50, first=30.0))
        with pytest.raises(errors.Unreachable) as caught:
            await client.connect()
        await client.aclose()
        assert words in str(caught.value) or "Connection refused" in str(caught.value)
        assert str(caught.value).endswith("is the server running there?")
        assert client.endpoint.stats.requests == 1

    async def test_a_server_that_vanishes_later_is_waited_for(self):
        endpoint = Endpoint("http://127.0.0.1:9", retry=Retry(attempts=3, first=0.0001))
        with pytest.raises(errors.Unreachable):
            await endpoint.post("/v1/completions", {})
        assert endpoint.stats.requests == 3
        await endpoint.aclose()

    @pytest.mark.parametrize(
        ("routes", "kind", "words"),
        [
            ({}, errors.NotFound, "no route /v1/models; is this an OpenAI-compatible server"),
            ({"/v1/models": html()}, errors.ProtocolError, "HTML page; this is no model server"),
            ({"/v1/models": {"hello": "world"}}, errors.ProtocolError, "lists no models, so this is no model server"),
            ({"/v1/models": {"data": [1]}}, errors.ProtocolError, "lists no models, so this is no model server"),
            ({"/v1/models": {"data": []}}, errors.ModelNotFound, "lists no models; load one"),
            ({"/v1/models": models("a", "b")}, errors.UsageError, "several models; pass model= one of a, b"),
            ({"/v1/models": (401, {})}, errors.AuthError, "check the API key"),
        ],
    )
    async def test_somebody_else_is_there(self, routes, kind, words):
        async with Stub(**routes).listening() as server:
            client = OpenAIClient(server.url)
            with pytest.raises(kind, match=words.replace("(", r"\(")) as caught:
                await client.connect()
            await client.aclose()
        assert server.url in str(caught.value)

    async def test_a_wrong_model_name_tells_what_there_is(self):
        many = models("llama-3.2-1b", *(f"model-{i}" for i in range(30)))
        async with Stub(**{"/v1/models": many}).listening() as server:
            client = OpenAIClient(server.url, model="llama-3.2-1B")
            with pytest.raises(errors.ModelNotFound, match=r"no model 'llama-3\.2-1B' here; it serves llama-3\.2-1b"):
                await client.connect()
            other = OpenAIClient(server.url, model="zzz")
            with pytest.raises(errors.ModelNotFound, match="model-6 and 23 more"):
                await other.connect()
            await client.aclose()
            await other.aclose()

    async def test_a_verifier_is_no_policy(self):
        routes = {"/v1/models": models("qprm", max_model_len=512), "/tokenize": {"tokens": [1, 2], "count": 2}}
        async with Stub(**routes).listening() as server:
            client = OpenAIClient(server.url)
            with pytest.raises(errors.NotFound, match="does not write text; is it a verifier"):
                await client.connect()
            await client.aclose()


class TestSecrets:
    """API keys never appear in errors."""

    async def test_a_server_that_repeats_the_key(self):
        def repeat(_body, request):
            said = f"bad header {request.headers['Authorization']} and {request.headers['X-Api-Key']}"
            return web.json_response(openai_error(f"{said} and {request.query['api-key']}"), status=400)

        async with Stub(**{"/v1/thing": repeat}).listening() as server:
            endpoint = Endpoint(
                f"{server.url}/v1?api-key=sk-in-query",
                api_key="sk-secret",
                headers={"X-Api-Key": "sk-header"},
                retry=ONCE,
            )
            with pytest.raises(errors.BadRequest) as caught:
                await endpoint.post("/v1/thing", {})
            await endpoint.aclose()
        assert "sk-" not in f"{caught.value}{caught.value!r}{endpoint!r}{caught.value.__cause__}"
        assert str(caught.value).count("***") == 3

    async def test_credentials_in_the_url(self):
        client = OpenAIClient("http://me:sk-secret@127.0.0.1:9/v1?key=sk-secret")
        with pytest.raises(errors.Unreachable) as caught:
            await client.connect()
        await client.aclose()
        said = f"{client!r}{caught.value}{caught.value!r}{caught.value.__cause__}{caught.value.__context__}"
        assert "sk-secret" not in said

    async def test_credentials_in_a_url_that_is_none(self):
        with pytest.raises(errors.UsageError, match="not an http") as caught:
            OpenAIClient("ftp://me:sk-secret@host")
        assert "sk-secret" not in str(caught.value)

    async def test_credentials_in_the_url_are_used(self):
        async with Stub(**{"/v1/thing": {}}).listening() as server:
            endpoint = Endpoint(server.url.replace("//", "//me:pass%20word@"))
            await endpoint.post("/v1/thing", {})
            await endpoint.aclose()
        (_, headers, _, _), *_ = server.requests
        assert headers["Authorization"] == "Basic bWU6cGFzcyB3b3Jk"


class TestTimeouts:
    async def test_a_server_that_says_nothing_is_given_up_soon(self):
        async with Stub(**{"/v1/models": hang}).listening() as server:
            client = OpenAIClient(server.url, timeouts=Timeouts(first=0.05), retry=Retry(attempts=50, first=30.0))
            with pytest.raises(errors.RequestTimeout, match="no answer in time to /v1/models"):
                await client.connect()
            await client.aclose()
        assert client.endpoint.stats.requests == 1

    async def test_a_hung_server_is_asked_again(self):
        async with Stub(**{"/v1/thing": [hang, {"fine": True}]}).listening() as server:
            endpoint = Endpoint(server.url, retry=FAST, timeouts=Timeouts(read=0.05))
            assert await endpoint.post("/v1/thing", {}) == {"fine": True}
            await endpoint.aclose()

    async def test_leaving_closes_the_request(self):
        come, gone = asyncio.Event(), asyncio.Event()

        async def wait(_body, _request):
            come.set()
            try:
                await asyncio.Event().wait()
            finally:
                gone.set()

        async with Stub(**{"/v1/thing": wait}).listening() as server:
            endpoint = Endpoint(server.url)
            task = asyncio.ensure_future(endpoint.post("/v1/thing", {}, units=3))
            await come.wait()
            assert endpoint.limiter.in_use == 3
            task.cancel()
            await asyncio.wait([task])
            assert endpoint.limiter.in_use == 0
            async with asyncio.timeout(20):
                await gone.wait()
            await endpoint.aclose()
