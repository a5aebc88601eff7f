"""Levels, compute and reports, against counts made here from the log itself."""

import csv
import json
import statistics
from collections import defaultdict

import pytest

from asearch import UsageError
from asearch.evaluation import read_records
from asearch.reports import Parameters, fitted, gather, levels_of, make_plan, write_report
from asearch.reports.compute import EMBEDDED, parameters_of, size_in
from asearch.reports.fit import Table, plannable
from asearch.reports.levels import cuts, quantiles
from asearch.reports.methods import named


def test_oracle_levels_order_problems_by_pass_at_1(scripted_run):
    run = gather(scripted_run)
    rates = defaultdict(list)
    for record in read_records(scripted_run):
        if record.strategy["name"] == "best_of_n":
            rates[record.unique_id] += record.correct
    levels = levels_of(run, "oracle", 3)
    by_level = defaultdict(list)
    for i, name in enumerate(run.ids):
        by_level[levels.of(i, 0)].append(statistics.fmean(rates[name]))
    assert [len(by_level[level]) for level in (1, 2, 3)] == [4, 4, 4]
    assert min(by_level[1]) >= max(by_level[2])
    assert min(by_level[2]) >= max(by_level[3])


def test_first_levels_follow_the_thresholds_of_the_plan(scripted_run):
    run = gather(scripted_run, first=2)
    levels, plan = levels_of(run, "first", 3), make_plan(run, count=3)
    assert plan.thresholds == levels.thresholds
    for record in read_records(scripted_run):
        if record.strategy["name"] == "best_of_n":
            first = statistics.fmean(record.agg_scores[:2])
            assert levels.of(run.ids.index(record.unique_id), record.seed) == plan.level(first)


def test_the_datasets_own_levels(scripted_run):
    run = gather(scripted_run)
    levels = levels_of(run, "dataset")
    assert levels.names == ("1", "2")
    assert [levels.of(i, 0) for i in range(len(run.ids))] == run.own_levels


def test_quantiles_and_cuts():
    assert quantiles({i: -i for i in range(10)}, 5) == {i: 1 + i // 2 for i in range(10)}
    assert cuts([1.0, 0.8, 0.4, 0.0], 2) == pytest.approx((0.6,))


def test_accuracy_and_compute_are_those_of_the_log(scripted_run, tmp_path):
    report = write_report(scripted_run, tmp_path, parameters=Parameters(policy=10, prm=100, baseline=1000), count=2)
    points = {(p.label, p.n): p for p in report.points}
    beams = [r for r in read_records(scripted_run) if r.label == "beam search" and r.n == 8]
    beam = points["beam search", 8]
    assert beam.accuracy == pytest.approx(statistics.fmean(r.right for r in beams))
    tokens = statistics.fmean((r.prompt_tokens or 0) + r.usage.policy_tokens for r in beams)
    assert beam.computed == pytest.approx(2 * tokens)
    assert beam.flops == pytest.approx(2 * (10 * tokens + 100 * tokens))
    greedy, larger = points["greedy", 1], points["greedy, larger policy", 1]
    assert larger.flops == pytest.approx(100 * greedy.flops)
    assert points["majority", 8].prm_computed == 0


def test_report_writes_everything_and_names_no_picture_that_is_not_there(scripted_run, tmp_path):
    write_report(scripted_run, tmp_path, parameters=Parameters(policy=10, prm=100, baseline=1000))
    text = (tmp_path / "report.md").read_text()
    named = {line.split("(")[-1].rstrip(")") for line in text.splitlines() if line.startswith("![")}
    assert named == {"accuracy.png", "tokens.png", "flops.png", "levels-oracle.png", "levels-model.png",
                     "levels-dataset.png", "optimal.png"}  # fmt: skip
    for name in named:
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:image/png;base64,") == len(named)
    with (tmp_path / "accuracy.csv").open() as file:
        assert {row["strategy"] for row in csv.DictReader(file)} >= {
            "greedy",
            "DVTS",
            "best-of-N, weighted",
            "majority",
        }


def test_a_report_of_some_methods_is_that_of_all_without_the_others(scripted_run, tmp_path):
    sizes = Parameters(policy=10, prm=100, baseline=1000)
    whole = write_report(scripted_run, tmp_path / "all", parameters=sizes, count=3)
    part = write_report(scripted_run, tmp_path / "some", parameters=sizes, count=3, methods=["dvts", "best-of-n"])
    kept = {"greedy", "greedy, larger policy", "DVTS", "best-of-N, weighted", "best-of-N, best"}
    assert {p.label for p in part.points} == kept < {p.label for p in whole.points}
    assert part.points == tuple(p for p in whole.points if p.label in kept)
    assert part.levels == tuple(p for p in whole.levels if p.label in kept)
    assert {label for fits in part.optimal.values() for f in fits for label in (*f.chosen, f.single)} <= kept
    text = (tmp_path / "some" / "report.md").read_text()
    left_out = len({p.label for p in whole.points}) - len(kept)
    assert f"leaves out {left_out};" in text
    assert "leaves out" not in (tmp_path / "all" / "report.md").read_text()
    assert "beam search" not in text
    with (tmp_path / "some" / "accuracy.csv").open() as file:
        assert {row["strategy"] for row in csv.DictReader(file)} == kept


def test_levels_do_not_hang_on_the_methods_that_are_shown(scripted_run, tmp_path):
    """Without best-of-N in the report its samples still tell how difficult a problem is."""
    whole = write_report(scripted_run, tmp_path, count=3)
    part = write_report(scripted_run, tmp_path, count=3, methods=["DVTS"])
    assert {p.kind for p in part.levels} == {"oracle", "model", "dataset"}
    assert [p for p in part.levels if p.label == "DVTS"] == [p for p in whole.levels if p.label == "DVTS"]
    assert part.optimal == {}, "there is nothing to choose between"
    assert "Not in this report" in (tmp_path / "report.md").read_text()


LABELS = ["DVTS", "DVTS, lookahead 1", "beam search", "best-of-N, best", "best-of-N, weighted", "greedy", "majority"]


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("DVTS", ["DVTS"]),
        ("dvts", ["DVTS"]),
        ("dvts*", ["DVTS", "DVTS, lookahead 1"]),
        ("*lookahead 1", ["DVTS, lookahead 1"]),
        ("best-of-n", ["best-of-N, best", "best-of-N, weighted"]),
        ("best_of_n, weighted", ["best-of-N, weighted"]),
        ("Beam-Search", ["beam search"]),
        ("*", LABELS),
    ],
)
def test_a_name_stands_for_methods(name, labels):
    assert named(name, LABELS) == labels


