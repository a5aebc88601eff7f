"""Who searches what: nothing is lost, nothing counts twice, whatever happens to workers; and nobody waits for a straggler."""

import heapq
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asearch.evaluation import Question
from asearch.evaluation.entries import Task
from asearch.ray.board import DEADLY, SLOW, Board


def work(count):
    return [(Task(0, 0, i), Question(str(i), f"Problem {i}", "1")) for i in range(count)]


def numbers(shard):
    return [item.task.question for item in shard]


def test_shards_are_large_at_first_and_small_at_the_end():
    board = Board(work(100), workers=2, shard=8)
    sizes = []
    while shard := board.take(len(sizes) % 2, now=0):
        sizes.append(len(shard))
    assert sizes[0] == 8
    assert sizes[-1] == 1
    assert sizes == sorted(sizes, reverse=True)
    assert sum(sizes) == 100


def test_work_goes_out_in_its_order():
    board = Board(work(20), workers=1, shard=4)
    assert numbers(board.take(0, 0)) + numbers(board.take(0, 0)) == list(range(8))


def test_what_a_lost_worker_had_comes_first():
    board = Board(work(40), workers=2, shard=4)
    first, second = board.take(0, 0), board.take(1, 0)
    assert board.finish(0, first[1], 1)
    board.lose(0)
    assert numbers(board.take(1, 1))[:3] == [0, 2, 3]
    assert numbers(second) == [4, 5, 6, 7]
    assert not board.finish(1, first[1], 2)  # whoever comes first counts


def test_a_search_that_kills_its_workers_is_tried_alone():
    board = Board(work(1), workers=2, shard=4)
    for deaths in range(DEADLY):
        assert board.suspect() is None
        (item,) = board.take(deaths, 0)
        board.lose(deaths)
    assert board.take(0, 0) == []
    assert board.suspect() is item
    assert board.left == 1
    assert board.finish(-1, item, 1)
    assert board.left == 0


def test_a_straggler_is_helped_once_others_are_idle():
    board = Board(work(4), workers=2, shard=4)
    (slow,) = board.take(0, 0)
    for now in (1, 2, 3):
        (item,) = board.take(1, now - 1)
        board.finish(1, item, now)
    assert board.take(1, 2.5) == []
    due = board.next_due(1)
    assert due == SLOW * 1  # three times the longest search so far
    assert board.next_due(0) is None  # nobody helps himself
    assert board.take(1, due) == [slow]
    assert board.take(1, 100) == []  # two are enough
    assert board.finish(1, slow, 101)
    assert not board.finish(0, slow, 102)
    assert board.left == 0


def test_nothing_is_overdue_before_anything_is_known():
    board = Board(work(1), workers=2, shard=4)
    board.take(0, 0)
    assert board.take(1, 1e9) == []
    assert board.next_due(1) is None


@settings(deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 5), st.integers(1, 60))
def test_every_search_is_done_once_whatever_happens(seed, workers, count):
    """Workers take, finish in any order, are lost and come again; deadly searches come to the suspects."""
    rng = random.Random(seed)
    board = Board(work(count), workers=workers, shard=3)
    held = {worker: [] for worker in range(workers)}
    first, now = [], 0.0
    for _ in range(100 * count):
        if not board.left:
            break
        now += rng.random()
        worker, happens = rng.randrange(workers), rng.random()
        if happens < 0.4:
            held[worker] += board.take(worker, now)
        elif happens < 0.9 and held[worker]:
            item = held[worker].pop(rng.randrange(len(held[worker])))
            first += [item.task] if board.finish(worker, item, now) else []
        elif happens < 0.95:
            board.lose(worker)
            held[worker] = []
        elif (item := board.suspect()) is not None:
            first += [item.task] if board.finish(-1, item, now) else []
    assert board.left == 0
    assert sorted(first) == [task for task, _ in work(count)]


def run_time(workers, count, *, slow=None, at_once=4, seed=0):
    """How long a run takes in a model of workers: each searches `at_once` problems at a time, in one second or so each.

    Args:
        workers: how many.
        count: problems.
        slow: a worker that takes a hundred times as long.
        at_once: problems that a worker searches at the same time.
        seed: of how long each problem takes.
    """
    rng = random.Random(seed)
    seconds = [rng.uniform(0.5, 1.5) for _ in range(count)]
    board, now, order = Board(work(count), workers=workers, shard=at_once), 0.0, 0
    events = [(0.0, i, worker, None) for i, worker in enumerate(list(range(workers)) * at_once)]
    queues = {worker: [] for worker in range(workers)}
    order = len(events)
    while board.left:
        now, _, worker, item = heapq.heappop(events)
        if item is not None:
            board.finish(worker, item, now)
        queues[worker] = queues[worker] or board.take(worker, now)
        order += 1
        if queues[worker]:
            item = queues[worker].pop(0)
            pace = 100 if worker == slow else 1
            heapq.heappush(events, (now + pace * seconds[item.task.question], order, worker, item))
        elif board.left:  # idle: look again when something may be overdue
            due = board.next_due(worker)
            heapq.heappush(events, (max(now + 0.05, min(due or now + 1, now + 1)), order, worker, None))
    return now


@pytest.mark.parametrize("workers", [1, 2, 4, 16, 64])
def test_more_workers_are_faster_in_proportion(workers):
    """While there is work for all: in a model without a limit of the servers."""
    count = 64 * 4 * 10
    ideal = count / (4 * workers)
    assert ideal * 0.95 < run_time(workers, count) < ideal * 1.1 + 1.5


@pytest.mark.parametrize("workers", [2, 4, 16])
def test_a_straggler_costs_about_one_worker(workers):
    """A worker that is a hundred times as slow: its searches are given to others, and nobody waits for it."""
    count = 4 * workers * 20
    without = run_time(workers - 1, count)
    assert run_time(workers, count, slow=0) < without + 1.5 * (2 + SLOW) + 1
