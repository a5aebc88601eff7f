"""kill -9 at 20 random moments of a run on the embedded servers: nothing finished is lost, nothing is run twice."""

import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
from eval_runs import lines, settled

from asearch.embedded import embedded_problems
from asearch.evaluation import read_records

KILLS = 20
PROBLEMS, SEEDS = 8, 2


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    file = tmp_path_factory.mktemp("dataset") / "problems.jsonl"
    problems = asyncio.run(embedded_problems(PROBLEMS, seed=3))
    file.write_text("".join(json.dumps({"problem": p, "answer": a, "level": 1}) + "\n" for p, a in problems))
    return file


def command(servers, dataset, out):
    strategies = ["greedy", "best-of-n", "dvts", "beam-search", "particle-filter"]
    return [
        *("eval", str(dataset), "--policy", servers.policy, "--prm", servers.prm, "--strategies", *strategies),
        *("-n", "4", "--seeds", str(SEEDS), "--at-once", "3", "--out", str(out)),
    ]


class Launcher:
    """A process that has imported what the command needs, and forks one that runs it whenever it is told to."""

    PROGRAM = """
import json, os, sys
import aiohttp, pydantic, rich.progress, yaml
import asearch.evaluation.live, asearch.evaluation.recipe
from asearch.cli import main

for line in sys.stdin:
    arguments, errors = json.loads(line)
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)  # a group of its own, so that the answer processes of one that was killed go with it
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        os._exit(main(arguments))
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""

    def __init__(self, errors):
        self.errors = errors
        self._process = subprocess.Popen(
            [sys.executable, "-c", self.PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def start(self, arguments):
        """The id of a process that runs the command."""
        self._process.stdin.write(json.dumps([arguments, str(self.errors)]) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def status(self):
        """The exit status of that process, once it has ended."""
        return int(self._process.stdout.readline())

    def close(self):
        self._process.communicate()


def kill_when(process, log, size, rng):
    """Kill -9 once the log has grown by a random number of bytes, or a random while before it has grown at all."""
    target = size + rng.randint(1, 8_000)
    over = time.monotonic() + (rng.uniform(0.0, 0.8) if rng.random() < 0.25 else 60.0)
    while time.monotonic() < over and not (log.exists() and log.stat().st_size >= target) and alive(process):
        time.sleep(0.001)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process, signal.SIGKILL)


def alive(process):
    with open(f"/proc/{process}/stat") as file:
        return file.read().rsplit(")", 1)[1].split()[0] != "Z"


def whole_lines(log):
    data = log.read_bytes() if log.exists() else b""
    return data[: data.rfind(b"\n") + 1]


def test_a_run_that_is_killed_again_and_again(servers, dataset, tmp_path):
    rng = random.Random(7)
    undisturbed, disturbed = tmp_path / "undisturbed", tmp_path / "disturbed"
    log, launcher = disturbed / "records.jsonl", Launcher(tmp_path / "errors")
    launcher.start(command(servers, dataset, undisturbed))
    assert launcher.status() == 0, launcher.errors.read_text()
    kills, safe = 0, b""
    for _ in range(KILLS):
        kill_when(launcher.start(command(servers, dataset, disturbed)), log, len(safe), rng)
        kills += launcher.status() == -signal.SIGKILL
        finished = whole_lines(log)
        assert finished.startswith(safe), "what was finished is lost"
        safe = finished
        if rng.random() < 0.3 and len(safe) > 10:  # what a power cut would leave of a line that was under way
            with log.open("ab") as torn:
                torn.write(safe[: rng.randint(1, 200)].rstrip(b"\n"))
    assert kills == KILLS, "the run was over before the kills were"
    launcher.start(command(servers, dataset, disturbed))
    assert launcher.status() == 0, launcher.errors.read_text()
    launcher.close()
    assert log.read_bytes().startswith(safe)
    assert settled(disturbed) == settled(undisturbed)
    searches = 5 * SEEDS * PROBLEMS - (SEEDS - 1) * PROBLEMS  # greedy decoding has one seed
    assert len(lines(disturbed)) == len(list(read_records(disturbed))) == searches
