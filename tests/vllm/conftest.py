"""Servers of the real-vLLM suite: each started once, on first use. `python tests/vllm/run.py` runs the suite."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "prm")]

import tiny_checkpoints  # noqa: E402 - a neighbour, found by the line above
from vllm_servers import MODELS, VllmServer, vllm_server  # noqa: E402


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    missing = find_spec("vllm") is None
    for item in items:
        if HERE in item.path.parents:
            item.add_marker("vllm")
            item.add_marker(pytest.mark.timeout(900))
            item.add_marker(pytest.mark.filterwarnings("ignore:::torch|transformers"))
            if missing:
                item.add_marker(pytest.mark.skip(reason="vLLM is not installed here: python tests/vllm/run.py"))


def pytest_terminal_summary(terminalreporter) -> None:
    """Show the figures that tests recorded."""
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties:
            terminalreporter.write_line(f"{name}: {value}")


@pytest.fixture(scope="session")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    given = os.environ.get("ASEARCH_VLLM_LOGS")
    return Path(given) if given else tmp_path_factory.mktemp("vllm-logs")


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny random checkpoints, one folder per architecture."""
    folder = tmp_path_factory.mktemp("checkpoints")
    tiny_checkpoints.llama(folder / "llama", seed=17)  # one that likes blank lines, so that there are steps
    for make in (
        tiny_checkpoints.mistral,
        tiny_checkpoints.qwen_prm,
        tiny_checkpoints.qwen_tokens,
        tiny_checkpoints.qwen_outcome,
    ):
        make(folder / make.__name__)
    return folder


@pytest.fixture(scope="session")
def start(request: pytest.FixtureRequest, logs: Path, checkpoints: Path):
    """Starts servers by name, each once. Where there is more than one core, all that the tests ask for come up together."""
    servers = {
        "policy": (MODELS / "policy", "asearch-policy", "--enable-prompt-tokens-details"),
        "verifier": (MODELS / "prm", "asearch-prm", "--enable-prompt-tokens-details"),
        "llama": (checkpoints / "llama", "llama"),
        "mistral": (checkpoints / "mistral", "math-shepherd-mistral-tiny"),
        "qwen_prm": (
            checkpoints / "qwen_prm",
            "Qwen2.5-Math-PRM-tiny",
            "--pooler-config",
            '{"step_tag_id": 3}',  # this tokenizer's; the default is the real one's
        ),
        "qwen_tokens": (checkpoints / "qwen_tokens", "Qwen2.5-tiny-Instruct-PRM-0.2", "--runner", "pooling"),
        "qwen_outcome": (checkpoints / "qwen_outcome", "orm", "--runner", "pooling", "--convert", "classify"),
    }
    with ExitStack() as stack:

        @cache
        def started(name: str) -> VllmServer:
            model, served, *options = servers[name]
            return stack.enter_context(vllm_server(model, served, logs, *options))

        if len(os.sched_getaffinity(0)) > 1:
            asked = {name for item in request.session.items for name in item.fixturenames}
            for name in servers.keys() & asked:
                started(name)
        yield started


@pytest.fixture(scope="session")
def policy(start) -> str:
    """The shipped embedded policy, served by vLLM."""
    return start("policy").url


@pytest.fixture(scope="session")
def verifier(start) -> str:
    """The shipped embedded PRM, served by vLLM."""
    return start("verifier").url


@pytest.fixture(scope="session")
def llama(start) -> str:
    """A random Llama whose tokenizer adds BOS and whose chat template trims."""
    return start("llama").url


@pytest.fixture(scope="session")
def qwen_prm(start) -> str:
    """A random Qwen2ForProcessRewardModel."""
    return start("qwen_prm").url


@pytest.fixture(scope="session")
def mistral(start) -> str:
    """A random Mistral with a SentencePiece-style tokenizer."""
    return start("mistral").url


@pytest.fixture(scope="session")
def qwen_tokens(start) -> str:
    """A random token classifier on Qwen2; vLLM answers with a row per token."""
    return start("qwen_tokens").url


@pytest.fixture(scope="session")
def qwen_outcome(start) -> str:
    """A random sequence classifier on Qwen2."""
    return start("qwen_outcome").url
