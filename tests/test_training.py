"""How the embedded models are made: tokenizer, labels, deliberate mistakes, training steps, export."""

from __future__ import annotations

import json
import random

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("tokenizers")

from asearch.problem import SYSTEM_PROMPT  # noqa: E402  (after the guards)
from asearch_backends.embedded import task  # noqa: E402
from asearch_backends.training import (  # noqa: E402  # noqa: E402
    export,
    judging,
    language_model,
    llama,
    mistakes,
    optimizer,
    reward_model,
    sampler,
    samples,
    tokens,
    verdicts,
)
from asearch_backends.training.corpus import IGNORED, prompts_of, text_batches  # noqa: E402


@pytest.fixture(scope="module")
def problems():
    return task.generate(11, 40, "train", varied=0.3)


@pytest.fixture(scope="module")
def tiny():
    """A model with random weights everywhere, so that no part of it is the identity."""
    torch.manual_seed(0)
    model = llama.Llama(llama.Shape(tokens.vocabulary_size(), 64, 2, 48))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


# --- tokenizer ---


def test_system_prompt_and_blank_line_are_one_token_each():
    text = tokens.conversation("What is $1 + 2$?", "## Step 1: Add\n$1 + 2 = 3$.\n\n")
    pieces = [tokens.build_tokenizer().id_to_token(number) for number in tokens.encode([text])[0]]
    assert pieces[:4] == ["<|begin|>", "<|system|>", SYSTEM_PROMPT, "<|user|>"]
    assert pieces[4:] == [
        *("What is $", "1", " + ", "2", "$?", "<|assistant|>"),
        *("## Step ", "1", ": Add\n$", "1", " + ", "2", " = ", "3", "$.", "\n\n"),
    ]


def test_any_printable_text_survives_the_round_trip():
    text = "".join(map(chr, range(32, 127))) + "\n## Step 2: $x - y$.\n\n\n\nTherefore, the final answer is: $\\boxed{"
    assert tokens.decode(tokens.encode([text])[0]) == text


def test_unknown_characters_become_the_unknown_token():
    assert tokens.encode(["aé"])[0] == [tokens.token_id("a"), tokens.token_id(tokens.UNKNOWN)]


def test_plain_encoding_adds_the_begin_token_once():
    encoding = tokens.build_tokenizer().encode("1 + 2")
    assert encoding.tokens == ["<|begin|>", "1", " + ", "2"]


def test_chat_template_is_the_format_of_training():
    jinja2 = pytest.importorskip("jinja2")
    template = jinja2.Environment().from_string(tokens.CHAT_TEMPLATE)
    messages = [{"role": "system", "content": SYSTEM_PROMPT}, {"role": "user", "content": "What is $1 + 2$?"}]
    assert template.render(messages=messages, add_generation_prompt=True) == tokens.conversation("What is $1 + 2$?")
    done = [*messages, {"role": "assistant", "content": "3"}]
    assert template.render(messages=done) == tokens.conversation("What is $1 + 2$?", "3") + tokens.END


# --- labels ---


def labelled(problem, answer):
    [example] = verdicts.examples_of([problem], [answer])
    return example, verdicts.verdict_batch([example])


def test_a_right_solution_is_plus_everywhere(problems):
    example, batch = labelled(problems[0], task.solution(problems[0]))
    assert example.kind == "right"
    judged = batch.verdicts[0] != IGNORED
    assert judged.sum() == len(example.ids) - 1 - example.start
    assert (batch.verdicts[0][judged] == tokens.token_id("+")).all()
    assert batch.mismatches[0].nansum() == 0
    written = batch.next_ids[0] != IGNORED
    assert batch.next_ids[0][written].tolist() == example.gold[example.start :]


def test_a_wrong_step_is_minus_from_its_first_wrong_token_on(problems):
    problem = problems[0]
    steps = task.solution_steps(problem.expression)
    head, tail = steps[1].rsplit("=", 1)[0], "= 999$.\n\n"
    example, batch = labelled(problem, "".join([steps[0], head + tail, steps[-1]]))
    place = example.wrong
    assert example.ids[place] == tokens.token_id("9")
    assert example.kind == "value"
    plus, minus = tokens.token_id("+"), tokens.token_id("-")
    assert set(batch.verdicts[0, example.start : place].tolist()) == {plus}
    assert set(batch.verdicts[0, place:].tolist()) == {minus, IGNORED}
    ends = verdicts.step_ends(example.ids[:-1], example.start)
    assert [batch.verdicts[0, end].item() for end in ends] == [plus, minus, minus]
    assert batch.mismatches[0, place] == 1
    assert batch.mismatches[0, place + 1 :].isnan().all()
    assert batch.next_ids[0, place - 1] == example.gold[place]
    assert (batch.next_ids[0, place:] == IGNORED).all()


def test_step_ends_are_blank_lines_and_the_last_token(problems):
    text = task.solution(problems[3])
    start = len(prompts_of([problems[3]])[0])
    ids = tokens.encode([tokens.conversation(problems[3].text, text)])[0]
    ends = verdicts.step_ends(ids, start)
    assert len(ends) == len(task.split_steps(text))
    assert ends[-1] == len(ids) - 1
    partial = ids[: ends[1] + 1]
    assert verdicts.step_ends(partial, start) == ends[:2]


def test_deliberate_mistakes_are_mistakes(problems):
    rng = random.Random(0)
    for problem in problems:
        for _ in range(20):
            assert task.first_wrong_step(problem, mistakes.mistaken_solution(problem.expression, rng)) is not None


def test_deliberate_mistakes_are_copies_as_often_as_arithmetic():
    kinds = [example.kind for example in verdicts.synthetic_examples(0, 600)]
    assert 0.6 < kinds.count("copy") / kinds.count("value") < 1.7
    assert 0.15 < kinds.count("right") / len(kinds) < 0.4


