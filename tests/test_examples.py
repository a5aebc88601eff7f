"""The examples run, as programs, and say what they promise: a real search, whatever stands around it."""

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
FRAMEWORKS = {"agents_sdk_tool": "agents", "pydantic_ai_tool": "pydantic_ai", "langgraph_node": "langgraph"}


def run(name, *options):
    if name in FRAMEWORKS and find_spec(FRAMEWORKS[name]) is None:
        pytest.skip(f"needs {FRAMEWORKS[name]}: pip install -e '.[agents]'")
    command = [sys.executable, str(EXAMPLES / f"{name}.py"), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def urls(servers):
    return "--policy", servers.policy, "--prm", servers.prm


def test_deadline_and_events(urls):
    out = run("deadline_and_events", *urls, "--seconds", "60")
    assert len(re.findall(r"^ +\d+\.\d\d s  0\.\d{3}  ", out, re.MULTILINE)) > 4
    assert "answer: 45" in out
    assert "stopped by itself" in out


def test_an_example_brings_its_own_servers_and_keeps_its_deadline():
    out = run("deadline_and_events", "-n", "256", "--seconds", "0.3")
    assert "stopped by seconds" in out


def test_many_problems(urls):
    out = run("many_problems", *urls, "--problems", "12", "-n", "8")
    verdicts = re.findall(r"^ *\d+  (right|wrong)  ", out, re.MULTILINE)
    assert len(verdicts) == 12
    assert f"{verdicts.count('right')} of 12 right" in out
    assert verdicts.count("right") > 4


def test_function_verifier(urls):
    out = run("function_verifier", *urls)
    assert re.search(r"with the function:  2  \(score 0\.95\)", out)


def test_agents_sdk_tool(urls):
    out = run("agents_sdk_tool", *urls)
    assert "tool_call_item" in out
    assert re.search(r'tool_call_output_item: {"answer": "21", "confidence": 0\.\d+}', out)
    assert out.endswith("Ann has 21 apples.\n")


def test_pydantic_ai_tool(urls):
    out = run("pydantic_ai_tool", *urls)
    assert "tool-return: answer='21'" in out
    assert out.endswith("Ann has 21 apples.\n")


def test_langgraph_node(urls):
    out = run("langgraph_node", *urls, "--problems", "6")
    assert out.count("What is") == 6
    ways = re.findall(r"^  (greedy|greedy -> search): ", out, re.MULTILINE)
    assert len(ways) == 6
    assert {"greedy", "greedy -> search"} == set(ways), "the verifier is sure of some answers, and not of others"


def test_every_example_is_run():
    tested = set(re.findall(r'run\("(\w+)"', Path(__file__).read_text()))
    assert tested == {file.stem for file in EXAMPLES.glob("*.py")} - {"servers"}
