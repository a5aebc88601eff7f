"""Errors of huggingface_hub's HTTP libraries, past and present, are known by their names."""

import pytest

from asearch.client.hub import generate_error, root_of
from asearch.errors import ProtocolError, RequestTimeout, ServerError, TLSFailed, Unreachable, UsageError
from asearch.transport import Endpoint


def named(name, *bases):
    return type(name, bases or (Exception,), {})


TRANSPORT = named("TransportError")
CLIENT = named("ClientError")


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (named("ConnectError", TRANSPORT)("All connection attempts failed"), Unreachable),
        (named("ConnectTimeout", named("TimeoutException", TRANSPORT))(), Unreachable),
        (named("ClientConnectorError", CLIENT)(), Unreachable),
        (named("ConnectError", TRANSPORT)("[SSL: CERTIFICATE_VERIFY_FAILED]"), TLSFailed),
        (named("ReadTimeout", named("TimeoutException", TRANSPORT))(), RequestTimeout),
        (named("InferenceTimeoutError", TimeoutError)(), RequestTimeout),
        (named("RemoteProtocolError", TRANSPORT)(), ServerError),
        (named("ServerDisconnectedError", CLIENT)(), ServerError),
        (ConnectionResetError(), ServerError),
        (named("JSONDecodeError", ValueError)(), ProtocolError),
        (KeyError("generated_text"), ProtocolError),
    ],
)
def test_by_name(failure, expected):
    endpoint = Endpoint("http://localhost:8080")
    error = generate_error(endpoint, failure)
    assert type(error) is expected
    assert error.endpoint == endpoint.url


def test_what_is_no_matter_of_the_server_is_left_alone():
    assert generate_error(Endpoint("http://localhost:8080"), MemoryError()) is None


@pytest.mark.parametrize("url", ["http://h:1", "http://h:1/", "http://h:1/generate"])
def test_root(url):
    assert root_of(url) == "http://h:1"


@pytest.mark.parametrize("model", [None, "meta-llama/Llama-3.2-1B-Instruct"])
def test_a_hub_client_without_a_url(model):
    with pytest.raises(UsageError, match="URL of a TGI server"):
        root_of(model)