@pytest.mark.parametrize("name", ["mcts", "beam", "", "best", "dvts, look"])
def test_a_name_of_no_method_is_told_which_there_are(name):
    with pytest.raises(UsageError, match="it has 'DVTS', 'DVTS, lookahead 1', 'beam search'"):
        named(name, LABELS)


def test_without_model_sizes_the_report_says_what_to_do(scripted_run, tmp_path):
    write_report(scripted_run, tmp_path)
    assert not (tmp_path / "flops.png").exists()
    assert "--policy-params" in (tmp_path / "report.md").read_text()


def test_same_data_is_the_sum_of_the_best_of_each_level(scripted_run):
    run = gather(scripted_run)
    for at in fitted(run, "oracle", count=3):
        table = Table(run, levels_of(run, "oracle", 3), plannable(run))
        right = searches = 0
        for level in (1, 2, 3):
            totals = [table.total(at.n, label, level) for label in table.counts[at.n]]
            best = max(total[1] / total[0] for total in totals)
            searches += 8
            right += 8 * best
        assert at.same_data == pytest.approx(right / searches)
        assert at.same_data >= at.single_accuracy >= 0
        assert at.cross_validated <= at.same_data + 1e-9


def test_cross_validation_sees_through_luck(scripted_run):
    """Two methods that are right on different problems by chance: choosing on the same data flatters."""
    run = gather(scripted_run)
    table = Table(run, levels_of(run, "oracle", 1), plannable(run))
    lucky = {"A": {p: (1.0, float(p % 2), 1.0, 1.0) for p in range(20)}}
    lucky["B"] = {p: (1.0, float((p + 1) % 2), 1.0, 1.0) for p in range(20)}
    table.counts = {4: {label: {1: counts} for label, counts in lucky.items()}}
    from asearch.reports.fit import crossed_at, rate

    assert rate(table.total(4, table.best(4, 1), 1)) == 0.5
    assert rate(crossed_at(table, 4, 1, seed=0)) < 0.5


def test_sizes_of_models_by_name_and_of_the_embedded_by_their_checkpoints():
    assert size_in("Qwen2.5-Math-PRM-7B") == 7e9
    assert size_in("SmolLM2-135M-Instruct") == 135e6
    assert size_in("my-model") is None
    assert parameters_of({"models": {"policy": {"model": "x-1B"}}}, Parameters(policy=3.0)).policy == 3.0
    with pytest.raises(UsageError, match="positive"):
        parameters_of({}, Parameters(prm=-1))
    from importlib.util import find_spec
    from math import prod
    from pathlib import Path

    safetensors = pytest.importorskip("safetensors")
    models = Path(find_spec("asearch_backends.embedded").origin).parent / "models"
    for name, size in EMBEDDED.items():
        with safetensors.safe_open(models / name.removeprefix("asearch-") / "model.safetensors", "np") as file:
            assert sum(prod(file.get_slice(key).get_shape()) for key in file.keys()) == size  # noqa: SIM118


def test_memory_stays_small_however_long_a_record_is(scripted_run, tmp_path):
    """A log of 40 MB in records of half a megabyte; what is kept of each is a few bytes."""
    import tracemalloc

    (tmp_path / "run.json").write_bytes((scripted_run / "run.json").read_bytes())
    line = next(r for r in read_records(scripted_run) if r.strategy["name"] == "best_of_n")
    with (tmp_path / "records.jsonl").open("wb") as log:
        from dataclasses import replace

        padding = "x" * 60_000
        for i in range(80):
            texts = [padding + text for text in line.completions]
            log.write(replace(line, unique_id=str(i), completions=texts).to_line())
    assert (tmp_path / "records.jsonl").stat().st_size > 38_000_000
    tracemalloc.start()
    run = gather(tmp_path)
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert run.records == 80
    assert held < 1_000_000
    assert peak < 8_000_000


def test_an_empty_run_and_no_run(scripted_run, tmp_path):
    with pytest.raises(UsageError, match="no run"):
        write_report(tmp_path)
    (tmp_path / "run.json").write_text(json.dumps({"budgets": [1], "entries": []}))
    (tmp_path / "records.jsonl").touch()
    with pytest.raises(UsageError, match="nothing to report"):
        write_report(tmp_path)
