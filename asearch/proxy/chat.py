"""A chat request and its answer, whole or as a stream."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson
from aiohttp import web

from asearch.proxy import wire
from asearch.proxy.errors import ApiError
from asearch.proxy.replies import Replies
from asearch.proxy.searches import order_of
from asearch.proxy.stream import EventStream, Thoughts
from asearch.serving import BodyError, read_body

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asearch.proxy.catalogue import Catalogue
    from asearch.proxy.options import ProxyOptions
    from asearch.proxy.searches import Order, Searches, Tell
    from asearch.proxy.wire import ChatRequest

HASTE = 0.9  # of the client's patience: the answer must still travel
READ_TIMEOUT = "X-Stainless-Read-Timeout"  # how long the official clients wait for an answer, in seconds


@dataclass(frozen=True, slots=True)
class Asked:
    """A chat request, understood.

    Args:
        request: as it came.
        order: what is to be searched.
        deadline: in the time of the event loop.
        replies: makes the answer.
        id: of the request.
    """

    request: ChatRequest
    order: Order
    deadline: float
    replies: Replies
    id: str

    def listener(self, thoughts: Thoughts) -> Tell | None:
        """Who is told of progress, if it was asked for."""
        return thoughts.tell if self.request.options.progress else None


async def understood(http: web.Request, name: str, catalogue: Catalogue, options: ProxyOptions) -> Asked:
    """Read a chat request.

    Args:
        http: the request.
        name: its id.
        catalogue: of models.
        options: limits.

    Raises:
        ApiError: it cannot be honoured.
    """
    arrived = asyncio.get_running_loop().time()
    request = wire.parse(await _body(http))
    model = catalogue.canonical(request.model)
    if (request.n or 1) > min(options.max_choices, options.max_concurrent):
        raise ApiError(
            f"n counts choices here, each a search of its own: at most {min(options.max_choices, options.max_concurrent)}. "
            "The budget of a search is a part of the model's name",
            param="n",
        )
    seconds = patience(request, http, options.max_seconds)
    wanted = request.options
    return Asked(
        request,
        order_of(request, catalogue, seconds=seconds),
        arrived + seconds,
        Replies(model, f"chatcmpl-{name}", details=wanted.details, tree=wanted.tree),
        name,
    )


async def answered(_http: web.Request, asked: Asked, searches: Searches) -> web.Response:
    """Search, and answer in one piece."""
    thoughts = Thoughts()
    async with searches.begun(asked.order, asked.deadline, asked.listener(thoughts)) as task:
        results = await searches.results(task)
    said = thoughts.take()
    lines = [said.get(i, "") for i in range(len(results))]
    return json_reply(asked.replies.completion(results, asked.order.seeds, lines))


async def streamed(http: web.Request, asked: Asked, searches: Searches) -> web.StreamResponse:
    """Search, and answer as a stream."""
    thoughts, stream = Thoughts(), EventStream(http, {"X-Request-Id": f"req-{asked.id}"})
    options = asked.request.stream_options
    try:
        async with searches.begun(asked.order, asked.deadline, asked.listener(thoughts)) as task:
            await _report(stream, task, thoughts, asked)
            results = await searches.results(task)
        if not stream.begun:
            await stream.say(*openings(asked))
        for i, (result, seed) in enumerate(zip(results, asked.order.seeds, strict=True)):
            await stream.say(*(asked.replies.chunk(i, {"content": text}) for text in pieces(result.text)))
            await stream.say(asked.replies.end(i, result, seed))
        if options is not None and options.include_usage:
            await stream.say(asked.replies.usage(results))
        await stream.end()
    except ApiError as refusal:
        if not stream.begun:
            raise
        await stream.fail(refusal)
    except (ConnectionError, TimeoutError):  # nobody reads any more
        stream.abort()
    return stream.response


async def _report(stream: EventStream, task: asyncio.Task[Any], thoughts: Thoughts, asked: Asked) -> None:
    """What the searches tell, as it comes, until they end."""
    while not task.done():
        moved = await thoughts.wait(task)
        lines = thoughts.take()
        if not stream.begun and (lines or not moved):
            await stream.say(*openings(asked))
        if lines:
            await stream.say(*(asked.replies.chunk(i, {"reasoning_content": text}) for i, text in lines.items()))
        elif not moved:
            await stream.still_here()


async def _body(http: web.Request) -> bytes:
    """The body of a request, in JSON by its own account: a web page cannot send that anywhere unasked."""
    if http.content_type != "application/json":
        raise ApiError("the body must be JSON, with Content-Type: application/json", status=415)
    try:
        return await read_body(http)
    except BodyError as failure:
        raise ApiError(str(failure), status=failure.status) from None


def patience(request: ChatRequest, http: web.Request, most: float) -> float:
    """Seconds for the whole request: its own timeout, or a little less than the official clients say they will wait."""
    if request.timeout is not None:
        return min(request.timeout, most)
    try:
        said = float(http.headers.get(READ_TIMEOUT, ""))
    except ValueError:
        return most
    return min(HASTE * said, most) if said > 0 and not request.stream else most


def openings(asked: Asked) -> list[dict[str, Any]]:
    """The first chunk of each choice."""
    return [asked.replies.chunk(i, {"role": "assistant", "content": ""}) for i in range(len(asked.order.seeds))]


def pieces(text: str) -> list[str]:
    """A solution as a stream of its steps."""
    parts = text.strip().split("\n\n")
    return [part + "\n\n" for part in parts[:-1]] + parts[-1:]


def json_reply(body: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """A reply in JSON."""
    return web.Response(body=orjson.dumps(body), status=status, headers=headers, content_type="application/json")
