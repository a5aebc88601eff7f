"""README and docs run: programs give what stands beside them, commands are ones that their parsers take, data parses."""

import ast
import asyncio
import inspect
import itertools
import json
import re
import shlex
import subprocess
import sys
import urllib.parse
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

import asearch
from asearch.cli import parser

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LANGUAGES = {"", "python", "sh", "console", "text", "yaml", "json"}
NUMBER = r"-?\d+(?:\.\d+)?"
TOP_LEVEL_AWAIT = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
# Options of vLLM in the docs; tests/vllm holds its own parser against those of the compose files.
VLLM_OPTIONS = {
    "port",
    "served-model-name",
    "max-model-len",
    "gpu-memory-utilization",
    "generation-config",
    "runner",
    "pooler-config",
}
# Programs of the system in the docs, which need no check.
PLAIN = {"cd", "cp", "export", "git", "source", "pip"}
COMPOSE_FLAGS = {"--detach", "--follow", "--build"}


def blocks(language: str) -> list:
    """The fenced blocks of a language, named by page and place; with the output that stands right below, if any."""
    found = []
    for page in PAGES:
        all_blocks = list(BLOCK.finditer(page.read_text()))
        for i, block in enumerate(all_blocks):
            if block[1] != language:
                continue
            after = all_blocks[i + 1] if i + 1 < len(all_blocks) else None
            shown = (
                after[2]
                if after and after[1] == "text" and not after.string[block.end() : after.start()].strip()
                else None
            )
            found.append(pytest.param(block[2], shown, id=f"{page.name}-{i}"))
    return found


def is_program(block: str) -> bool:
    """It does something by itself: runs a coroutine, or prints."""
    return bool(re.search(r"^(asyncio\.run|print)\(", block, re.MULTILINE))


def numbers(text: str) -> list[float]:
    return [float(number) for number in re.findall(NUMBER, text)]


@pytest.fixture(scope="module")
def proxy(servers):
    """`asearch serve` on the embedded servers, for the programs that talk to it."""
    command = [sys.executable, "-m", "asearch", "serve", "--policy", servers.policy, "--prm", servers.prm]
    with subprocess.Popen([*command, "--port", "0", "--json"], stdout=subprocess.PIPE, text=True) as process:
        try:
            yield json.loads(process.stdout.readline())["url"]
        finally:
            process.terminate()


@pytest.fixture
def placed(servers, request):
    """Replaces the addresses of the docs by those of running servers."""

    def replace(block: str) -> str:
        if "localhost:8080" in block:
            block = block.replace("http://localhost:8080", request.getfixturevalue("proxy"))
        return block.replace("http://localhost:8000", servers.policy).replace("http://localhost:8001", servers.prm)

    return replace


def skip_without_packages(block: str) -> None:
    for node in ast.walk(compile(block, "block", "exec", TOP_LEVEL_AWAIT | ast.PyCF_ONLY_AST)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module] if isinstance(node, ast.ImportFrom) else []
        for name in names:
            if find_spec(name.split(".")[0]) is None:
                pytest.skip(f"needs {name}")


def test_every_block_says_what_it_is():
    for page in PAGES:
        for block in BLOCK.finditer(page.read_text()):
            assert block[1] in LANGUAGES, f"{page.name}: {block[0][:60]}"


@pytest.mark.parametrize(("block", "shown"), [p for p in blocks("python") if is_program(p.values[0])])
def test_programs_run_and_print_what_stands_below_them(block, shown, placed, tmp_path):
    skip_without_packages(block)
    done = subprocess.run(
        [sys.executable, "-c", placed(block)], capture_output=True, text=True, cwd=tmp_path, check=False, timeout=200
    )
    assert done.returncode == 0, done.stderr
    if shown is not None:
        assert re.sub(NUMBER, "", done.stdout) == re.sub(NUMBER, "", shown)
        assert numbers(done.stdout) == pytest.approx(numbers(shown), abs=0.02)  # kernels differ in the last bits


@pytest.mark.parametrize(("block", "shown"), [p for p in blocks("python") if not is_program(p.values[0])])
def test_other_python_is_sound(block, shown, placed, tmp_path, monkeypatch):
    """What defines something is carried out, so that its imports and calls are real; what awaits is compiled."""
    skip_without_packages(block)
    code = compile(placed(block), "block", "exec", TOP_LEVEL_AWAIT)
    if not code.co_flags & inspect.CO_COROUTINE:
        monkeypatch.chdir(tmp_path)
        for name in ("HF_TOKEN", "OPENAI_API_KEY"):
            monkeypatch.setenv(name, "none")
        exec(code, {"asearch": asearch, "__name__": "block"})