# --- models ---


def test_cached_generation_equals_full_forward(tiny, problems):
    prompts = prompts_of(problems[:6])
    produced = sampler.sample(tiny, prompts, temperature=0)
    for prompt, continuation in zip(prompts, produced, strict=True):
        logits = tiny(torch.tensor([prompt + continuation]))[0]
        expected = logits[len(prompt) - 1 : -1].argmax(-1).tolist()
        assert continuation == expected


def test_sampling_ends_after_the_asked_token(tiny, problems):
    prompts = prompts_of(problems[:4]) * 4
    for continuation in sampler.sample(tiny, prompts, temperature=1.0, ends=["1", "2"]):
        assert not {tokens.token_id("1"), tokens.token_id("2")} & set(continuation[:-1])


def test_sampling_is_seeded(tiny, problems):
    prompts = prompts_of(problems[:4])
    draws = [sampler.sample(tiny, prompts, temperature=1.0, seed=seed) for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]


def test_deepened_model_starts_with_the_states_of_its_base(tiny, problems):
    ids = torch.tensor([prompts_of(problems[:1])[0]])
    deeper = llama.deepen(tiny, 2)
    assert deeper.shape.layers == 4
    assert torch.equal(deeper.hidden(ids)[-1], tiny.hidden(ids)[-1])


def test_orthogonal_evens_out_singular_values():
    matrices = torch.randn(3, 40, 64, generator=torch.Generator().manual_seed(0))
    singular = torch.linalg.svdvals(optimizer.orthogonal(matrices))
    assert singular.min() > 0.5
    assert singular.max() < 1.3


def test_text_batches_are_seeded_and_bounded():
    first, again = (next(text_batches(5, 1024)) for _ in range(2))
    assert torch.equal(first.ids, again.ids)
    assert first.ids.numel() <= 1024
    followers = first.ids[:, 1:]
    kept = (first.targets[:, :-1] != IGNORED) & (followers != tokens.token_id(tokens.PAD))
    assert torch.equal(first.targets[:, :-1][kept], followers[kept])
    assert ((first.targets == tokens.token_id(tokens.END)).sum(dim=1) == 1).all()


def test_a_few_steps_lower_the_loss():
    batch = next(text_batches(0, 1024))
    model = llama.Llama(llama.Shape(tokens.vocabulary_size(), 64, 1, 48))
    before = language_model.text_loss(model, *batch).item()
    optimizers = language_model.optimizers_of(model)
    for _ in range(8):
        language_model.text_loss(model, *batch).backward()
        language_model.apply(optimizers, 0.5)
    assert language_model.text_loss(model, *batch).item() < 0.8 * before


def test_reward_training_learns_a_batch_and_scores_steps(tiny):
    pool = verdicts.synthetic_examples(1, 60)
    trainee = reward_model.train_reward_model(
        tiny, pool, pool[:3], reward_model.RewardRecipe(tokens=3 * 600, batch=600)
    )
    assert trainee.model.shape.layers == tiny.shape.layers + 2
    rows = [(example.ids[:-1], example.start) for example in pool[:5]]
    for (ids, start), scores in zip(rows, judging.step_scores(trainee.model, rows), strict=True):
        assert len(scores) == len(verdicts.step_ends(ids, start))
        assert all(0 <= score <= 1 for score in scores)


def test_export_loads_back_and_is_complete(tiny, tmp_path, problems):
    ids = torch.tensor([prompts_of(problems[:1])[0]])
    deeper = llama.deepen(tiny, 1)
    for model in (tiny, deeper):
        export.export(model, tmp_path / "model")  # the second time over the first
        assert torch.equal(export.load(tmp_path / "model")(ids), model(ids))
    names = {path.name for path in (tmp_path / "model").iterdir()}
    assert {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json"} <= names
    assert "chat_template" in json.loads((tmp_path / "model" / "tokenizer_config.json").read_text())
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_samples_file_brings_back_problems_and_answers(tmp_path):
    drawn = samples.Samples(task.generate(9, 3, varied=samples.VARIED), [["a", "b"], ["c", "d"], ["e", "f"]])
    samples.save_samples(drawn, tmp_path / "samples.json", 9)
    assert samples.load_samples(tmp_path / "samples.json") == drawn


# --- measures ---


def test_area_under_the_curve():
    assert judging.auc([(0.9, True), (0.1, False), (0.5, False)]) == 1
    assert judging.auc([(0.5, True), (0.5, False)]) == 0.5
    assert judging.auc([(0.5, True)]) is None


def test_within_problem_area_ignores_how_hard_problems_are():
    easy, hard = [(0.9, True), (0.95, False)], [(0.1, True), (0.2, False)]
    assert judging.within_problem_auc([easy, hard]) == 0
    assert judging.auc(easy + hard) == 0.25


def test_shortened_examples_end_with_the_first_wrong_step():
    for example in verdicts.synthetic_examples(2, 100):
        shorter = verdicts.shorten(example)
        read = shorter.ids[:-1]  # the last token is never read
        assert read == example.ids[: len(read)]
        if example.wrong is None:
            assert shorter == example
        else:
            later = [end for end in verdicts.step_ends(read, example.start) if end >= example.wrong]
            assert later == [len(read) - 1]


def test_the_learning_rate_rises_stays_and_falls():
    factors = [optimizer.schedule(step, 1000, warm_up=100, flat=0.5, last=0.02) for step in range(1001)]
    assert factors[0] < factors[50] < factors[99] == 1.0
    assert set(factors[99:501]) == {1.0}
    assert factors[501:] == sorted(factors[501:], reverse=True)
    assert factors[-1] == pytest.approx(0.02)
