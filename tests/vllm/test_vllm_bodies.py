"""The checkpoints of benchmarks/speed/bodies.py compute what their seeds compute, whatever is added."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

sys.path.append(str(Path(__file__).parents[2] / "benchmarks" / "speed"))

import bodies  # noqa: E402 - found by the line above

TEXT = "What is $(3+4)*5-2$?\n\nFirst, 3+4 = 7.\n\nThen 7*5 = 35."
SMALL = {
    "policy": bodies.Shape(vocab=300, hidden=256, inner=512, layers=6, heads=8, kv=4, dim=64),
    "prm": bodies.Shape(vocab=300, hidden=320, inner=704, layers=8, heads=16, kv=8, dim=128),
}


def log_probabilities(folder: Path) -> torch.Tensor:
    """Of every next token of the text, [tokens, vocabulary]."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        logits = model(tokenizer(TEXT, return_tensors="pt").input_ids).logits
    return logits[0].log_softmax(-1)


@pytest.mark.parametrize("name", SMALL)
def test_a_body_says_what_its_seed_says(name: str, tmp_path: Path) -> None:
    bodies.write(bodies.MODELS / name, tmp_path, SMALL[name], torch.float32)
    seed, body = log_probabilities(bodies.MODELS / name), log_probabilities(tmp_path)
    likely = seed > -8
    assert (seed - body[:, : seed.shape[1]])[likely].abs().max() < 1e-3
    assert body[:, seed.shape[1] :].max() < -15, "an added token can be sampled"


def test_all_that_is_added_is_computed(tmp_path: Path) -> None:
    """A matrix of zeros costs a GPU less than one of numbers."""
    bodies.write(bodies.MODELS / "policy", tmp_path, SMALL["policy"])
    weights = bodies.load_file(tmp_path / "model.safetensors")
    zeros = {name: (tensor == 0).float().mean().item() for name, tensor in weights.items() if "proj" in name}
    assert max(zeros.values()) < 0.5
    assert sum(zeros.values()) / len(zeros) < 0.15


def test_a_seed_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="does not fit"):
        bodies.write(bodies.MODELS / "prm", tmp_path, bodies.Shape(300, 256, 512, 4, 8, 4, 64))
    assert not list(tmp_path.iterdir())
