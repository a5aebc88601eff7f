"""Real vLLM servers on free loopback ports, always ended with everything that they started."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

MODELS = Path(__file__).resolve().parents[2] / "backends" / "asearch_backends" / "embedded" / "models"
START_SECONDS = 400.0
STOP_SECONDS = 15.0
ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
}


class VllmServer:
    """A server that is on its way, or there."""

    def __init__(self, process: subprocess.Popen, url: str, log: Path) -> None:
        self._process, self._url, self._log = process, url, log
        self._ready = False

    @property
    def url(self) -> str:
        """Where it answers; waits until it does."""
        if not self._ready:
            wait_until_ready(self._process, self._url, self._log)
            self._ready = True
        return self._url


@contextmanager
def vllm_server(model: Path, name: str, logs: Path, *options: str) -> Iterator[VllmServer]:
    """Serve a checkpoint folder under `name` for the time of the block, which need not wait for it yet."""
    port = free_port()
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model)]
    command += ["--served-model-name", name, "--host", "127.0.0.1", "--port", str(port), "--dtype", "float32"]
    # Blocks for 64 solutions of full length: what fits into the one GiB that vLLM would take at least is never needed.
    command += ["--max-model-len", "512", "--enforce-eager", "--block-size", "32", "--num-gpu-blocks-override", "1024"]
    command += options
    log = logs / f"{name}.log"
    with log.open("w") as out:
        # A session of its own: its process group is the server, its engine and its workers, and nothing else.
        process = subprocess.Popen(
            command, env={**os.environ, **ENVIRONMENT}, stdout=out, stderr=out, start_new_session=True
        )
        note = logs / f"{process.pid}.group"
        note.touch()  # for run.py, should this very process be killed
        try:
            yield VllmServer(process, f"http://127.0.0.1:{port}", log)
        finally:
            end_group(process.pid)
            process.wait()
            note.unlink()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until_ready(process: subprocess.Popen, url: str, log: Path) -> None:
    """Until /health answers; a server that dies first shows the end of its log."""
    give_up = time.monotonic() + START_SECONDS
    while time.monotonic() < give_up:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=10):
                return
        except OSError:
            pass
        try:
            process.wait(timeout=0.5)
        except subprocess.TimeoutExpired:
            continue
        raise RuntimeError(f"vLLM did not start:\n{log.read_text()[-4000:]}")
    raise RuntimeError(f"vLLM was not ready within {START_SECONDS:.0f} s:\n{log.read_text()[-4000:]}")


def end_group(group: int) -> None:
    """End a whole process group: politely, and after a while not. The engine outlives its server otherwise."""
    give_up = time.monotonic() + STOP_SECONDS
    send = signal.SIGTERM
    while group_runs(group):
        if time.monotonic() > give_up:
            send = signal.SIGKILL
        try:
            os.killpg(group, send)
        except (ProcessLookupError, PermissionError):
            return
        time.sleep(0.2)


def group_runs(group: int) -> bool:
    """Whether a process of the group is alive; one that has ended and waits to be seen is not."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _parent, its_group = stat.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue  # gone since the listing
        if int(its_group) == group and state not in "ZX":
            return True
    return False