def answering_functions():
    """The async functions of README and docs that take a question and know by themselves whom to ask."""
    for param in blocks("python"):
        for name in re.findall(r"^async def (\w+)\(question: str\)", param.values[0], re.MULTILINE):
            yield pytest.param(param.values[0], name, id=f"{param.id}-{name}")


@pytest.mark.parametrize(("block", "name"), list(answering_functions()))
@pytest.mark.filterwarnings("ignore")  # those of the frameworks
def test_functions_that_answer_do(block, name, placed):
    skip_without_packages(block)
    names = {"__name__": "block"}
    exec(placed(block), names)
    assert inspect.iscoroutinefunction(names[name])
    outcome = asyncio.run(names[name]("What is $3 + 4 \\cdot 5 - 2$?"))
    assert re.search(r"\b21\b", str(getattr(outcome, "answer", outcome)))


def commands(block: str) -> list[list[str]]:
    """The commands of a shell block, without comments, prompts and assignments before them."""
    found = []
    for line in block.replace("\\\n", " ").splitlines():
        words = shlex.split(line.removeprefix("$ "), comments=True)
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            words.pop(0)
        if words:
            found.append(words)
    return found


@pytest.mark.parametrize(("block", "shown"), blocks("sh"))
def test_commands_are_real(block, shown):
    for words in commands(block):
        check_command([Path(words[0]).name, *words[1:]])


@pytest.mark.parametrize(
    "line", ["asearch solve x --no-such-option", "docker compose --profile gpu up", "make tea", "frobnicate"]
)
def test_commands_that_are_not_are_found(line):
    with pytest.raises((AssertionError, SystemExit)):
        check_command(shlex.split(line))


def check_command(words: list[str]) -> None:
    program = words[0]
    checks = {"asearch": check_asearch, "make": check_make, "python": check_python, "docker": check_docker}
    checks |= {"curl": check_curl, "vllm": check_vllm}
    if program in checks:
        checks[program](words[1:])
    else:
        assert program in PLAIN, f"nobody checks {program!r}"


def check_asearch(words: list[str]) -> None:
    parser().parse_args(words)  # an unknown option exits with status 2


def check_make(words: list[str]) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    wanted = [word for word in words if "=" not in word]
    assert wanted
    assert set(wanted) <= set(targets), words


def check_python(words: list[str]) -> None:
    if words[0] != "-m":
        assert (ROOT / words[0]).exists(), words[0]
        return
    assert find_spec(words[1]) is not None, words[1]
    if words[1] in ("asearch_backends.embedded", "asearch_backends.prm"):
        from asearch_backends.embedded.__main__ import _server_parser
        from asearch_backends.prm.__main__ import _parser

        (_server_parser if words[1].endswith("embedded") else _parser)().parse_args(words[2:])


def check_docker(words: list[str]) -> None:
    """Compose, with files, profiles and services that there are."""
    assert words[0] == "compose"
    documents = [yaml.safe_load(file.read_text()) for file in (ROOT / "compose").glob("compose*.yaml")]
    services = {name for document in documents for name in document["services"]}
    profiles = {p for document in documents for s in document["services"].values() for p in s.get("profiles", ())}
    rest = iter(words[1:])
    for word in rest:
        if word in ("-f", "--file"):
            assert (ROOT / "compose" / next(rest)).exists(), words
        elif word == "--profile":
            assert next(rest) in profiles, words
        elif word == "--scale":
            assert next(rest).split("=")[0] in services, words
        elif word.startswith("-"):
            assert word in COMPOSE_FLAGS, words
        else:
            assert word in {"up", "down", "build", "logs", "ps", "config"} | services, words


def check_curl(words: list[str]) -> None:
    """A URL of ours, and a body that is JSON."""
    assert any(urllib.parse.urlsplit(word).hostname == "localhost" for word in words)
    for option, value in itertools.pairwise(words):
        if option in ("-d", "--data"):
            json.loads(value)


def check_vllm(words: list[str]) -> None:
    assert words[0] == "serve"
    unknown = {word[2:] for word in words if word.startswith("--")} - VLLM_OPTIONS
    assert not unknown, f"not known to be options of vLLM: {unknown}"


@pytest.mark.parametrize(("block", "shown"), blocks("yaml"))
def test_yaml_parses(block, shown):
    assert yaml.safe_load(block) is not None


@pytest.mark.parametrize(("block", "shown"), blocks("json"))
def test_json_parses(block, shown):
    json.loads(block)


def test_links_lead_somewhere():
    """Links to other pages and files of the repository, with the headings that they name."""
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?://)([^)\s]+)\)", page.read_text()):
            path, _, heading = target.partition("#")
            file = (page.parent / path).resolve() if path else page
            assert file.exists(), f"{page.name}: {target}"
            if heading:
                titles = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
                anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
                assert heading in anchors, f"{page.name}: {target}"
