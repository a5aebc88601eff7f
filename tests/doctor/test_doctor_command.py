"""`asearch doctor` in the shell: lines to read, JSON, exit status."""

import json
import subprocess
import sys

import pytest

from asearch.cli import main


def run(capsys, *arguments):
    status = main(["doctor", *arguments])
    return status, capsys.readouterr()


def test_lines(servers, capsys):
    status, shown = run(capsys, "--policy", servers.policy, "--prm", servers.prm)
    lines = shown.out.splitlines()
    assert status == 0
    assert [line for line in lines if line in ("policy", "verifier")] == ["policy", "verifier"]
    assert "  pass  steps " in shown.out
    assert " pass" in lines[-1]


def test_json(servers, capsys):
    status, shown = run(capsys, "--policy", servers.policy, "--json")
    report = json.loads(shown.out)
    assert status == 0
    assert report["healthy"] is True
    assert {finding["server"] for finding in report["findings"]} == {"policy"}
    assert all(set(finding) == {"server", "check", "status", "found", "advice"} for finding in report["findings"])


def test_a_failure_is_status_1_and_says_what_to_do(capsys):
    status, shown = run(capsys, "--prm", "http://127.0.0.1:9")
    assert status == 1
    assert "fail  server" in shown.out
    assert "→ start the server" in shown.out


@pytest.mark.parametrize(
    "arguments", [[], ["--embedded", "--prm", "http://x"], ["--prm", "http://x", "--patience", "0"]]
)
def test_wrong_calls(capsys, arguments):
    status, shown = run(capsys, *arguments)
    assert (status, shown.out, shown.err.count("\n")) == (2, "", 1)


def test_the_program(servers):
    command = [sys.executable, "-m", "asearch", "doctor", "--prm", servers.prm]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert "good above bad" in done.stdout
