"""Run the suite against real vLLM: `python tests/vllm/run.py [pytest arguments]`.

Makes `.venv-vllm` on the first run (about three minutes), serves checkpoints, and stops every server whatever happens.
Where vLLM cannot be installed it says so and leaves with status 0; with CI=true that is a failure.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from install import NotInstallable, ensure_packages, ensure_vllm
from vllm_servers import end_group

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ["pytest>=8.3", "pytest-asyncio>=0.25", "pytest-timeout>=2.3", "hypothesis>=6.100"]


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what follows `finally` is done
    folder = ROOT / ".venv-vllm"
    try:
        python = ensure_vllm(folder)
        ensure_packages(python, project_needs())
    except NotInstallable as why:
        sys.stderr.write(f"the real-vLLM suite did not run: {why}\n")
        must = os.environ.get("CI") == "true"
        sys.stdout.write("0 passed, 1 failed\n" if must else "0 passed, 0 failed, 1 skipped\n")
        return int(must)
    return run_tests(python, sys.argv[1:])


def project_needs() -> list[str]:
    """What the library, its embedded servers and the tests need, as pyproject.toml says."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return [*project["dependencies"], *project["optional-dependencies"]["embedded"], *TOOLS]


def run_tests(python: Path, arguments: list[str]) -> int:
    with tempfile.TemporaryDirectory(prefix="asearch-vllm-") as logs:
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "backends")]),
            "ASEARCH_VLLM_LOGS": logs,
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
        }
        tests = arguments or ["tests/vllm", "tests/prm"]
        # The last -m wins: an ordinary run leaves the marked tests out.
        command = [
            str(python),
            "-m",
            "pytest",
            "-p",
            "no:cacheprovider",
            "--durations=12",
            "-m",
            "vllm or not vllm",
            *tests,
        ]
        suite = subprocess.Popen(command, cwd=ROOT, env=environment)
        try:
            return suite.wait()
        finally:
            stop(suite)
            for leftover in Path(logs).glob("*.group"):
                end_group(int(leftover.stem))


def stop(suite: subprocess.Popen) -> None:
    """Give a suite that was cut short the time to stop its servers itself."""
    if suite.poll() is None:
        suite.send_signal(signal.SIGINT)
        try:
            suite.wait(timeout=30)
        except subprocess.TimeoutExpired:
            suite.kill()
            suite.wait()


if __name__ == "__main__":
    sys.exit(main())
