"""Models as Hugging Face folders, which transformers, vLLM and the embedded server load alike."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file, save_file

from asearch_backends.training.llama import CONTEXT, HEAD_SIZE, NORM_EPSILON, ROPE_BASE, Llama, Shape
from asearch_backends.training.tokens import BEGIN, END, PAD, save_tokenizer, token_id

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor


def export(model: Llama, folder: Path) -> None:
    """Writes a complete model folder beside `folder`, then puts it in its place."""
    fresh = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    save_file(hugging_face_state(model), str(fresh / "model.safetensors"), metadata={"format": "pt"})
    (fresh / "model.safetensors").chmod(0o644)  # the writer makes it private
    for name, content in (("config.json", configuration(model.shape)), ("generation_config.json", generation())):
        (fresh / name).write_text(json.dumps(content, indent=2) + "\n")
    save_tokenizer(fresh, CONTEXT)
    if folder.exists():
        old = folder.with_name(f".{folder.name}.old")
        folder.rename(old)
        fresh.rename(folder)
        shutil.rmtree(old)
    else:
        fresh.rename(folder)


def load(folder: Path) -> Llama:
    """Reads an exported folder back, to train or evaluate it further."""
    config = json.loads((folder / "config.json").read_text())
    shape = Shape(
        vocabulary=config["vocab_size"],
        width=config["hidden_size"],
        layers=config["num_hidden_layers"],
        inner=config["intermediate_size"],
        tied=config["tie_word_embeddings"],
    )
    model = Llama(shape)
    model.load_state_dict(_stacked(load_file(str(folder / "model.safetensors")), shape))
    return model


def configuration(shape: Shape) -> dict[str, object]:
    """The config.json of a shape."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.width,
        "intermediate_size": shape.inner,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.heads,
        "head_dim": HEAD_SIZE,
        "hidden_act": "silu",
        "max_position_embeddings": CONTEXT,
        "rms_norm_eps": NORM_EPSILON,
        "rope_theta": ROPE_BASE,
        "rope_scaling": None,
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": shape.tied,
        "torch_dtype": "float32",
        "use_cache": True,
        **_ends(),
    }


def generation() -> dict[str, object]:
    """The generation_config.json: the end tokens, no sampling defaults."""
    return {"_from_model_config": True, **_ends()}


def _ends() -> dict[str, object]:
    return {"bos_token_id": token_id(BEGIN), "eos_token_id": token_id(END), "pad_token_id": token_id(PAD)}


def hugging_face_state(model: Llama) -> dict[str, Tensor]:
    """The weights under their Hugging Face names, unstacked."""
    state = {"model.embed_tokens.weight": model.embedding, "model.norm.weight": model.final_norm}
    if model.head is not None:
        state["lm_head.weight"] = model.head
    for layer in range(model.shape.layers):
        query, key, value = model.attend_in[layer]
        gate, up = model.inner_in[layer]
        state |= {
            _name(layer, "self_attn.q_proj"): query,
            _name(layer, "self_attn.k_proj"): key,
            _name(layer, "self_attn.v_proj"): value,
            _name(layer, "self_attn.o_proj"): model.attend_out[layer],
            _name(layer, "mlp.gate_proj"): gate,
            _name(layer, "mlp.up_proj"): up,
            _name(layer, "mlp.down_proj"): model.inner_out[layer],
            _name(layer, "input_layernorm"): model.attend_norm[layer],
            _name(layer, "post_attention_layernorm"): model.inner_norm[layer],
        }
    return {name: tensor.detach().float().clone() for name, tensor in state.items()}


def _name(layer: int, part: str) -> str:
    return f"model.layers.{layer}.{part}.weight"


def _stacked(state: dict[str, Tensor], shape: Shape) -> dict[str, Tensor]:
    """The inverse of `hugging_face_state`."""

    def stack(*parts: str) -> Tensor:
        rows = [torch.stack([state[_name(layer, part)] for part in parts]) for layer in range(shape.layers)]
        stacked = torch.stack(rows)
        return stacked if len(parts) > 1 else stacked.squeeze(1)

    head = {} if shape.tied else {"head": state["lm_head.weight"]}
    return head | {
        "embedding": state["model.embed_tokens.weight"],
        "final_norm": state["model.norm.weight"],
        "attend_in": stack("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        "attend_out": stack("self_attn.o_proj"),
        "inner_in": stack("mlp.gate_proj", "mlp.up_proj"),
        "inner_out": stack("mlp.down_proj"),
        "attend_norm": stack("input_layernorm"),
        "inner_norm": stack("post_attention_layernorm"),
    }
