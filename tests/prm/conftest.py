"""Tiny checkpoints for the tests of verifiers; what needs them is skipped without torch and transformers."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
if str(HERE) not in sys.path:
    sys.path.insert(0, str(HERE))

import tiny_checkpoints  # noqa: E402 - a neighbour, found by the lines above

KINDS = ("llama", "mistral", "qwen_prm", "qwen_tokens", "skywork")


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny random checkpoints, one folder per architecture."""
    if find_spec("torch") is None or find_spec("transformers") is None:
        pytest.skip("needs torch and transformers: pip install 'asearch[prm]'")
    folder = tmp_path_factory.mktemp("checkpoints")
    for kind in KINDS:
        getattr(tiny_checkpoints, kind)(folder / kind)
    return folder
