"""A stage for Ray Data: from Parquet to Parquet, with every column that was there and those that a search adds."""

import warnings

import pytest
from pyarrow import parquet

import asearch
import asearch.ray
from asearch import UsageError
from asearch.embedded import embedded_problems

pytest.importorskip("ray")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Ray warns of itself
    data = pytest.importorskip("ray.data")

pytestmark = pytest.mark.filterwarnings("ignore")


async def solved(problem, name, servers, strategy):
    question = asearch.Problem(problem, id=name)
    return await asearch.solve(strategy, servers.policy, servers.prm, question, seed=3)


async def test_from_parquet_to_parquet(cluster, servers, tmp_path):
    problems = await embedded_problems(6, seed=21)
    rows = [{"name": f"p{i}", "question": p, "gold": a} for i, (p, a) in enumerate(problems)]
    strategy = asearch.BestOfN(n=4, early_stop=False)
    data.DataContext.get_current().enable_progress_bars = False
    given = data.from_items([*rows, {"name": "empty", "question": " ", "gold": "1"}], override_num_blocks=2)
    stage = asearch.ray.map_problems(
        given,
        strategy,
        policy=servers.policy,
        prm=servers.prm,
        problem_column="question",
        id_column="name",
        candidates=True,
        workers=2,
        at_once=2,
        seed=3,
    )
    stage.write_parquet(str(tmp_path / "out"))
    found = {row["name"]: row for row in parquet.read_table(tmp_path / "out").to_pylist()}
    assert found.keys() == {"empty", *(row["name"] for row in rows)}
    assert "empty" in found["empty"]["error"]
    assert found["empty"]["prediction"] is None
    for row in rows:
        got = found[row["name"]]
        expected = await solved(row["question"], row["name"], servers, strategy)
        assert (got["question"], got["gold"], got["error"]) == (row["question"], row["gold"], None)
        assert got["prediction"] == expected.answer
        assert got["completion"] == expected.text
        assert got["score"] == pytest.approx(expected.score, abs=1e-5)
        assert got["completions"] == [path.text for path in expected.paths]
        assert got["answers"] == list(expected.answers)
        assert [len(scores) for scores in got["scores"]] == [len(path.scores) for path in expected.paths]
        assert got["policy_tokens"] == expected.usage.policy_tokens


def test_refused_before_anything_is_started():
    with pytest.raises(UsageError, match="dvts needs a PRM"):
        asearch.ray.map_problems(None, "dvts", policy="http://policy")
    with pytest.raises(UsageError, match="must be at least 1"):
        asearch.ray.map_problems(None, "majority", policy="http://policy", workers=0)
    with pytest.raises(UsageError, match="need a server by its URL, not object"):
        asearch.ray.map_problems(None, "majority", policy=object())
