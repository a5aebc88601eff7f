"""The embedded server as a program: serve a model, or print problems for it."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import sys
from typing import TYPE_CHECKING

from asearch_backends.program import add_address, announce, cannot_listen, fail, positive, stop_event

if TYPE_CHECKING:
    from collections.abc import Sequence

_THREAD_VARIABLES = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 0 after an orderly stop, 1 if the server cannot run, 2 for wrong usage."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    if arguments[:1] == ["problems"]:
        return _print_problems(_problems_parser().parse_args(arguments[1:]))
    options = _server_parser().parse_args(arguments)
    for variable in _THREAD_VARIABLES:
        os.environ[variable] = str(options.threads)
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(message)s")
    return _serve(options)


def _server_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m asearch_backends.embedded",
        description="Serve one small model on this CPU over vLLM's HTTP protocol. Prints one JSON line when it is ready.",
        epilog="`problems --help` tells how to print problems that the shipped models are made for.",
    )
    parser.add_argument("--model", default="policy", metavar="policy|policy-large|prm|DIR", help="what to serve")
    add_address(parser)
    parser.add_argument("--served-model-name", help="the name in requests; the default is asearch-policy and so on")
    parser.add_argument("--max-num-seqs", type=positive, default=128, help="sequences that run at once")
    parser.add_argument("--max-model-len", type=positive, help="tokens of a sequence; the default is the model's own")
    parser.add_argument("--max-num-queued-reqs", type=positive, help="refuse with 503 what would queue beyond this")
    parser.add_argument("--cache-mb", type=positive, default=256, help="memory for the prefix cache")
    parser.add_argument("--threads", type=positive, default=1, help="threads of the matrix products")
    parser.add_argument("--api-key", help="ask for this bearer token on /v1 routes")
    return parser


def _problems_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m asearch_backends.embedded problems",
        description="Print problems with their answers, as JSON lines.",
    )
    parser.add_argument("--n", type=positive, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--split", choices=("train", "validation", "test"), default="test")
    return parser


def _print_problems(options: argparse.Namespace) -> int:
    from asearch_backends.embedded.task import generate

    try:
        for problem in generate(options.seed, options.n, options.split):
            sys.stdout.write(json.dumps({"problem": problem.text, "answer": problem.answer}) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _serve(options: argparse.Namespace) -> int:
    try:
        # numpy reads the thread variables when it is imported, so it must not be imported before they are set.
        from asearch_backends.embedded.checkpoint import CheckpointError
        from asearch_backends.embedded.service import ServiceOptions, run
    except ImportError as error:
        return _fail(f"{error.name or error} is missing: pip install 'asearch[embedded]'")

    service = ServiceOptions(
        model=options.model,
        served_model_name=options.served_model_name,
        max_num_seqs=options.max_num_seqs,
        max_model_len=options.max_model_len,
        max_num_queued_reqs=options.max_num_queued_reqs,
        cache_bytes=options.cache_mb * 2**20,
        api_key=options.api_key,
    )

    # The engine computes without pause; the event loop should not wait 5 ms for its turn each time.
    sys.setswitchinterval(0.001)

    async def until_stopped() -> None:
        stop = stop_event(with_parent=options.exit_with_parent)
        await run(service, host=options.host, port=options.port, ready=_ready, stop=stop)

    try:
        asyncio.run(until_stopped())
    except CheckpointError as error:
        return _fail(str(error))
    except MemoryError:
        return _fail("not enough memory: lower --max-model-len or --max-num-seqs")
    except OSError as error:
        return _fail(cannot_listen(options.host, options.port, error))
    return 0


def _ready(url: str, model: str) -> None:
    announce(url=url, model=model)


def _fail(message: str) -> int:
    return fail("asearch embedded server", message)


if __name__ == "__main__":
    sys.exit(main())
