"""The command line as a user meets it: one clear line for every mistake, the right exit status, servers always stopped."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from asearch.cli import main


def asearch(*words, **options):
    return subprocess.run(
        [sys.executable, "-m", "asearch", *words], capture_output=True, text=True, timeout=240, check=False, **options
    )


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["solve", "1+1"], "no policy"),
        (["solve", "1+1", "--policy", "http://127.0.0.1:9", "--strategy", "guess"], "unknown strategy 'guess'"),
        (
            ["solve", "1+1", "--policy", "http://127.0.0.1:9", "--prm", "http://127.0.0.1:9", "-n", "6"],
            "multiple of width=4",
        ),
        (
            ["solve", "1+1", "--policy", "http://127.0.0.1:9", "--prm", "http://127.0.0.1:9", "-n", "0"],
            "of at least 1, not 0",
        ),
        (["solve", "", "--policy", "http://127.0.0.1:9", "--prm", "http://127.0.0.1:9"], "the problem is empty"),
        (["solve", "1+1", "--policy", "http://127.0.0.1:9"], "needs a PRM"),
        (["solve", "1+1", "--policy", "ftp://x", "--strategy", "greedy"], "is not an http(s) URL"),
        (["solve", "1+1", "--embedded", "--policy", "http://127.0.0.1:9"], "brings its own servers"),
        (["solve", "1+1", "--embedded", "--strategy", "majority", "--width", "4"], "majority has no --width"),
        (["solve", "1+1", "--embedded", "--reduction", "median"], "median"),
        (["solve", "1+1", "--embedded", "--budget-tokens", "0"], "must be positive"),
        (["demo", "--n", "6"], "multiple of width=4"),
        (["demo", "--problems", "0"], "--problems must be at least 1"),
    ],
)
def test_a_wrong_call_is_one_line_and_status_2(words, says, capsys):
    assert main(words) == 2
    shown = capsys.readouterr().err
    assert says in shown
    assert shown.count("\n") == 1


def test_an_unknown_flag_is_status_2(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["solve", "1+1", "--no-such-flag"])
    assert stop.value.code == 2
    assert "--no-such-flag" in capsys.readouterr().err


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def test_an_unreachable_server_is_one_line_and_status_1(capsys):
    url = f"http://127.0.0.1:{free_port()}"
    assert main(["solve", "1+1", "--policy", url, "--strategy", "greedy"]) == 1
    shown = capsys.readouterr().err
    assert url in shown
    assert "no connection" in shown
    assert shown.count("\n") == 1


@pytest.fixture
def web_page():
    """A server that answers everything with an HTML page."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<!doctype html><p>It works!</p>")

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_web_page_is_no_model_server(web_page, capsys):
    assert main(["solve", "1+1", "--policy", web_page, "--strategy", "greedy"]) == 1
    shown = capsys.readouterr().err
    assert "no model server" in shown
    assert shown.count("\n") == 1


def test_a_model_that_the_server_lacks_is_named(servers, capsys):
    assert main(["solve", "1+1", "--policy", servers.policy, "--policy-model", "gpt-7", "--strategy", "greedy"]) == 1
    shown = capsys.readouterr().err
    assert "gpt-7" in shown
    assert "asearch-policy" in shown


def test_solve_as_json(tmp_path):
    done = asearch("solve", "--embedded", "--json", "-n", "8", "What is $3 + 4 \\cdot 5$?", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["answer"] == "23"
    assert len(result["paths"]) >= 2
    assert all(0 <= step["score"] <= 1 for path in result["paths"] for step in path["steps"])
    assert result["usage"]["policy_tokens"] > 0
    assert result["usage"]["prm_tokens"] > 0


def test_solve_for_people(tmp_path):
    done = asearch(
        "solve", "--embedded", "--tree", "--strategy", "beam-search", "-n", "4", "What is $7 - 2 + 9$?", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "answer: 14" in done.stdout
    assert "search tree" in done.stdout
    assert "PRM tokens" in done.stdout


def test_a_small_demo(tmp_path):
    done = asearch("demo", "--n", "4", "--problems", "3", "--seed", "5", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for strategy in ("greedy", "majority", "best-of-N", "beam search", "DVTS"):
        assert strategy in done.stdout
    assert (tmp_path / "asearch-demo.png").read_bytes()[:4] == b"\x89PNG"
    assert embedded_processes() == set()


def embedded_processes():
    """Embedded servers that are children of nobody: what must never be left."""
    found = set()
    for entry in os.listdir("/proc") if os.path.isdir("/proc") else []:
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/cmdline", "rb") as file:
                    command = file.read().split(b"\0")
                with open(f"/proc/{entry}/stat") as file:
                    parent = int(file.read().rsplit(")", 1)[1].split()[1])
            except (OSError, ValueError, IndexError):
                continue
            if b"asearch_backends.embedded" in command and parent == 1:
                found.add(int(entry))
    return found


# A shell that runs the tests in the background has Ctrl-C ignored, for its children, too.
HEARING_CTRL_C = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
import sys
from asearch.cli import main
sys.exit(main())
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-c", "kill -9"])
def test_stopping_the_demo_stops_its_servers(tmp_path, how):
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", HEARING_CTRL_C, "demo", "--n", "16", "--problems", "200"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    line = process.stdout.readline()  # printed when the servers are up
    assert "held-out problems" in line
    children = child_processes(process.pid)
    assert children
    process.send_signal(how)
    _, err = process.communicate(timeout=30)
    if how == signal.SIGINT:
        assert process.returncode == 130
        assert "Traceback" not in err
    assert wait_until_gone(children)


def child_processes(parent):
    try:
        with open(f"/proc/{parent}/task/{parent}/children") as file:
            return [int(pid) for pid in file.read().split()]
    except FileNotFoundError:
        pytest.skip("needs /proc to see the children")


def wait_until_gone(pids, seconds=20):
    """Whether processes end within some time: the orphans of a killed parent need a moment to notice."""
    done = threading.Event()
    for _ in range(seconds * 10):
        if not any(alive(pid) for pid in pids):
            return True
        done.wait(0.1)
    return False


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
