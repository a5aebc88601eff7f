"""The worker process: reads requests from stdin, answers on stdout, one at a time (`python -m asearch.workers`).

Frames are a length (4 bytes, big-endian) and JSON. A second thread reads stdin, so that the process ends with its parent
even in the middle of a computation.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import struct
import sys
import threading
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

HEADER = struct.Struct(">I")
MAX_FRAME = 4 * 1024 * 1024


def pack(message: Any) -> bytes:
    """A message as one frame. JSON escapes what is not ASCII, so lone surrogates pass unharmed."""
    body = json.dumps(message).encode("ascii")
    return HEADER.pack(len(body)) + body


def serve(memory_mb: int) -> None:
    """Answer requests until stdin ends."""
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not get between the frames
    operations = _operations()
    _forbid_evaluation()
    _limit_memory(memory_mb)
    requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(sys.stdin.buffer, requests), daemon=True).start()
    _send(output, {"ready": os.getpid()})
    while True:
        operation, arguments = requests.get()
        try:
            _send(output, {"value": operations[operation](*arguments)})
        except MemoryError:  # what is left of this process is not to be trusted
            _lift_memory()
            _send(output, {"fatal": "out of memory"})
            os._exit(3)
        except Exception as failure:  # noqa: BLE001 - what sympy makes of a hostile answer is a failure, not an end
            _send(output, {"error": f"{type(failure).__name__}: {failure}"[:500]})


def _operations() -> dict[str, Callable[..., Any]]:
    from asearch import answers  # the parent imports this module for the frames alone
    from asearch.answers import grading, symbolic  # noqa: F401 - loaded before the memory cap and the deadline

    def form(text: str) -> list[Any]:
        found = answers.canonical(text)
        return [found.kind, found.key, list(found.also), found.probe]

    return {"canonical": form, "same": answers.same, "grade": answers.grade, "pid": os.getpid}


def _forbid_evaluation() -> None:
    """Make sympy's way from strings to Python code fail in this process, should any library ever take it.

    First one proof of each kind: sympy imports parts of itself only then, and those evaluate constants of their own.
    """
    import sympy
    import sympy.parsing.sympy_parser as parser

    from asearch import answers

    answers.same(r"\sin^2 x + \cos^2 x", "1")
    answers.canonical("x^2 < 2x + 1")

    def refuse(text: str, *_: Any, **__: Any) -> Any:
        raise sympy.SympifyError(text)

    parser.parse_expr = parser.eval_expr = refuse


def _limit_memory(memory_mb: int) -> None:
    with contextlib.suppress(ImportError, OSError, ValueError):  # a platform without limits has its deadline still
        import resource  # not on every platform

        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        cap = memory_mb * 1024 * 1024
        resource.setrlimit(resource.RLIMIT_AS, (cap if hard == resource.RLIM_INFINITY else min(cap, hard), hard))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _lift_memory() -> None:
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource  # not on every platform

        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))


def _listen(stream: IO[bytes], requests: queue.SimpleQueue[Any]) -> None:
    while len(header := stream.read(HEADER.size)) == HEADER.size:
        requests.put(json.loads(stream.read(HEADER.unpack(header)[0])))
    os._exit(0)  # the parent has gone, or wants no more; the main thread may be busy for ever


def _send(output: IO[bytes], message: Any) -> None:
    output.write(pack(message))
    output.flush()
