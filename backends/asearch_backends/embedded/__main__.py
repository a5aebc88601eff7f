"""The embedded server as a program: serve a model, or print problems for it."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING

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
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=_port, default=0, help="0 (the default) takes a free one")
    parser.add_argument("--served-model-name", help="the name in requests; the default is asearch-policy and so on")
    parser.add_argument("--max-num-seqs", type=_positive, default=128, help="sequences that run at once")
    parser.add_argument("--max-model-len", type=_positive, help="tokens of a sequence; the default is the model's own")
    parser.add_argument("--max-num-queued-reqs", type=_positive, help="refuse with 503 what would queue beyond this")
    parser.add_argument("--cache-mb", type=_positive, default=256, help="memory for the prefix cache")
    parser.add_argument("--threads", type=_positive, default=1, help="threads of the matrix products")
    parser.add_argument("--api-key", help="ask for this bearer token on /v1 routes")
    parser.add_argument("--exit-with-parent", action="store_true", help="stop when standard input ends, too")
    return parser


def _problems_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m asearch_backends.embedded problems",
        description="Print problems with their answers, as JSON lines.",
    )
    parser.add_argument("--n", type=_positive, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--split", choices=("train", "validation", "test"), default="test")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {number}")
    return number


def _port(text: str) -> int:
    number = int(text)
    if not 0 <= number < 2**16:
        raise argparse.ArgumentTypeError(f"must be between 0 and 65535, got {number}")
    return number


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
        stop = asyncio.Event()
        _stop_on_signals(stop)
        if options.exit_with_parent:
            _stop_at_end_of_input(stop)
        await run(service, host=options.host, port=options.port, ready=_announce, stop=stop)

    try:
        asyncio.run(until_stopped())
    except CheckpointError as error:
        return _fail(str(error))
    except MemoryError:
        return _fail("not enough memory: lower --max-model-len or --max-num-seqs")
    except OSError as error:
        return _fail(f"cannot listen on {options.host}:{options.port}: {error.strerror or error}")
    return 0


def _announce(url: str, model: str) -> None:
    sys.stdout.write(json.dumps({"url": url, "model": model}) + "\n")
    sys.stdout.flush()


def _stop_on_signals(stop: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)


def _stop_at_end_of_input(stop: asyncio.Event) -> None:
    """A parent that dies closes its end of the pipe, however it dies."""
    loop = asyncio.get_running_loop()

    def wait() -> None:
        while os.read(0, 4096):
            pass
        loop.call_soon_threadsafe(stop.set)

    threading.Thread(target=wait, name="parent", daemon=True).start()


def _fail(message: str) -> int:
    sys.stderr.write(f"asearch embedded server: {message}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
