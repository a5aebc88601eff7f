"""The README runs: its Python blocks as they stand, its shell blocks as commands that the parser takes."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from asearch.cli import parser

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(language: str) -> list:
    found = []
    for page in PAGES:
        for i, block in enumerate(
            re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
        ):
            found.append(pytest.param(block, id=f"{page.name}-{i}"))
    return found


@pytest.mark.parametrize("block", blocks("python"))
def test_python_block_compiles(block):
    compile(block, "block", "exec", flags=0x2000)  # PyCF_ALLOW_TOP_LEVEL_AWAIT


@pytest.mark.parametrize("block", blocks("sh"))
def test_commands_are_real(block):
    for line in block.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] == ["asearch"]:
            parser().parse_args(words[1:])  # an unknown flag exits with status 2
        elif words[:1] == ["make"]:
            targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
            assert next(word for word in words[1:] if "=" not in word) in targets
        elif words[:2] == ["python", "-m"]:
            subprocess.run(
                [sys.executable, "-c", f"import importlib.util as u; assert u.find_spec({words[2]!r})"], check=True
            )
