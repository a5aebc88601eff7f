"""`asearch eval` and `asearch.evaluate` on the embedded servers, and what people see of a run."""

import asyncio
import io
import json
from importlib.metadata import version

import pytest
from eval_runs import lines, questions, scripted, settled, small_run
from rich.console import Console

import asearch
from asearch.cli import main
from asearch.embedded import embedded_problems, embedded_server
from asearch.evaluation import read_config, read_records
from asearch.evaluation.live import Live, duration, short
from asearch.evaluation.searcher import Model, Verifiers


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    file = tmp_path_factory.mktemp("dataset") / "problems.jsonl"
    problems = asyncio.run(embedded_problems(4, seed=5))
    file.write_text("".join(json.dumps({"question": p, "gold": a}) + "\n" for p, a in problems))
    return file


def command(dataset, servers, out, *more):
    return [
        *("eval", str(dataset), "--answer-column", "gold", "--policy", servers.policy, "--prm", servers.prm),
        *("--strategies", "greedy", "majority", "best-of-n", "dvts:width=2", "-n", "1", "2", "4", "--seeds", "2"),
        *("--out", str(out), *more),
    ]


def test_the_command_from_its_beginning_to_its_end(dataset, servers, tmp_path, capsys):
    out = tmp_path / "run"
    assert main(command(dataset, servers, out)) == 0
    shown = capsys.readouterr()
    for label in ("greedy", "majority", "best-of-N, weighted", "best-of-N, best", "DVTS, width 2"):
        assert label in shown.out
    assert f"20 searches in {out}" in shown.out
    assert "DVTS, width 2, n=4" in shown.err  # told as it ended
    assert main(command(dataset, servers, out, "--json")) == 0
    shown = capsys.readouterr()
    assert "going on: 20 of 20" in shown.err
    table = {(line["label"], line["n"]): line for line in json.loads(shown.out)["lines"]}
    assert {n for label, n in table if label == "majority"} == {1, 2, 4}
    assert {n for label, n in table if label == "DVTS, width 2"} == {2, 4}
    for (label, n), line in table.items():
        right = [r.right for r in read_records(out) if r.label == label and r.n == n]
        if right and label in ("greedy", "DVTS, width 2"):
            assert line["accuracy"] == pytest.approx(sum(right) / len(right))
    assert table["majority", 4]["cost"]["prm_tokens"] == 0 < table["best-of-N, weighted", 4]["cost"]["prm_tokens"]
    assert main(command(dataset, servers, out, "--temperature", "0.5")) == 2
    assert "strategy.temperature is 0.8 in the folder and 0.5 now" in capsys.readouterr().err


def test_what_the_folder_says(dataset, servers, tmp_path, capsys):
    out = tmp_path / "run"
    assert main(command(dataset, servers, out)) == 0
    config = read_config(out)
    assert config["models"]["policy"] == {
        "model": "asearch-policy",
        "mode": "tokens",
        "max_model_len": 512,
        "client": "OpenAIClient",
        "url": servers.policy,
        "version": version("asearch"),
    }
    assert config["models"]["prm"]["family"] == "embedded"
    assert config["system_prompt"].startswith("Solve the following")
    assert config["dataset"]["questions"] == 4
    records = list(read_records(out))
    assert {record.model for record in records} == {"asearch-policy"}
    assert all(record.prompt_tokens and record.prompt_tokens < 100 for record in records)
    for record in records:
        trees = record.strategy["name"] == "dvts"
        assert (record.tree is not None) == trees
        assert sum(record.branch_tokens) == record.explored_tokens == record.usage.policy_tokens
    capsys.readouterr()


async def test_a_larger_policy_is_a_baseline(servers, tmp_path, workers):
    async with embedded_server("policy", "--served-model-name", "bigger") as url:
        run = await asearch.evaluate(
            await embedded_problems(2, 1), servers.policy, None, ["greedy"], baseline=url, out=tmp_path, workers=workers
        )
    first, second = (
        [line for line in lines(run.folder) if line["model"] == model] for model in ("asearch-policy", "bigger")
    )
    assert {line["label"] for line in second} == {"greedy, larger policy"}
    assert [line["completions"] for line in first] == [
        line["completions"] for line in second
    ]  # it is the same model here


