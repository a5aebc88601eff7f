"""The PRM server: its scores are those of a plain forward pass, whatever the family and the batch."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import subprocess
import sys
import zlib
from contextlib import asynccontextmanager

import aiohttp
import pytest
import reference_scores as reference

from asearch import AuthError, BadRequest, Budget, ModelNotFound, Problem
from asearch.concurrency import together
from asearch.families import FAMILIES
from asearch.prm import PoolingPRM, as_prm
from asearch.testing import assert_prm_laws
from asearch.testing.prms import PROBLEM, STEPS, path_of
from asearch.transport import Retry
from asearch.usage import BudgetSpent, Ledger, ledger
from raw_http import raw_post

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
TOLERANCE = 1e-5
ONE_TRY = {"retry": Retry(attempts=1)}
# family -> the checkpoint that stands for it, and the plain forward pass of its card
CARDS = {
    "qwen-math": ("qwen_prm", reference.qwen),
    "skywork": ("skywork", reference.skywork),
    "trl": ("qwen_tokens", reference.trl),
    "rlhflow-deepseek": ("llama", lambda folder, q, s: reference.Causal(folder).rlhflow(q, s)),
    "rlhflow-mistral": ("llama", lambda folder, q, s: reference.Causal(folder).rlhflow(q, s)),
    "versaprm": ("llama", lambda folder, q, s: reference.Causal(folder).versa(q, s)),
    "math-shepherd": ("mistral", lambda folder, q, s: reference.Causal(folder).shepherd(q, s)),
}


@asynccontextmanager
async def serving(folder, family=None, **options):
    """A server in this process, on a free port; yields its URL and itself."""
    from asearch_backends.prm.checkpoint import load_checkpoint
    from asearch_backends.prm.scorer import Scorer
    from asearch_backends.prm.server import Server, listening

    length = options.pop("max_length", None)
    batch = options.pop("max_batch_tokens", 16_384)
    checkpoint = load_checkpoint(str(folder), family=FAMILIES[family] if family else None, max_length=length)
    server = Server(Scorer(checkpoint, max_batch_tokens=batch), name="tiny", **options)
    async with listening(server, "127.0.0.1", 0) as url:
        yield url, server


@asynccontextmanager
async def closing(prm):
    try:
        yield prm
    finally:
        await prm.aclose()


@asynccontextmanager
async def booked(tokens=None):
    """The books of a search that may spend so many tokens."""
    book = Ledger(Budget(tokens=tokens))
    before = ledger.set(book)
    try:
        yield book
    finally:
        ledger.reset(before)


@pytest.mark.parametrize("family", CARDS)
async def test_scores_are_those_of_the_card(family, checkpoints):
    kind, card = CARDS[family]
    async with serving(checkpoints / kind, family) as (url, _), closing(as_prm(url)) as prm:
        got = await prm.score(path_of(Problem(PROBLEM), STEPS))
    assert got == pytest.approx(card(checkpoints / kind, PROBLEM, STEPS), abs=TOLERANCE)
    assert max(got) - min(got) > 1e-3  # the checkpoint tells steps apart, so agreement says something


@pytest.mark.parametrize("family", CARDS)
async def test_a_budget_that_is_just_enough_is_enough(family, checkpoints):
    """The server counts exactly what it will read; a token less, and nothing is sent."""
    path = path_of(Problem(PROBLEM), STEPS)
    async with serving(checkpoints / CARDS[family][0], family) as (url, server):
        async with booked() as book, closing(as_prm(url)) as prm:
            await prm.score(path)
        needed = book.usage.prm_tokens
        assert needed == server.counters.tokens > len(STEPS)
        async with booked(tokens=needed) as book, closing(as_prm(url)) as prm:
            assert len(await prm.score(path)) == len(STEPS)
            assert book.usage.prm_tokens == needed
        before = server.counters.paths
        async with booked(tokens=needed - 1), closing(as_prm(url)) as prm:
            with pytest.raises(BudgetSpent):
                await prm.score(path)
        assert server.counters.paths == before


async def test_tokenize_answers_as_vllm_does(checkpoints):
    from transformers import AutoTokenizer

    plain = AutoTokenizer.from_pretrained(checkpoints / "llama")
    messages = [{"role": "user", "content": "1+1"}, {"role": "assistant", "content": "2"}]
    asked = [
        ({"prompt": "1+1"}, plain("1+1")["input_ids"]),
        ({"prompt": "1+1", "add_special_tokens": False}, plain("1+1", add_special_tokens=False)["input_ids"]),
        ({"prompt": ""}, plain("")["input_ids"]),
        ({"messages": messages[:1]}, chat_ids(plain, messages[:1], add_generation_prompt=True)),
        ({"messages": messages, "add_generation_prompt": False}, chat_ids(plain, messages)),
        (
            {"messages": messages, "add_generation_prompt": False, "continue_final_message": True},
            chat_ids(plain, messages, continue_final_message=True),
        ),
        ({"messages": messages, "add_special_tokens": True}, None),
    ]
    async with serving(checkpoints / "llama", "versaprm") as (url, _), aiohttp.ClientSession() as http:
        for body, ids in asked:
            async with http.post(f"{url}/tokenize", json={"model": "tiny", "return_token_strs": True, **body}) as reply:
                answer = await reply.json()
            assert reply.status == 200, answer
            assert answer["count"] == len(answer["tokens"]) == len(answer["token_strs"])
            assert answer["max_model_len"] == 2048
            assert ids is None or answer["tokens"] == ids
        async with http.post(f"{url}/tokenize", json={"prompt": "x " * 2100}) as reply:
            assert (await reply.json())["count"] > 2048, "counted, however long"
            assert (await reply.json())["token_strs"] is None


def chat_ids(tokenizer, messages, **options):
    text = tokenizer.apply_chat_template(messages, tokenize=False, **options)
    return tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({}, 400, "one of prompt (a text), messages, or problem and steps"),
        ({"prompt": 3}, 400, "one of prompt (a text)"),
        ({"messages": []}, 400, "messages must be a list"),
        ({"messages": [{"role": "user", "content": ["x"]}]}, 400, "messages must be a list"),
        ({"messages": [{"role": "user", "content": "x"}]}, 400, "the chat cannot be rendered: "),
        ({"problem": "x"}, 400, "an input must be"),
        ({"problem": "x", "steps": [" "]}, 400, "none is blank"),
        ({"model": "other", "prompt": "x"}, 404, "does not exist"),
    ],
)
async def test_what_cannot_be_tokenized_is_told_so(body, status, said, checkpoints):
    """Of a model that has no chat template."""
    async with serving(checkpoints / "mistral", "math-shepherd") as (url, _):
        ((told, answer),) = await raw_post(url, "/tokenize", json.dumps(body).encode())
    error = json.loads(answer)["error"]
    assert (told, error["code"]) == (status, status)
    assert said in error["message"]


@pytest.mark.parametrize("family", CARDS)
async def test_laws(family, checkpoints):
    async with serving(checkpoints / CARDS[family][0], family) as (url, _), closing(as_prm(url)) as prm:
        await assert_prm_laws(prm, tolerance=TOLERANCE)


async def test_a_family_that_is_passed_is_read_from_rows_there_too(checkpoints):
    """Our server has no completions, so a causal family is asked for rows."""
    async with serving(checkpoints / "llama", "versaprm") as (url, _), closing(as_prm(url, family="versaprm")) as prm:
        assert len(await prm.score(path_of(Problem(PROBLEM), STEPS))) == len(STEPS)


async def test_half_precision_is_near(checkpoints):
    from asearch_backends.prm.checkpoint import load_checkpoint
    from asearch_backends.prm.scorer import Scorer

    scorer = Scorer(load_checkpoint(str(checkpoints / "qwen_prm"), dtype="bfloat16"))
    (rows,) = scorer.score([scorer.encode_path(PROBLEM, STEPS)])
    expected = reference.qwen(checkpoints / "qwen_prm", PROBLEM, STEPS)
    assert [row[1] for row in rows] == pytest.approx(expected, abs=0.1)


async def test_the_architecture_tells_the_family(checkpoints):
    for kind, family in (("qwen_prm", "qwen-math"), ("qwen_tokens", "trl"), ("skywork", "skywork")):
        async with serving(checkpoints / kind) as (_, server):
            assert server.scorer.checkpoint.family.name == family


async def test_as_vllm_would_be_asked(checkpoints):
    """Text that is laid out already gives a row per tag, as /pooling of vLLM does."""
    async with serving(checkpoints / "qwen_prm") as (url, _):
        steps = [step.strip() for step in STEPS]
        text = FAMILIES["qwen-math"].render(Problem(PROBLEM), steps)
        body = {"model": "tiny", "input": text}
        async with aiohttp.ClientSession() as session, session.post(f"{url}/pooling", json=body) as reply:
            answer = await reply.json()
    expected = reference.qwen(checkpoints / "qwen_prm", PROBLEM, STEPS)
    assert [row[1] for row in answer["data"][0]["data"]] == pytest.approx(expected, abs=TOLERANCE)
    assert all(sum(row) == pytest.approx(1.0) for row in answer["data"][0]["data"])
    assert answer["usage"]["prompt_tokens"] > len(STEPS)


async def test_batches_change_nothing_and_save_passes(checkpoints):
    """Forty paths of mixed lengths: the scores of each alone, in far fewer forward passes."""
    problem = Problem(PROBLEM)
    paths = [path_of(problem, [f"{'long ' * (i % 5)} step {i}\n\n", *STEPS[: i % 4]]) for i in range(40)]
    async with serving(checkpoints / "skywork") as (url, server):
        async with closing(PoolingPRM(url)) as prm:
            alone = [await prm.score(path) for path in paths]
        before = server.scorer.forward_passes
        async with closing(PoolingPRM(url)) as prm:
            together_scores = await together(prm.score(path) for path in paths)
        passes = server.scorer.forward_passes - before
    assert before == len(paths)
    assert passes <= 20
    for one, other in zip(alone, together_scores, strict=True):
        assert one == pytest.approx(other, abs=TOLERANCE)


async def test_groups_keep_to_the_budget_of_tokens(checkpoints):
    async with serving(checkpoints / "skywork", max_batch_tokens=200) as (_, server):
        scorer = server.scorer
        paths = [scorer.encode_path("x", ["word " * k]) for k in range(1, 60)]
        groups = list(scorer.groups(paths))
    assert sorted(i for group in groups for i in group) == list(range(len(paths)))
    for group in groups:
        assert len(group) == 1 or max(len(paths[i]) for i in group) * len(group) <= 200


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"{", "not JSON"),
        (b"[]", "JSON object"),
        (b'{"input": []}', "input must be"),
        (b'{"input": [null]}', "one kind"),
        (b'{"input": {"problem": "x"}}', "an input must be"),
        (b'{"input": {"problem": " ", "steps": ["a"]}}', "problem is empty"),
        (b'{"input": {"problem": "x", "steps": []}}', "none is blank"),
        (b'{"input": {"problem": "x", "steps": ["a", " "]}}', "none is blank"),
        (b'{"input": [[1, 99999999]]}', "token ids must be"),
        (b'{"input": ""}', "no tokens"),
        (json.dumps({"input": {"problem": "x", "steps": ["word " * 5000]}}).encode(), "maximum context length"),
        (json.dumps({"input": ["a"] * 1025}).encode(), "1025 inputs"),
    ],
)
async def test_bad_requests_are_told_what_is_wrong(body, said, checkpoints):
    async with serving(checkpoints / "skywork") as (url, _), aiohttp.ClientSession() as session:
        async with session.post(f"{url}/pooling", data=body) as reply:
            answer = await reply.json()
        assert reply.status == 400
        assert said in answer["error"]["message"]
        async with session.get(f"{url}/health") as reply:
            assert reply.status == 200


@pytest.mark.timeout(20)
@pytest.mark.parametrize("coding", ["deflate", "gzip", "br"])
async def test_compressed_bodies_are_refused(coding, checkpoints):
    """Whether they are what they are said to be or not; aiohttp alone waits for ever for some of them."""
    plain = json.dumps({"input": {"problem": "x", "steps": ["a"]}}).encode()
    async with serving(checkpoints / "skywork") as (url, server):
        for body in (b"{}", plain, zlib.compress(plain), b""):
            ((status, said),) = await raw_post(url, "/pooling", body, headers=[("Content-Encoding", coding)])
            assert status == json.loads(said)["error"]["code"] == 415
            assert "must not be compressed" in json.loads(said)["error"]["message"]
        assert (await raw_post(url, "/pooling", plain))[0][0] == 200
        assert server.counters.errors == 4


async def test_limits_key_and_metrics(checkpoints):
    async with serving(checkpoints / "skywork", api_key="s3cret", max_body=4096, max_length=64) as (url, _):
        path = path_of(Problem("x"), ["a"])
        async with closing(PoolingPRM(url, api_key="wrong")) as prm:
            with pytest.raises(AuthError) as denied:
                await prm.score(path)
            assert "s3cret" not in str(denied.value)
        async with closing(PoolingPRM(url, api_key="s3cret")) as prm:
            assert len(await prm.score(path)) == 1
            with pytest.raises(BadRequest, match="larger than 4096 bytes"):
                await prm.score(path_of(Problem("x"), ["a" * 5000]))
            with pytest.raises(BadRequest, match="maximum context length is 64"):
                await prm.score(path_of(Problem("x"), ["a b " * 60]))
        async with closing(PoolingPRM(url, api_key="s3cret", model="other")) as prm:
            with pytest.raises(ModelNotFound, match="tiny"):
                await prm.score(path)
        headers = {"Authorization": "Bearer s3cret"}
        async with aiohttp.ClientSession(headers=headers) as session, session.get(f"{url}/metrics") as reply:
            metrics = await reply.text()
        assert "asearch_prm_paths_total 1.0" in metrics
        assert "asearch_prm_errors_total 2.0" in metrics


async def test_a_path_that_is_too_long_fails_alone(checkpoints):
    """Its neighbours in the same batch get their scores."""
    async with serving(checkpoints / "skywork", max_length=64) as (url, _), closing(PoolingPRM(url)) as prm:
        paths = [path_of(Problem("x"), [f"a {i} " * (80 if i == 3 else 2)]) for i in range(6)]
        results = await asyncio.gather(*(prm.score(path) for path in paths), return_exceptions=True)
    assert [isinstance(result, BadRequest) for result in results] == [i == 3 for i in range(6)]


def program(*arguments, **options):
    return subprocess.run(
        [sys.executable, "-m", "asearch_backends.prm", *arguments],
        capture_output=True,
        text=True,
        check=False,
        **options,
    )


def test_as_a_program(checkpoints):
    """It says where it listens, and stops at SIGTERM."""
    command = [sys.executable, "-m", "asearch_backends.prm", "--model", str(checkpoints / "skywork")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        try:
            ready = json.loads(server.stdout.readline())
            assert ready["family"] == "skywork"
            assert ready["model"] == "skywork"
            assert asyncio.run(score_once(ready["url"])) == pytest.approx(
                reference.skywork(checkpoints / "skywork", PROBLEM, STEPS), abs=TOLERANCE
            )
            server.send_signal(signal.SIGTERM)
            assert server.wait(timeout=30) == 0
        finally:
            server.kill()


async def score_once(url):
    async with closing(as_prm(url)) as prm:
        return await prm.score(path_of(Problem(PROBLEM), STEPS))


def test_broken_checkpoints_are_told_in_a_line(checkpoints, tmp_path):
    from asearch_backends.prm.checkpoint import CheckpointError, load_checkpoint

    broken = shutil.copytree(checkpoints / "skywork", tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"no weights")
    untold = shutil.copytree(checkpoints / "skywork", tmp_path / "untold")
    (untold / "tokenizer.json").unlink()
    (tmp_path / "empty").mkdir()
    for folder in (broken, untold, tmp_path / "empty"):
        with pytest.raises(CheckpointError, match=folder.name) as raised:
            load_checkpoint(str(folder), family=FAMILIES["skywork"])
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("device", "said"), [("cuda:99", "no device cuda:99"), ("nonsense", "is no device")])
def test_devices_that_are_not_there(device, said, checkpoints):
    from asearch_backends.prm.checkpoint import CheckpointError, load_checkpoint

    with pytest.raises(CheckpointError, match=said):
        load_checkpoint(str(checkpoints / "skywork"), device=device)


async def test_a_model_that_fails_is_an_answer_not_a_hang(checkpoints, monkeypatch):
    """As torch does when the memory is not enough: the batch is halved, and what fails alone is told so."""
    async with serving(checkpoints / "skywork") as (url, server), closing(PoolingPRM(url, **ONE_TRY)) as prm:
        works = server.scorer.score

        def score(paths):
            if len(paths) > 2 or any(len(path) > 60 for path in paths):
                raise RuntimeError("out of memory\nand much more")
            return works(paths)

        monkeypatch.setattr(server.scorer, "score", score)
        paths = [path_of(Problem("x"), [f"a {i} " * (40 if i == 3 else 2)]) for i in range(6)]
        await prm.connect()
        results = await asyncio.gather(*(prm.score(path) for path in paths), return_exceptions=True)
        assert str(results[3]).endswith("out of memory (HTTP 500)")


def test_wrong_calls_of_the_program(checkpoints, tmp_path):
    missing = program("--model", str(tmp_path / "nothing"))
    assert missing.returncode == 1
    assert "there is no folder" in missing.stderr
    unknown = program("--model", str(checkpoints / "llama"))
    assert unknown.returncode == 1
    assert "pass --family" in unknown.stderr
    wrong = program("--model", str(checkpoints / "llama"), "--family", "skywork")
    assert wrong.returncode == 1
    assert "v_head.summary" in wrong.stderr
    assert program("--model", "x", "--family", "none").returncode == 2
    for failed in (missing, unknown, wrong):
        assert len(failed.stderr.strip().splitlines()) == 1
