"""The README runs: its programs give what stands beside them, its shell blocks are commands that the parser takes."""

import asyncio
import inspect
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


def test_the_first_program_prints_what_stands_below_it(tmp_path):
    text = (ROOT / "README.md").read_text()
    program, output = re.search(r"^```python\n(.*?)^```\s+^```text\n(.*?)^```", text, re.MULTILINE | re.DOTALL).groups()
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert numbers(done.stdout) == pytest.approx(numbers(output), abs=0.02), (
        done.stderr
    )  # kernels differ in the last bits
    assert re.sub(NUMBER, "", done.stdout) == re.sub(NUMBER, "", output)


NUMBER = r"-?\d+(?:\.\d+)?"


def numbers(text: str) -> list[float]:
    return [float(number) for number in re.findall(NUMBER, text)]


def readme_functions():
    """The async functions that the README's other programs define."""
    for block in re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL):
        for name in re.findall(r"^async def (\w+)\(question", block, re.MULTILINE):
            yield pytest.param(block, name, id=name)


@pytest.mark.parametrize(("block", "name"), list(readme_functions()))
def test_functions_of_the_readme_answer(block, name, servers, capsys):
    names = {}
    exec(block.replace("http://localhost:8000", servers.policy).replace("http://localhost:8001", servers.prm), names)
    assert inspect.iscoroutinefunction(names[name])
    outcome = asyncio.run(names[name]("What is $3 + 4 \\cdot 5 - 2$?"))
    assert getattr(outcome, "answer", outcome) == "21"


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
