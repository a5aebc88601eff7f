"""A model folder in the Hugging Face format, read into arrays: config.json, safetensors, generation_config.json."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
from safetensors import SafetensorError, safe_open

if TYPE_CHECKING:
    import numpy.typing as npt

MODELS = Path(__file__).parent / "models"
SERVED_NAMES = {"policy": "asearch-policy", "policy-large": "asearch-policy-large", "prm": "asearch-prm"}
# The checkpoint's generation_config may change these defaults of a request, as vLLM's --generation-config auto does.
SAMPLING_DEFAULTS = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "max_new_tokens")


class CheckpointError(Exception):
    """The model folder cannot be used; the message is one line that says why."""


@dataclass(frozen=True, slots=True)
class Config:
    """The shape of a Llama model, in the names of its config.json."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int
    rms_norm_eps: float
    rope_theta: float
    tie_word_embeddings: bool
    eos_token_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model as it lies on disk: its shape, its arrays by their Hugging Face names, its sampling defaults."""

    folder: Path
    config: Config
    arrays: dict[str, npt.NDArray[np.float32]]
    sampling_defaults: dict[str, float]


def find_folder(model: str) -> Path:
    """The folder of a shipped model (policy, policy-large, prm), or of one that lies anywhere."""
    folder = MODELS / model if model in SERVED_NAMES else Path(model)
    if (folder / "config.json").is_file():
        return folder
    if model in SERVED_NAMES:
        raise CheckpointError(f"the model {model!r} is not part of this installation: no {folder / 'config.json'}")
    shipped = ", ".join(name for name in SERVED_NAMES if (MODELS / name / "config.json").is_file()) or "none"
    raise CheckpointError(f"unknown model {model!r}: no folder with a config.json, and no shipped model ({shipped})")


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read a model folder; every fault is a CheckpointError."""
    config_json = read_json(folder / "config.json")
    generation = read_json(folder / "generation_config.json") if (folder / "generation_config.json").is_file() else {}
    config = _parse_config(config_json, generation, folder)
    arrays = _read_arrays(folder)
    _check_shapes(config, arrays, folder)
    defaults = {key: float(generation[key]) for key in SAMPLING_DEFAULTS if generation.get(key) is not None}
    return Checkpoint(folder=folder, config=config, arrays=arrays, sampling_defaults=defaults)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file, or a CheckpointError."""
    try:
        content = orjson.loads(path.read_bytes())
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from error
    except orjson.JSONDecodeError as error:
        raise CheckpointError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} is not a JSON object")
    return content


def _parse_config(raw: dict[str, Any], generation: dict[str, Any], folder: Path) -> Config:
    where = folder / "config.json"
    if raw.get("model_type") != "llama":
        raise CheckpointError(f"{where}: model_type is {raw.get('model_type')!r}; only 'llama' can be served here")
    for key in ("attention_bias", "mlp_bias"):
        if raw.get(key):
            raise CheckpointError(f"{where}: {key} is not supported")
    if raw.get("hidden_act", "silu") != "silu":
        raise CheckpointError(f"{where}: hidden_act {raw['hidden_act']!r} is not supported, only 'silu'")
    try:
        heads = int(raw["num_attention_heads"])
        config = Config(
            vocab_size=int(raw["vocab_size"]),
            hidden_size=int(raw["hidden_size"]),
            intermediate_size=int(raw["intermediate_size"]),
            num_hidden_layers=int(raw["num_hidden_layers"]),
            num_attention_heads=heads,
            num_key_value_heads=int(raw.get("num_key_value_heads") or heads),
            head_dim=int(raw.get("head_dim") or raw["hidden_size"] // heads),
            max_position_embeddings=int(raw["max_position_embeddings"]),
            rms_norm_eps=float(raw.get("rms_norm_eps", 1e-6)),
            rope_theta=_rope_theta(raw, where),
            tie_word_embeddings=bool(raw.get("tie_word_embeddings", False)),
            eos_token_ids=_token_ids(generation.get("eos_token_id", raw.get("eos_token_id"))),
        )
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise CheckpointError(f"{where}: missing or malformed entry ({type(error).__name__}: {error})") from error
    if heads % config.num_key_value_heads or config.head_dim % 2:
        raise CheckpointError(f"{where}: heads do not divide evenly")
    return config


def _rope_theta(raw: dict[str, Any], where: Path) -> float:
    """The base of the rotary embedding, from where either generation of transformers writes it."""
    rope = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind != "default":
        raise CheckpointError(f"{where}: rope_type {kind!r} is not supported, only 'default'")
    return float(rope.get("rope_theta", raw.get("rope_theta", 10_000.0)))


def _token_ids(value: Any) -> tuple[int, ...]:
    if value is None:
        return ()
    return tuple(int(v) for v in value) if isinstance(value, list) else (int(value),)


def _read_arrays(folder: Path) -> dict[str, npt.NDArray[np.float32]]:
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise CheckpointError(f"no weights in {folder}: expected model.safetensors")
    arrays: dict[str, npt.NDArray[np.float32]] = {}
    for file in files:
        try:
            with safe_open(file, framework="numpy") as tensors:
                for name in tensors.keys():  # noqa: SIM118 - the handle is not iterable itself
                    arrays[name] = tensors.get_tensor(name).astype(np.float32)
        except (OSError, SafetensorError, TypeError) as error:
            raise CheckpointError(f"broken weights in {file}: {error}") from error
    return arrays


def _check_shapes(config: Config, arrays: dict[str, npt.NDArray[np.float32]], folder: Path) -> None:
    for name, shape in expected_shapes(config).items():
        if name not in arrays:
            raise CheckpointError(f"the weights in {folder} lack {name!r}")
        if arrays[name].shape != shape:
            raise CheckpointError(
                f"the weights in {folder} do not fit its config.json: {name!r} is {arrays[name].shape}, expected {shape}"
            )
        if not np.isfinite(arrays[name]).all():
            raise CheckpointError(f"the weights in {folder} are broken: {name!r} holds values that are not finite")


def expected_shapes(config: Config) -> dict[str, tuple[int, ...]]:
    """Every array of a Llama checkpoint with its shape."""
    d, ffn = config.hidden_size, config.intermediate_size
    q, kv = config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (config.vocab_size, d),
        "model.norm.weight": (d,),
    }
    if not config.tie_word_embeddings:
        shapes["lm_head.weight"] = (config.vocab_size, d)
    for i in range(config.num_hidden_layers):
        layer = {
            "input_layernorm": (d,),
            "post_attention_layernorm": (d,),
            "self_attn.q_proj": (q, d),
            "self_attn.k_proj": (kv, d),
            "self_attn.v_proj": (kv, d),
            "self_attn.o_proj": (d, q),
            "mlp.gate_proj": (ffn, d),
            "mlp.up_proj": (ffn, d),
            "mlp.down_proj": (d, ffn),
        }
        shapes |= {f"model.layers.{i}.{name}.weight": shape for name, shape in layer.items()}
    return shapes
