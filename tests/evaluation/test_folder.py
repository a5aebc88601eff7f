"""The run folder: one writer, nothing torn, nothing mixed, whatever happens to the process or the disk."""

import asyncio
import resource
import shutil
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from eval_runs import lines, scripted, settled, small_run

from asearch import ServerError, Unreachable, UsageError
from asearch.evaluation import BadRecord, InUse, RunFailed, read_config, read_records
from asearch.evaluation.folder import differences, opened


@pytest.fixture(scope="module")
def whole(tmp_path_factory, workers):
    """A run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert asyncio.run(small_run(folder, workers=workers)).complete
    return folder


@pytest.fixture
def copy(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "run")


async def test_the_same_call_does_nothing_twice(copy, workers):
    before = (copy / "records.jsonl").read_bytes()
    client, prm = scripted()
    run = await small_run(copy, client=client, prm=prm, workers=workers)
    assert (client.requests, prm.requests) == (0, 0)
    assert run.complete
    assert (copy / "records.jsonl").read_bytes() == before


@pytest.mark.parametrize("torn", [1, 10, 10_000])
async def test_a_torn_last_line_is_cut_away_and_run_again(whole, copy, workers, torn):
    log = copy / "records.jsonl"
    data = log.read_bytes()
    cut = max(len(data) - torn, len(data.rstrip(b"\n").rsplit(b"\n", 1)[0]) + 2)
    log.write_bytes(data[:cut])
    assert len(list(read_records(copy))) == len(lines(whole)) - 1
    await small_run(copy, workers=workers)
    assert settled(copy) == settled(whole)


async def test_zeros_at_the_end_are_cut_away(whole, copy, workers):
    """What some file systems leave after a power cut."""
    with (copy / "records.jsonl").open("ab") as log:
        log.write(b"\0" * 4096)
    await small_run(copy, workers=workers)
    assert (copy / "records.jsonl").read_bytes() == (whole / "records.jsonl").read_bytes()


async def test_a_run_goes_on_from_any_part_of_its_log(whole, copy, workers):
    data = (whole / "records.jsonl").read_bytes().splitlines(keepends=True)
    for kept in (0, 1, len(data) // 2):
        (copy / "records.jsonl").write_bytes(b"".join(data[:kept]))
        client, prm = scripted()
        run = await small_run(copy, client=client, prm=prm, workers=workers)
        assert run.complete
        assert settled(copy) == settled(whole)


async def test_a_line_damaged_in_the_middle_is_named(copy, workers):
    data = (copy / "records.jsonl").read_bytes().splitlines(keepends=True)
    data[2] = b"{garbage}\n"
    (copy / "records.jsonl").write_bytes(b"".join(data))
    with pytest.raises(BadRecord, match="line 3"):
        await small_run(copy, workers=workers)
    assert (copy / "records.jsonl").read_bytes() == b"".join(data)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"budgets": (2, 4, 16)}, "budgets"),
        ({"seeds": 3}, "seeds is"),
        ({"count": 6}, "dataset.fingerprint"),
        ({"system": "Think."}, "system_prompt"),
        ({"pattern": "x"}, "pattern"),
        ({"strategies": ["greedy", "best-of-n", "beam-search"]}, "entries.DVTS, n=8 is missing now"),
        ({"tree": False}, "tree is true in the folder and false now"),
    ],
)
async def test_another_configuration_is_refused(copy, workers, change, says):
    before = (copy / "records.jsonl").read_bytes()
    with pytest.raises(UsageError, match="holds another run") as refusal:
        await small_run(copy, workers=workers, **change)
    assert says in str(refusal.value)
    assert (copy / "records.jsonl").read_bytes() == before


async def test_another_model_is_refused_and_another_address_is_not(copy, workers):
    class Moved(type(scripted()[0])):
        pass

    Moved.__name__ = "ScriptedClient"
    client = Moved(scripted()[0].world)
    assert (await small_run(copy, client=client, workers=workers)).complete
    client.model = "another"
    with pytest.raises(UsageError, match=r"models\.policy\.model"):
        await small_run(copy, client=client, workers=workers)


async def test_a_log_without_its_configuration_is_refused(copy, workers):
    (copy / "run.json").unlink()
    with pytest.raises(UsageError, match=r"no run\.json"):
        await small_run(copy, workers=workers)


def test_a_second_process_is_refused(copy, workers):
    code = (
        "import sys, pathlib; from asearch.evaluation.folder import _locked\n"
        "with _locked(pathlib.Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(copy)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout.readline() == "held\n"
        before = (copy / "records.jsonl").read_bytes()
        with pytest.raises(InUse, match=f"process {holder.pid}"):
            asyncio.run(small_run(copy, workers=workers))
        assert (copy / "records.jsonl").read_bytes() == before
        assert len(list(read_records(copy))) == len(before.splitlines())  # reading is free
        holder.kill()
    assert asyncio.run(small_run(copy, workers=workers)).complete  # the lock went with its holder


async def test_a_full_disk_leaves_the_log_whole(tmp_path, whole, workers):
    """A limit on the size of files stands in for the disk: a write is cut short in the middle of a line, then fails."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = (whole / "records.jsonl").stat().st_size // 2
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, old[1]))
    try:
        with pytest.raises(RunFailed, match=r"cannot write to .*records.jsonl.*same command goes on"):
            await small_run(tmp_path / "run", workers=workers)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    data = (tmp_path / "run" / "records.jsonl").read_bytes()
    assert data.endswith(b"\n")
    assert 0 < len(lines(tmp_path / "run")) < len(lines(whole))
    await small_run(tmp_path / "run", workers=workers)
    assert settled(tmp_path / "run") == settled(whole)


