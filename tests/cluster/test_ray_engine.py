"""Runs on a Ray cluster of two nodes: the records of one process, whatever happens to workers, nodes and the driver."""

import asyncio
import os
import signal
import subprocess
import sys
import time

import pytest
from aiohttp import ClientSession, web
from eval_runs import lines, scripted, settled
from troubles import Trouble

import asearch
from asearch import Question, UsageError
from asearch.embedded import embedded_problems
from asearch.evaluation import RunFailed
from asearch.ray import RayEngine
from asearch.serving import listening, url_of

ray = pytest.importorskip("ray")


@pytest.fixture(scope="module")
def problems():
    return asyncio.run(embedded_problems(8, seed=11))


def run(problems, servers, out, workers, *, engine=None, strategies=("greedy", "best-of-n", "dvts"), **options):
    options = {"budgets": (1, 4), "seeds": 2, "at_once": 3, **options}
    return asearch.evaluate(
        problems, servers.policy, servers.prm, strategies, out=out, engine=engine, workers=workers, **options
    )


@pytest.fixture(scope="module")
def alone(problems, servers, workers, tmp_path_factory):
    """What one process finds."""
    out = tmp_path_factory.mktemp("alone") / "run"
    assert asyncio.run(run(problems, servers, out, workers)).complete
    return out


async def test_a_run_gives_the_same_records_and_survives_a_node_that_leaves(
    cluster, problems, servers, alone, workers, tmp_path
):
    third = cluster.add_node(num_cpus=2)
    lost = []

    def watch(progress):
        if progress.done == 3:
            cluster.remove_node(third, allow_graceful=False)
            lost.append(progress.done)

    engine = RayEngine(workers=6)  # two on each node
    whole = await run(problems, servers, tmp_path / "run", workers, engine=engine, watch=watch)
    assert lost == [3]
    assert whole.complete
    assert settled(whole.folder) == settled(alone)
    again = await run(problems, servers, tmp_path / "run", workers)  # one process goes on with what a cluster has begun
    assert again.complete
    assert len(lines(again.folder)) == whole.searches


@pytest.fixture
async def refusing(servers):
    """The embedded policy behind a gate that refuses one problem."""

    async def pass_on(request):
        body = await request.read()
        if b"refuse me" in body:
            return web.json_response({"error": {"message": "no", "type": "BadRequestError", "code": 400}}, status=400)
        async with session.request(request.method, f"{servers.policy}{request.path}", data=body) as reply:
            return web.Response(body=await reply.read(), status=reply.status, content_type="application/json")

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", pass_on)
    async with ClientSession(headers={"Content-Type": "application/json"}) as session, listening(app) as runner:
        yield url_of(runner)


async def test_poisoned_problems_and_a_straggler_do_not_stop_the_others(
    cluster, problems, refusing, servers, workers, tmp_path
):
    """One that is refused, one that kills every process that tries it, one that blocks the first for good."""
    strategy = Trouble(n=2, early_stop=False, mark=str(tmp_path / "blocked"))
    texts = [*problems[:2], ("refuse me", "1"), *problems[2:4], ("kill the process", "1"), problems[4]]
    texts += [("block the process", "1"), problems[5]]
    given = [Question(str(i), *text) for i, text in enumerate(texts)]
    fast = RayEngine(workers=3)
    poisoned = await asearch.evaluate(
        given, refusing, None, [strategy], out=tmp_path / "run", seeds=1, at_once=2, engine=fast, workers=workers
    )
    assert poisoned.failures == 2
    assert poisoned.done == poisoned.searches - 2
    assert any("died 3 times" in error for error in poisoned.errors)
    assert any("HTTP 400" in error for error in poisoned.errors)
    assert (tmp_path / "blocked").exists()
    harmless = [question for question in given if question.problem not in ("refuse me", "kill the process")]
    here = await asearch.evaluate(
        harmless, servers.policy, None, [strategy], out=tmp_path / "here", seeds=1, workers=workers
    )
    assert settled(poisoned.folder) == settled(here.folder)


def test_the_driver_is_killed_and_goes_on(cluster, problems, servers, alone, tmp_path):
    dataset = tmp_path / "problems.csv"
    rows = "\n".join(f'"{problem}","{answer}"' for problem, answer in problems)
    dataset.write_text(f"problem,answer\n{rows}\n")
    command = [
        *(sys.executable, "-m", "asearch", "eval", str(dataset), "--policy", servers.policy, "--prm", servers.prm),
        *("--strategies", "greedy", "best-of-n", "dvts", "-n", "1", "4", "--seeds", "2", "--at-once", "3"),
        *("--out", str(tmp_path / "run"), "--engine", "ray", "--ray-address", cluster.address, "--workers", "2"),
    ]
    log = tmp_path / "run" / "records.jsonl"
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, process_group=0)
    while not (log.exists() and log.stat().st_size > 10_000):
        assert first.poll() is None
        time.sleep(0.01)
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    safe = log.read_bytes()
    second = subprocess.run(command, capture_output=True, text=True, check=False)
    assert second.returncode == 0, second.stderr
    assert "going on:" in second.stderr
    assert log.read_bytes().startswith(safe[: safe.rfind(b"\n") + 1])
    assert settled(tmp_path / "run") == settled(alone)
    for _ in range(600):  # the workers of the one that was killed are gone with it
        if ray.available_resources().get("CPU") == 4:
            break
        time.sleep(0.1)
    else:
        pytest.fail(f"workers are left: {ray.available_resources()}")


async def test_no_room_for_any_worker_is_said(cluster, problems, servers, workers, tmp_path):
    engine = RayEngine(workers=1, cpus=64, patience=1.5)
    with pytest.raises(
        RunFailed, match=r"no worker could be started for 2 s: each needs 64 CPUs, and the cluster has 4"
    ):
        await run(problems, servers, tmp_path / "run", workers, engine=engine)


async def test_servers_of_this_process_cannot_be_sent_away(cluster, tmp_path, workers):
    with pytest.raises(UsageError, match="need a server by its URL, not ScriptedClient"):
        await asearch.evaluate(
            [("1+1?", "2")], *scripted(), ["greedy"], out=tmp_path / "run", engine=RayEngine(workers=1), workers=workers
        )


def test_a_wrong_number_of_workers():
    with pytest.raises(UsageError, match="at least 1 worker, not 0"):
        RayEngine(workers=0)
