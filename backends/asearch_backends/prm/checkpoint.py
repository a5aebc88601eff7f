"""Checkpoints: from a hub id or a folder to a body, a head and a tokenizer.

No code that comes with a checkpoint is run: the architectures that transformers does not know (Qwen's and Skywork's
heads) are a Qwen2 body and one or two linear layers, and are put together here.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from asearch.families import FAMILIES, Family, cut_turns, probe_chat, recognise

CODE_FREE = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "*.tiktoken"]


class CheckpointError(Exception):
    """A model that cannot be served, and why."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A process reward model, ready to run.

    Args:
        name: the id or path it came from.
        family: how it reads a solution.
        body: token ids and attention mask -> hidden states, (batch, length, width).
        head: hidden states of the wanted positions, (rows, width) -> rows of probabilities: [p] or [p_bad, p_good].
        tokenizer: the model's own.
        max_length: tokens of a sequence.
        device: where the body is.
    """

    name: str
    family: Family
    body: nn.Module
    head: Head
    tokenizer: Any
    max_length: int
    device: torch.device


def load_checkpoint(
    model: str,
    *,
    family: Family | None = None,
    device: str = "auto",
    dtype: str = "auto",
    max_length: int | None = None,
) -> Checkpoint:
    """Load a folder or hub id.

    Raises:
        CheckpointError: it is not there, or of no known family.
    """
    folder = find_folder(model)
    config = _read_json(folder / "config.json")
    architecture = (config.get("architectures") or [""])[0]
    family = family or recognise(model, folder.name) or _by_architecture(architecture, folder) or _unknown(model)
    where = _device(device)
    kind = _dtype(dtype, where)
    tokenizer = _load_tokenizer(folder, model)
    body, head = _load_model(folder, family, tokenizer, kind)
    length = min(int(config.get("max_position_embeddings") or 2**31), max_length or 2**31)
    body = body.to(where).eval()
    return Checkpoint(model, _with_own_turns(family, tokenizer), body, head.to(where), tokenizer, length, where)


def find_folder(model: str) -> Path:
    """The folder of a checkpoint: a local one, or the hub's, downloaded without its code."""
    if Path(model).is_dir():
        return Path(model)
    if model.startswith((".", "/", "~")):
        raise CheckpointError(f"there is no folder {model}")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(model, allow_patterns=CODE_FREE))
        if not list(folder.glob("*.safetensors")):
            folder = Path(snapshot_download(model, allow_patterns=[*CODE_FREE, "*.bin"]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as failure:
        raise CheckpointError(
            f"{model!r} is neither a folder nor to be had from the hub: {_line(failure)}"
        ) from failure
    return folder


def _by_architecture(architecture: str, folder: Path) -> Family | None:
    if architecture == "Qwen2ForProcessRewardModel":
        return FAMILIES["qwen-math"]
    if architecture.endswith("ForTokenClassification"):
        return FAMILIES["trl"]
    return FAMILIES["skywork"] if any("v_head" in name for name in _weight_files(folder)) else None


def _unknown(model: str) -> Family:
    raise CheckpointError(f"{model!r} is of no known family; pass --family, one of {', '.join(FAMILIES)}")


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise CheckpointError(f"{name!r} is no device such as cpu, cuda or cuda:1") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise CheckpointError(f"there is no device {name} here; torch sees {torch.cuda.device_count()} CUDA devices")
    return device


def _dtype(name: str, device: torch.device) -> torch.dtype:
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    kinds = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    return kinds[name]


def _load_tokenizer(folder: Path, model: str) -> Any:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError, KeyError) as failure:
        raise CheckpointError(f"{model!r} has no tokenizer that can be loaded: {_line(failure)}") from failure
    if not tokenizer("1 + 1", add_special_tokens=False)["input_ids"]:  # transformers makes up an empty one
        raise CheckpointError(f"{model!r} has no vocabulary (tokenizer.json)")
    if not tokenizer.is_fast:
        raise CheckpointError(f"{model!r} has no fast tokenizer (tokenizer.json), which tells where a step ends")
    return tokenizer


def _load_model(folder: Path, family: Family, tokenizer: Any, kind: torch.dtype) -> tuple[nn.Module, Head]:
    from transformers import AutoModel, AutoModelForCausalLM, AutoModelForTokenClassification
    from transformers.utils import logging

    logging.set_verbosity_error()  # a head that transformers does not know is no surprise here
    logging.disable_progress_bar()
    try:
        if family.read == "verdict":
            causal = AutoModelForCausalLM.from_pretrained(folder, dtype=kind)
            return causal.base_model, _verdict_head(causal, family, tokenizer)
        if family.read == "value":
            body = AutoModel.from_pretrained(folder, dtype=kind)
            return body, Head(_linear(folder, "v_head.summary"), "sigmoid")
        if (folder / "config.json").is_file() and _has(folder, "score.0.weight"):
            body = AutoModel.from_pretrained(folder, dtype=kind)
            return body, Head(
                nn.Sequential(_linear(folder, "score.0"), nn.ReLU(), _linear(folder, "score.2")), "softmax"
            )
        classifier = AutoModelForTokenClassification.from_pretrained(folder, dtype=kind)
        return classifier.base_model, Head(classifier.score.float(), "softmax")
    except (OSError, ValueError, KeyError, AttributeError, RuntimeError, SafetensorError) as failure:
        raise CheckpointError(f"{folder} cannot be loaded as a {family.name} model: {_line(failure)}") from failure


def _line(failure: Exception) -> str:
    return (str(failure).strip() or type(failure).__name__).splitlines()[0]


@dataclass(frozen=True, slots=True)
class Head:
    """The layers on top of the body, in float32, and the activation: "sigmoid" or "softmax"."""

    layers: nn.Module
    activation: str

    def __call__(self, hidden: Tensor) -> Tensor:
        """(rows, width) -> probabilities, (rows, 1) for a value, (rows, 2) for labels."""
        logits: Tensor = self.layers(hidden.float())
        return logits.sigmoid() if self.activation == "sigmoid" else logits.softmax(-1)

    def to(self, device: torch.device) -> Head:
        """The same on another device."""
        return Head(self.layers.to(device), self.activation)


def _verdict_head(causal: Any, family: Family, tokenizer: Any) -> Head:
    """The two rows of the output embedding that stand for "-" and "+"."""
    ids = [_single_token(tokenizer, text, family) for text in (family.bad, family.good)]
    output = causal.get_output_embeddings()
    layer = nn.Linear(output.in_features, 2, bias=output.bias is not None)
    layer.weight = nn.Parameter(output.weight[ids].detach().float().clone())
    if output.bias is not None:
        layer.bias = nn.Parameter(output.bias[ids].detach().float().clone())
    return Head(layer, "softmax")


def _single_token(tokenizer: Any, text: str, family: Family) -> int:
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    if len(ids) != 1:
        raise CheckpointError(f"{text!r} is not one token here, so this is no {family.name} model")
    return int(ids[0])


def _linear(folder: Path, name: str) -> nn.Linear:
    """A linear layer by its name in the checkpoint."""
    weight, bias = _tensor(folder, f"{name}.weight"), _tensor(folder, f"{name}.bias")
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.load_state_dict({"weight": weight.float(), "bias": bias.float()})
    return layer


def _tensor(folder: Path, name: str) -> Tensor:
    files = _weight_files(folder)
    if name not in files:
        raise CheckpointError(f"{folder} has no weight {name}")
    file = files[name]
    if file.suffix == ".safetensors":
        with safe_open(str(file), framework="pt") as weights:
            tensor: Tensor = weights.get_tensor(name)
            return tensor
    loaded: dict[str, Tensor] = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    return loaded[name]


def _has(folder: Path, name: str) -> bool:
    return name in _weight_files(folder)


def _weight_files(folder: Path) -> dict[str, Path]:
    """Which file holds which weight."""
    for index in sorted(folder.glob("*.index.json")):
        return {name: folder / file for name, file in _read_json(index)["weight_map"].items()}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(str(file), framework="pt") as weights:
            return dict.fromkeys(weights.keys(), file)
    for file in sorted(folder.glob("*.bin")):
        return dict.fromkeys(torch.load(file, map_location="meta", weights_only=True), file)
    raise CheckpointError(f"{folder} has no weights (*.safetensors or *.bin)")


def _with_own_turns(family: Family, tokenizer: Any) -> Family:
    """The family with the chat template of this very checkpoint."""
    if family.turns is None or not tokenizer.chat_template:
        return family
    text = tokenizer.apply_chat_template(probe_chat(family.good), tokenize=False, add_generation_prompt=True)
    turns = cut_turns(text, family.good)
    return replace(family, turns=turns) if turns else family


def _read_json(file: Path) -> dict[str, Any]:
    try:
        value: dict[str, Any] = json.loads(file.read_text())
    except (OSError, ValueError) as failure:
        raise CheckpointError(f"{file} cannot be read: {failure}") from failure
    return value
