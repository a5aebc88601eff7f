"""The program: one line when it is ready, one line when it cannot run, and nothing left behind."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import urllib.request
from contextlib import contextmanager

import pytest
from embedded_models import write_checkpoint

PROGRAM = [sys.executable, "-m", "asearch_backends.embedded"]


@contextmanager
def program(*arguments):
    process = subprocess.Popen(
        [*PROGRAM, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def ready(process):
    return json.loads(process.stdout.readline())


def failure(*arguments):
    """Exit status and standard error of a program that cannot run."""
    done = subprocess.run([*PROGRAM, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout == ""
    return done.returncode, done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_announces_itself_answers_and_stops_at_a_signal(tiny, number):
    with program("--model", tiny, "--served-model-name", "mine") as process:
        hello = ready(process)
        assert hello["model"] == "mine"
        with urllib.request.urlopen(hello["url"] + "/v1/models") as response:
            assert json.load(response)["data"][0]["id"] == "mine"
        process.send_signal(number)
        assert process.wait(timeout=30) == 0
        assert (process.stdout.read(), process.stderr.read()) == ("", "")


def test_it_stops_with_its_parent_if_asked_to(tiny):
    with program("--model", tiny, "--exit-with-parent") as process:
        assert ready(process)["model"] == tiny.name
        process.stdin.close()
        assert process.wait(timeout=30) == 0


def test_it_stops_at_once_while_requests_run(tiny):
    with program("--model", tiny) as process:
        url = ready(process)["url"]
        host, port = url.removeprefix("http://").split(":")
        body = json.dumps({"prompt": "a", "n": 256, "max_tokens": 250, "ignore_eos": True}).encode()
        with socket.create_connection((host, int(port))) as connection:
            head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
            connection.sendall(head.encode() + b"\r\n\r\n" + body)
            idle = f'vllm:num_requests_running{{model_name="{tiny.name}"}} 0.0'
            while idle in urllib.request.urlopen(url + "/metrics").read().decode():
                pass
            process.terminate()
            assert process.wait(timeout=30) == 0


def test_a_port_in_use_is_one_line(tiny):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        status, error = failure("--model", tiny, "--port", port)
    assert status == 1
    assert error.count("\n") == 1
    assert f"127.0.0.1:{port}" in error


def break_config(folder, **entries):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | entries))


BROKEN = {
    "no such folder": (lambda f: (f / "config.json").unlink(), "unknown model"),
    "config is no JSON": (lambda f: (f / "config.json").write_text("{"), "not valid JSON"),
    "another architecture": (lambda f: break_config(f, model_type="gpt2"), "'gpt2'"),
    "a rope that we do not know": (lambda f: break_config(f, rope_scaling={"rope_type": "yarn"}), "'yarn'"),
    "an entry is missing": (lambda f: break_config(f, hidden_size=None), "config.json"),
    "weights do not fit": (lambda f: break_config(f, intermediate_size=32), "expected"),
    "more layers than weights": (lambda f: break_config(f, num_hidden_layers=9), "lack"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "no weights"),
    "weights cut short": (
        lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:5000]),
        "broken weights",
    ),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), "tokenizer.json"),
    "a broken template": (
        lambda f: (f / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{% if %}"})),
        "chat template",
    ),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_model_is_one_line(tmp_path, fault):
    folder = write_checkpoint(tmp_path / "model")
    damage, message = BROKEN[fault]
    damage(folder)
    status, error = failure("--model", folder)
    assert status == 1
    assert error.count("\n") == 1, error
    assert message in error


@pytest.mark.parametrize(
    "arguments", [["--port", "70000"], ["--max-num-seqs", "0"], ["--nonsense"], ["problems", "--n", "0"]]
)
def test_wrong_usage_is_status_2(arguments):
    status, error = failure(*arguments)
    assert status == 2
    assert "Traceback" not in error


def test_a_context_beyond_the_model_is_refused(tiny):
    status, error = failure("--model", tiny, "--max-model-len", 9999)
    assert status == 1
    assert "256" in error


def test_problems_are_json_lines_and_the_same_each_time():
    arguments = [*PROGRAM, "problems", "--n", "5", "--seed", "3"]
    runs = [subprocess.run(arguments, capture_output=True, text=True, check=True).stdout for _ in range(2)]
    lines = [json.loads(line) for line in runs[0].splitlines()]
    assert runs[0] == runs[1]
    assert len(lines) == 5
    assert all(set(line) == {"problem", "answer"} for line in lines)