async def test_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path, workers):
    (tmp_path / "file").write_text("")
    client, prm = scripted()
    with pytest.raises(RunFailed, match="cannot write to"):
        await small_run(tmp_path / "file" / "run", client=client, prm=prm, workers=workers)
    assert client.requests == 0


def test_what_is_no_run_is_said(tmp_path):
    for call in (lambda: list(read_records(tmp_path)), lambda: read_config(tmp_path)):
        with pytest.raises(UsageError, match="is no run"):
            call()
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(UsageError, match="damaged"):
        read_config(tmp_path)


def test_differences_are_named():
    old = {"a": 1, "b": {"c": [1, 2]}, "d": None, "e": 1}
    new = {"a": 1, "b": {"c": [1, 3]}, "d": 4, "f": [1]}
    assert list(differences(old, new)) == [
        "b.c[1] is 2 in the folder and 3 now",
        "d is 4 now and not in the folder",
        "e is missing now",
        "f is [1] now and not in the folder",
    ]


async def test_a_long_log_is_gone_on_with_at_once(copy, record_property):
    """10,000 problems: only reading the log takes time, in proportion to its length."""
    template = max(read_records(copy), key=lambda record: len(record.to_line()))
    with (copy / "records.jsonl").open("wb") as log:
        for i in range(10_000):
            log.write(replace(template, unique_id=str(i)).to_line())
    config, seen = read_config(copy), set()
    began = time.perf_counter()
    with opened(copy, config, seen=lambda record: seen.add(record.key)):
        pass
    record_property("seconds to go on with 10,000 records", round(time.perf_counter() - began, 2))
    record_property("megabytes", (copy / "records.jsonl").stat().st_size / 1e6)
    assert len(seen) == 10_000


async def test_a_problem_that_always_fails_does_not_stop_the_others(tmp_path, workers):
    broken = ServerError("gone", endpoint="http://policy")
    client, prm = scripted(fail=lambda path, _: broken if path.problem.text == "Problem 3" else None)
    run = await small_run(tmp_path / "run", client=client, prm=prm, workers=workers)
    assert not run.complete
    assert run.failures == run.searches - run.done == run.searches // 5
    assert "gone" in run.errors[0]
    assert {line["unique_id"] for line in lines(tmp_path / "run")} == {"0", "1", "2", "4"}
    again = await small_run(tmp_path / "run", workers=workers)  # the server is well again
    assert again.complete
    assert again.failures == 0


async def test_failures_can_be_kept(tmp_path, workers):
    broken = ServerError("gone", endpoint="http://policy")
    client, prm = scripted(fail=lambda path, _: broken if path.problem.text == "Problem 3" else None)
    run = await small_run(tmp_path / "run", client=client, prm=prm, workers=workers, keep_errors=True)
    assert run.complete
    kept = [record for record in read_records(run.folder) if record.unique_id == "3"]
    assert all(record.stopped_by == "error" and not record.right and "gone" in record.errors[0] for record in kept)
    counts = {line.searches for line in run.lines() if not line.label.startswith("greedy")}
    assert counts == {10}  # they count as wrong, at every budget


async def test_a_server_that_is_gone_ends_the_run(tmp_path, workers):
    client, prm = scripted(fail=lambda *_: Unreachable("no connection", endpoint="http://policy"))
    with pytest.raises(RunFailed, match=r"16 searches in a row failed.*no connection.*same command goes on"):
        await small_run(tmp_path / "run", client=client, prm=prm, workers=workers, at_once=4)
    assert lines(tmp_path / "run") == []
    assert (await small_run(tmp_path / "run", workers=workers)).complete


async def test_a_record_of_another_run_in_the_log_is_refused(copy, workers):
    stranger = replace(next(read_records(copy)), label="stranger")
    with (copy / "records.jsonl").open("ab") as log:
        log.write(stranger.to_line())
    with pytest.raises(RunFailed, match="'stranger'"):
        await small_run(copy, workers=workers)


async def test_a_search_that_is_in_the_log_twice_counts_once(copy, workers):
    first = (copy / "records.jsonl").read_bytes().splitlines(keepends=True)[0]
    with (copy / "records.jsonl").open("ab") as log:
        log.write(first)
    run = await small_run(copy, workers=workers)
    assert run.done == run.searches