async def test_a_call_from_python_is_gone_on_with(tmp_path, workers):
    counted = []
    run = await small_run(tmp_path / "a", workers=workers, watch=lambda progress: counted.append(progress.done))
    assert counted == list(range(run.searches + 1))
    assert run.complete
    assert len(list(run.records())) == run.searches
    one_by_one = await small_run(tmp_path / "b", workers=workers, at_once=1)
    assert settled(run.folder) == settled(one_by_one.folder)
    assert [line["unique_id"] for line in lines(one_by_one.folder)][:5] == list("01234")


async def test_strategies_as_values(tmp_path, workers):
    beam = asearch.BeamSearch(n=8, width=2, lookahead=1)
    run = await asearch.evaluate(questions(2), *scripted(), [beam], seeds=[7], out=tmp_path / "run", workers=workers)
    assert [record.key[:3] for record in run.records()] == [("beam search", 8, 7)] * 2
    assert next(run.records()).strategy["lookahead"] == 1
    pair = [beam, ("beam search, no look", asearch.BeamSearch(n=8, width=2))]
    run = await asearch.evaluate(questions(1), *scripted(), pair, seeds=1, out=tmp_path / "pair", workers=workers)
    assert {record.label for record in run.records()} == {"beam search", "beam search, no look"}
    with pytest.raises(asearch.UsageError, match="two strategies are called 'beam search' at n=8: give one a label"):
        await asearch.evaluate(questions(1), *scripted(), [beam, beam], out=tmp_path / "other")
    with pytest.raises(asearch.UsageError, match="not int"):
        await asearch.evaluate(questions(2), *scripted(), [5], out=tmp_path / "other")
    with pytest.raises(asearch.UsageError, match="at_once must be at least 1"):
        await asearch.evaluate(questions(2), *scripted(), [beam], out=tmp_path / "other", at_once=0)
    assert not (tmp_path / "other").exists()


async def test_no_more_at_once_than_asked_for(tmp_path, workers):
    at_once, most = set(), 0

    def latency(path, _seed):
        nonlocal most
        at_once.add(path.problem.id)
        most = max(most, len(at_once))
        return 0

    def watch(progress):
        at_once.clear()

    client, prm = scripted(latency=latency)
    await small_run(tmp_path / "run", client=client, prm=prm, workers=workers, at_once=3, count=9, watch=watch)
    assert most <= 3


async def test_every_strategy_and_seed_has_a_verifier_of_its_own(monkeypatch):
    """One that remembers what another had scored would make it look cheaper than it is."""
    closed = []

    class Made:
        def __init__(self, number):
            self.number = number

        async def connect(self):
            pass

        async def score(self, path):
            return []

        async def aclose(self):
            closed.append(self.number)

    numbers = iter(range(10))
    monkeypatch.setattr("asearch.evaluation.searcher.as_prm", lambda *_, **__: Made(next(numbers)))
    verifiers = Verifiers(Model("http://prm"))
    async with verifiers.of("a") as first, verifiers.of("a") as same:
        assert first is same
        async with verifiers.of("b") as second:
            assert second is not first
        assert closed == []
    assert closed == [0]  # "b" is the latest, and may have more searches to come
    async with verifiers.of("b") as again, verifiers.of("c", wanted=False) as unwanted:
        assert again is second
        assert unwanted is None
    await verifiers.aclose()
    assert closed == [0, 1]


async def test_a_verifier_of_the_caller_is_left_open(tmp_path, workers):
    client, prm = scripted()
    prm.closed = False

    async def aclose():
        prm.closed = True

    prm.aclose = client.aclose = aclose
    await small_run(tmp_path / "run", client=client, prm=prm, workers=workers)
    assert not prm.closed


async def test_what_a_terminal_shows(tmp_path, workers):
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=True, width=110)
    with Live(console) as live:
        await small_run(tmp_path / "run", workers=workers, watch=live)
    text = shown.getvalue()
    assert "all searches" in text
    assert "DVTS, n=8" in text
    assert "tokens" in text
    assert "accuracy" in text


@pytest.mark.parametrize(
    ("seconds", "said"), [(5, "0:05"), (75, "1:15"), (3700, "1 h 01 min"), (200_000, "55 h 33 min")]
)
def test_durations(seconds, said):
    assert duration(seconds) == said


@pytest.mark.parametrize(("count", "said"), [(7, "7"), (1500, "1.5k"), (2.5e6, "2.5M"), (3e9, "3.0G")])
def test_short_numbers(count, said):
    assert short(count) == said
