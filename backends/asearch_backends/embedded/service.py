"""One model, its engine and its HTTP server, put together."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from asearch_backends.embedded.checkpoint import SERVED_NAMES, CheckpointError, find_folder, load_checkpoint
from asearch_backends.embedded.engine import Engine
from asearch_backends.embedded.protocol import Limits
from asearch_backends.embedded.server import Server, listening
from asearch_backends.embedded.tokenizer import Tokenizer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


@dataclass(frozen=True, slots=True)
class ServiceOptions:
    """What the command line may set."""

    model: str
    served_model_name: str | None = None
    max_num_seqs: int = 128
    max_model_len: int | None = None
    max_num_queued_reqs: int | None = None
    cache_bytes: int = 256 * 2**20
    api_key: str | None = None


@asynccontextmanager
async def running_server(options: ServiceOptions) -> AsyncIterator[tuple[Server, Engine]]:
    """Load the model and run its engine; the server is not listening yet."""
    folder = find_folder(options.model)
    checkpoint = load_checkpoint(folder)
    tokenizer = Tokenizer(folder, checkpoint.config.vocab_size)
    own_length = checkpoint.config.max_position_embeddings
    length = options.max_model_len or own_length
    if length > own_length:
        raise CheckpointError(f"--max-model-len {length} is more than the {own_length} positions of the model")
    loop = asyncio.get_running_loop()
    engine = Engine(
        checkpoint,
        tokenizer,
        max_num_seqs=options.max_num_seqs,
        max_model_len=length,
        cache_bytes=options.cache_bytes,
        deliver=lambda events: _hand_over(loop, events),
    )
    name = options.served_model_name or SERVED_NAMES.get(options.model) or folder.resolve().name
    limits = Limits(length, checkpoint.config.vocab_size, checkpoint.sampling_defaults)
    server = Server(
        engine,
        tokenizer,
        limits,
        name=name,
        root=options.model,
        max_queued=options.max_num_queued_reqs,
        api_key=options.api_key,
    )
    engine.start()
    try:
        yield server, engine
    finally:
        engine.stop()


async def run(
    options: ServiceOptions, *, host: str, port: int, ready: Callable[[str, str], None], stop: asyncio.Event
) -> None:
    """Serve until `stop` is set; `ready` is told the address and the model's name."""
    async with running_server(options) as (server, engine), listening(server, host, port) as url:
        ready(url, server.name)
        await stop.wait()
        engine.stop()  # what still runs is answered with an error before the connections close


def _hand_over(loop: asyncio.AbstractEventLoop, events: list[Callable[[], None]]) -> None:
    """Run what the engine reports on the event loop, one call for a whole step."""

    def dispatch() -> None:
        for event in events:
            event()

    if not loop.is_closed():
        loop.call_soon_threadsafe(dispatch)
