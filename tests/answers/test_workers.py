"""Answer workers: real processes, killed and replaced; what they did is counted, not timed."""

import asyncio
import contextlib
import dataclasses
import gc
import os
import signal
import subprocess
import sys
import textwrap

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asearch.answers import canonical, group
from asearch.answers.grading import is_right
from asearch.errors import WorkerError
from asearch.workers import WHOLE, AnswerWorkers, default_workers
from conftest import ENDLESS, HOSTILE

ANSWERS = [
    "0.5",
    r"\frac12",
    "x+1",
    "1+x",
    None,
    "",
    r"\sin^2 x+\cos^2 x",
    "1",
    r"\sqrt{3+2\sqrt2}",
    r"1+\sqrt2",
    "(a+1)(b)",
    "ab+b",
]


def alive(pid):
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


async def until(condition):
    """Give the loop its turns until a thread has done its part."""
    while not condition():  # noqa: ASYNC110 - the other side is a thread
        await asyncio.sleep(0)


def children(workers):
    return [child._process.pid for child in workers._pool._children]


@pytest.fixture(scope="module")
def shared():
    """One pool for the tests that do not end it; starting a process costs seconds on a busy machine."""
    workers = AnswerWorkers(2, deadline=5.0)
    yield workers
    asyncio.run(workers.aclose())


@pytest.fixture
def since(shared):
    """What a test has added to the numbers of the shared pool."""
    before = dataclasses.asdict(shared.stats)
    return lambda: {name: count - before[name] for name, count in dataclasses.asdict(shared.stats).items()}


async def test_groups_as_the_synchronous_function(shared, since):
    assert await shared.group(ANSWERS) == group(ANSWERS)
    assert await shared.canonical("x+1") == canonical("1+x")
    assert since()["kills"] == since()["deaths"] == since()["failures"] == 0


async def test_numbers_and_words_start_no_process():
    async with AnswerWorkers() as workers:
        answers = ["5", "5.0", r"\frac{10}{2}", "even", r"\text{Even}", "(1,2)", "x=5", r"50\%", "a" * 100_000]
        groups = await workers.group(answers)
        assert [found.members for found in groups] == [(0, 1, 2, 6), (3, 4), (5,), (7,), (8,)]
        assert workers.stats.fast == len(answers)
        assert workers.stats.tasks == 0
        assert not children(workers)


async def test_what_is_known_is_not_asked_again(shared, since):
    first = await shared.group(ANSWERS)
    tasks, hits = since()["tasks"], since()["memo_hits"]
    assert await shared.group(ANSWERS) == first
    assert since()["tasks"] == tasks
    assert since()["memo_hits"] > hits


async def test_the_same_question_at_the_same_time_is_asked_once(shared, since):
    forms = await asyncio.gather(*(shared.canonical("x+y+1") for _ in range(20)))
    assert len(set(forms)) == 1
    assert since()["tasks"] == 1


async def test_an_endless_answer_is_killed_replaced_and_remembered(shared, since):
    endless = asyncio.create_task(shared.canonical(ENDLESS))
    assert (await shared.canonical("x+7")).key == "x + 7"  # its neighbours do not wait for it
    assert not endless.done()
    assert (await endless).kind == "unread"
    groups = await shared.group([ENDLESS, "x+8", "8+x", ENDLESS])
    assert [found.members for found in groups] == [(0, 3), (1, 2)]
    assert since()["kills"] == since()["failures"] == 1
    while not since()["replacements"]:  # the next question to that thread brings a new process
        await shared.canonical(f"x+{10 + since()['tasks']}")


async def test_an_endless_grade_means_no(shared, since):
    assert not await shared.grade(ENDLESS + "+1", "5")
    assert since()["kills"] == 1
    assert await shared.grade(r"the answer is $\frac{10}{2}$", "5")
    assert not await shared.grade(None, "5")


async def test_hostile_answers_all_come_back(shared):
    groups = await shared.group([*HOSTILE.values(), "x+1"])
    assert sum(len(found.members) for found in groups) == len(HOSTILE) + 1
    assert (await shared.canonical("1+x")).key == "x + 1"


async def test_a_cancelled_caller_leaves_its_neighbours_alone(shared):
    first = asyncio.create_task(shared.canonical("x+y+z"))
    second = asyncio.create_task(shared.canonical("x+y+z"))
    await asyncio.sleep(0)
    first.cancel()
    assert (await second).key == "x + y + z"
    with pytest.raises(asyncio.CancelledError):
        await first


def test_one_pool_serves_several_loops(shared, since):
    async def ask(text):
        return (await shared.canonical(text)).key

    assert asyncio.run(ask("x+101")) == "x + 101"
    assert asyncio.run(ask("x+102")) == "x + 102"
    assert since()["tasks"] == 2


def test_a_loop_that_goes_away_in_the_middle_breaks_nothing(shared, since):
    async def leave():
        task = asyncio.create_task(shared.canonical("x+105"))
        await until(lambda: since()["tasks"])
        task.cancel()

    async def ask(text):
        return (await shared.canonical(text)).key

    asyncio.run(leave())
    assert asyncio.run(ask("x+106")) == "x + 106"
    assert asyncio.run(ask("x+105")) == "x + 105"
    gc.collect()


