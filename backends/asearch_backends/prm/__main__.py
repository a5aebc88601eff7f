"""The PRM server as a program."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from asearch.families import FAMILIES

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 0 after an orderly stop, 1 if the server cannot run, 2 for wrong usage."""
    options = _parser().parse_args(argv)
    try:
        from asearch_backends.prm.checkpoint import CheckpointError, load_checkpoint
        from asearch_backends.prm.scorer import Scorer
    except ImportError as error:
        return _fail(f"{error.name or error} is missing: pip install 'asearch[prm]'")
    try:
        checkpoint = load_checkpoint(
            options.model,
            family=FAMILIES[options.family] if options.family else None,
            device=options.device,
            dtype=options.dtype,
            max_length=options.max_model_len,
        )
        asyncio.run(_serve(options, Scorer(checkpoint, max_batch_tokens=options.max_batch_tokens)))
    except (CheckpointError, RuntimeError) as error:  # torch says "out of memory" and "no such device" by RuntimeError
        return _fail(str(error).strip().splitlines()[0])
    except OSError as error:
        return _fail(f"cannot listen on {options.host}:{options.port}: {error.strerror or error}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m asearch_backends.prm",
        description="Serve a process reward model over HTTP. Prints one JSON line when it is ready.",
    )
    add = parser.add_argument
    add("--model", required=True, metavar="ID|DIR", help="a Hugging Face id, or a folder")
    add("--family", choices=sorted(f.name for f in FAMILIES.values() if f.read != "outcome"), help="how it reads steps")
    add("--served-model-name", help="the name in requests; the default is the id, or the folder's name")
    add("--host", default="127.0.0.1")
    add("--port", type=int, default=0, help="0 (the default) takes a free one")
    add("--device", default="auto", help="cpu, cuda, cuda:1 ...; auto (the default) takes CUDA where there is any")
    add("--dtype", default="auto", choices=["auto", "float32", "bfloat16", "float16"], help="auto: bfloat16 on CUDA")
    add("--max-model-len", type=_positive, help="tokens of a sequence; the default is the model's own")
    add("--max-batch-tokens", type=_positive, default=16_384, help="padded tokens of one forward pass")
    add("--max-body-mb", type=_positive, default=16, help="size of a request")
    add(
        "--api-key",
        default=os.environ.get("ASEARCH_PRM_API_KEY"),
        help="ask for this bearer token; also by environment",
    )
    add("--exit-with-parent", action="store_true", help="stop when standard input ends, too")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {number}")
    return number


async def _serve(options: argparse.Namespace, scorer: object) -> None:
    from asearch_backends.prm.scorer import Scorer
    from asearch_backends.prm.server import Server, listening

    assert isinstance(scorer, Scorer)  # noqa: S101 - torch is imported behind main(), so the type is named here
    name = options.served_model_name or _name_of(options.model)
    server = Server(scorer, name=name, api_key=options.api_key, max_body=options.max_body_mb * 2**20)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if options.exit_with_parent:
        threading.Thread(target=_wait_for_end_of_input, args=(loop, stop), name="parent", daemon=True).start()
    async with listening(server, options.host, options.port) as url:
        family = scorer.checkpoint.family.name
        sys.stdout.write(json.dumps({"url": url, "model": name, "family": family}) + "\n")
        sys.stdout.flush()
        await stop.wait()


def _name_of(model: str) -> str:
    """The hub id, or the name of the folder."""
    folder = Path(model)
    return folder.resolve().name if folder.is_dir() else model


def _wait_for_end_of_input(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    """A parent that dies closes its end of the pipe, however it dies."""
    while os.read(0, 4096):
        pass
    loop.call_soon_threadsafe(stop.set)


def _fail(message: str) -> int:
    sys.stderr.write(f"asearch PRM server: {message}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
