"""Datasets on the hub, against a stand-in that speaks its API; each load is a process, as HF_ENDPOINT is read once."""

import io
import json
import os
import subprocess
import sys

import pyarrow as pa
import pytest
from hub_standin import COMMIT, Hub, commit_of
from pyarrow import parquet

from asearch import UsageError
from asearch.evaluation.hub import choose, is_hub_id, place

MATH = [{"problem": f"{i}+1?", "answer": str(i + 1), "unique_id": f"t/{i}", "level": 1} for i in range(4)]
AIME = [{"id": i, "problem": f"{i}+2?", "answer": i + 2, "url": "x"} for i in range(3)]
LOAD = """
import asyncio, json, sys
from asearch import AsearchError
from asearch.evaluation import Source, load_dataset

for name, options in json.loads(sys.argv[1]):
    try:
        dataset = asyncio.run(load_dataset(Source(name, **options)))
        found = {"ids": [q.id for q in dataset.questions], "answers": [q.answer for q in dataset.questions]}
        print(json.dumps(found | {"revision": dataset.origin["revision"]}))
    except AsearchError as failure:
        print(json.dumps({"error": str(failure), "usage": failure.__class__.__name__ == "UsageError"}))
"""


def as_parquet(rows):
    out = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(rows), out)
    return out.getvalue()


def as_jsonl(rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


@pytest.fixture(scope="module")
def hub():
    hub = Hub()
    hub.add("HuggingFaceH4/MATH-500", {"README.md": b"# MATH", ".gitattributes": b"", "test.jsonl": as_jsonl(MATH)})
    hub.add("HuggingFaceH4/MATH-500", {"test.jsonl": as_jsonl(MATH[:1])}, revision="old")
    hub.add("AI-MO/aimo-validation-aime", {"data/train-00000-of-00001.parquet": as_parquet(AIME)})
    halves = {f"main/test-0000{i}-of-00002.parquet": as_parquet(AIME[i : i + 1]) for i in range(2)}
    hub.add(
        "openai/gsm8k", halves | {"main/train-00000-of-00001.parquet": b"", "socratic/test-00000-of-00001.parquet": b""}
    )
    hub.add("some/script", {"script.py": b"", "README.md": b""})
    hub.add("some/script", {"default/test/0000.parquet": as_parquet(AIME)}, revision="refs/convert/parquet")
    hub.add("some/pictures", {"a.png": b""})
    hub.add("some/gated", {"test.jsonl": b""})
    hub.gated.add("some/gated")
    return hub


def load(asked, cache, endpoint, **environment):
    """What each of these datasets gives, in one process."""
    settings = {"HF_ENDPOINT": endpoint, "HF_HOME": str(cache), "HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "*"}
    done = subprocess.run(
        [sys.executable, "-c", LOAD, json.dumps(asked)],
        env={**os.environ, **settings, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_datasets_of_the_hub_and_then_of_its_cache(hub, tmp_path):
    asked = [
        ("HuggingFaceH4/MATH-500", {}),
        ("HuggingFaceH4/MATH-500", {"split": "test", "limit": 2}),
        ("AI-MO/aimo-validation-aime", {}),
        ("openai/gsm8k", {"subset": "main"}),
    ]
    with hub.serving() as endpoint:
        found = load(asked, tmp_path, endpoint)
        assert load(asked, tmp_path, endpoint, HF_HUB_OFFLINE="1") == found
    assert found[0] == {"ids": ["t/0", "t/1", "t/2", "t/3"], "answers": ["1", "2", "3", "4"], "revision": COMMIT}
    assert found[1]["ids"] == ["t/0", "t/1"]
    assert found[2]["answers"] == ["2", "3", "4"]
    assert found[3]["answers"] == ["2", "3"]  # both halves of the split, in order
    fetched = [line for line in hub.requests if line.startswith("GET") and "resolve" in line]
    assert len(fetched) == 4  # nothing twice, and nothing that was not needed
    assert load(asked, tmp_path, endpoint) == found  # the hub is gone: its cache is there


def test_what_the_hub_does_not_give(hub, tmp_path):
    asked = [
        ("HuggingFaceH4/MATH-500@old", {}),
        ("some/script", {}),
        ("nobody/nothing", {}),
        ("HuggingFaceH4/MATH-500@none", {}),
        ("HuggingFaceH4/MATH-500", {"split": "train"}),
        ("openai/gsm8k", {}),
        ("some/pictures", {}),
        ("some/gated", {}),
    ]
    with hub.serving() as endpoint:
        old, converted, nobody, none, split, subsets, pictures, gated = load(asked, tmp_path, endpoint)
    (unreachable,) = load([("some/other", {})], tmp_path, "http://127.0.0.1:9")
    assert (old["ids"], old["revision"]) == (["t/0"], commit_of("old"))
    assert converted["answers"] == ["2", "3", "4"]  # the hub's own conversion
    assert "no dataset nobody/nothing" in nobody["error"]
    assert "no dataset HuggingFaceH4/MATH-500@none" in none["error"]
    assert "no split 'train'; it has 'test'" in split["error"]
    assert "several subsets: choose one of 'main', 'socratic' (--subset)" in subsets["error"]
    assert "no file of a kind that can be read" in pictures["error"]
    assert "asks for consent" in gated["error"]
    assert "cannot be reached" in unreachable["error"]
    assert not unreachable["usage"]
    assert all(answer["usage"] for answer in (nobody, none, split, subsets, pictures))


@pytest.mark.parametrize(
    ("file", "found"),
    [
        ("test.jsonl", ("", "test")),
        ("data/test-00000-of-00001.parquet", ("", "test")),
        ("main/train-00003-of-00010.parquet", ("main", "train")),
        ("default/test/0000.parquet", ("default", "test")),
        ("en/data/validation.csv", ("en", "validation")),
    ],
)
def test_where_a_file_belongs(file, found):
    assert place(file) == found


def test_a_split_is_chosen_where_there_is_no_doubt():
    assert choose(["train.jsonl", "test.jsonl"], "x/y", None, None) == ["test.jsonl"]
    assert choose(["train.jsonl"], "x/y", None, None) == ["train.jsonl"]
    assert choose(["a.jsonl", "test-00000-of-00001.parquet"], "x/y", None, None) == ["test-00000-of-00001.parquet"]
    with pytest.raises(UsageError, match="several splits: choose one of 'a', 'b'"):
        choose(["a.jsonl", "b.jsonl"], "x/y", None, None)


def test_ids_of_the_hub():
    assert all(map(is_hub_id, ["a/b", "HuggingFaceH4/MATH-500", "a/b@v1.0", "a/b@refs/pr/1"]))
    assert not any(map(is_hub_id, ["a", "a/b/c", "/a/b", "a b/c", "../x/y"]))
