"""The PRM server as a program."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from asearch.families import FAMILIES
from asearch_backends.program import add_address, announce, cannot_listen, fail, positive, stop_event

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
        return _fail(cannot_listen(options.host, options.port, error))
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
    add_address(parser)
    add("--device", default="auto", help="cpu, cuda, cuda:1 ...; auto (the default) takes CUDA where there is any")
    add("--dtype", default="auto", choices=["auto", "float32", "bfloat16", "float16"], help="auto: bfloat16 on CUDA")
    add("--max-model-len", type=positive, help="tokens of a sequence; the default is the model's own")
    add("--max-batch-tokens", type=positive, default=16_384, help="padded tokens of one forward pass")
    add("--max-body-mb", type=positive, default=16, help="size of a request")
    add(
        "--api-key",
        default=os.environ.get("ASEARCH_PRM_API_KEY"),
        help="ask for this bearer token; also by environment",
    )
    return parser


async def _serve(options: argparse.Namespace, scorer: object) -> None:
    from asearch_backends.prm.scorer import Scorer
    from asearch_backends.prm.server import Server, listening

    assert isinstance(scorer, Scorer)  # noqa: S101 - torch is imported behind main(), so the type is named here
    name = options.served_model_name or _name_of(options.model)
    server = Server(scorer, name=name, api_key=options.api_key, max_body=options.max_body_mb * 2**20)
    stop = stop_event(with_parent=options.exit_with_parent)
    async with listening(server, options.host, options.port) as url:
        announce(url=url, model=name, family=scorer.checkpoint.family.name)
        await stop.wait()


def _name_of(model: str) -> str:
    """The hub id, or the name of the folder."""
    folder = Path(model)
    return folder.resolve().name if folder.is_dir() else model


def _fail(message: str) -> int:
    return fail("asearch PRM server", message)


if __name__ == "__main__":
    sys.exit(main())