async def test_memory_is_capped():
    """A process needs about 100 MB; a sum of three million terms does not fit into the rest of 200 MB."""
    async with AnswerWorkers(1, deadline=120.0, memory_mb=200) as workers:
        assert (await workers.canonical(r"\sum_{k=1}^{3000000} x^k")).kind == "unread"
        assert (workers.stats.deaths, workers.stats.failures, workers.stats.kills) == (1, 1, 0)
        assert (await workers.canonical("1+x")).key == "x + 1"


async def test_a_process_killed_from_outside_costs_nothing():
    async with AnswerWorkers(1) as workers:
        await workers.canonical("x+1")
        os.kill(children(workers)[0], signal.SIGKILL)
        assert (await workers.canonical("x+2")).key == "x + 2"
        assert (workers.stats.deaths, workers.stats.replacements, workers.stats.kills) == (1, 1, 0)


async def test_closing_kills_what_runs_and_fails_what_waits():
    workers = AnswerWorkers(1, deadline=600.0)
    await workers.canonical("x+1")
    (pid,) = children(workers)
    running = [asyncio.create_task(workers.canonical(text)) for text in (ENDLESS, "x+2", "x+3")]
    await until(lambda: workers.stats.tasks == 2)
    await workers.aclose()
    for task in running:
        with pytest.raises(WorkerError, match="closed"):
            await task
    assert not alive(pid)
    with pytest.raises(WorkerError, match="closed"):
        await workers.canonical("x+4")
    await workers.aclose()  # once more does no harm


async def test_a_process_that_cannot_start_says_so(monkeypatch):
    monkeypatch.setattr(sys, "executable", sys.executable + "-missing")
    async with AnswerWorkers(1) as workers:
        with pytest.raises(WorkerError, match="could not be started"):
            await workers.group(["x+1"])
        assert (await workers.canonical("5")).key == "5"


async def test_a_process_that_dies_at_once_says_so(monkeypatch):
    monkeypatch.setattr(sys, "executable", "false")
    async with AnswerWorkers(1) as workers:
        with pytest.raises(WorkerError, match="ended with status 1"):
            await workers.canonical("x+1")


@pytest.mark.parametrize("wrong", [{"size": 0}, {"deadline": 0}, {"memory_mb": -1}])
def test_bad_settings(wrong):
    with pytest.raises(ValueError, match=r"must be|at least"):
        AnswerWorkers(**wrong)


def run(script, *flags):
    return subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", *flags, "-c", textwrap.dedent(script)],
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip


def test_the_default_pool_leaves_nothing_behind():
    """No main guard, no closing, two event loops: no warning, and no process after the end."""
    done = run("""
        import asyncio, asearch
        from asearch.workers import default_workers
        async def main():
            print((await default_workers().canonical("1+x")).key)
            return [child._process.pid for child in default_workers()._pool._children]
        print(*asyncio.run(main()), *asyncio.run(main()))
    """)
    assert done.stderr == ""
    *keys, pids = done.stdout.splitlines()
    assert keys == ["x + 1", "x + 1"]
    assert pids
    assert not any(alive(int(pid)) for pid in pids.split())


def test_a_script_without_main_guard(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
        import asyncio
        from asearch.workers import AnswerWorkers
        print("started")
        async def main():
            async with AnswerWorkers(2) as workers:
                print(len(await workers.group(["x+1", "1+x"])))
        asyncio.run(main())
    """)
    )
    (tmp_path / "random.py").write_text("raise SystemExit('a file of the user shadows a module')")
    done = subprocess.run(
        [sys.executable, "-P", str(script)], cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False
    )
    assert (done.stdout, done.stderr) == ("started\n1\n", "")


def test_a_child_ends_with_its_parent():
    """Even in the middle of an endless computation, and even if the parent had no time to say so."""
    done = run(f"""
        import asyncio, os
        from asearch.workers import AnswerWorkers
        async def main():
            workers = AnswerWorkers(1, deadline=600.0)
            await workers.canonical("x+1")
            print(workers._pool._children.copy().pop()._process.pid, flush=True)
            asyncio.ensure_future(workers.canonical({ENDLESS!r}))
            while workers.stats.tasks < 2:
                await asyncio.sleep(0)
            os._exit(0)
        asyncio.run(main())
    """)
    pid = int(done.stdout)
    while alive(pid):  # the test's own timeout is the limit
        subprocess.run([sys.executable, "-c", ""], check=True)


def test_default_workers_is_one_pool():
    assert default_workers() is default_workers()


@settings(deadline=None, max_examples=50)
@given(st.integers(-(10**9), 10**9), st.integers(-20, 20), st.sampled_from(["{}", "0{}", "{}0", "-{}"]))
def test_whole_numbers_are_graded_without_a_process_as_with_one(number, away, form):
    answer, reference = form.format(number), str(number + away)
    pool = AnswerWorkers(size=1)
    if WHOLE.fullmatch(answer):
        assert asyncio.run(pool.grade(answer, reference)) == is_right(answer, reference)
        assert pool.stats.tasks == 0
