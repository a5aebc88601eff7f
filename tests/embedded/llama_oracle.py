"""Llama in float64, all positions at once, nothing fused, nothing cached: the oracle."""

from __future__ import annotations

import numpy as np


def logits(checkpoint, tokens):
    """[position, vocabulary] of a whole sequence."""
    config, arrays = checkpoint.config, {name: a.astype(np.float64) for name, a in checkpoint.arrays.items()}
    x = arrays["model.embed_tokens.weight"][tokens]
    for i in range(config.num_hidden_layers):
        layer = {n.split(".", 3)[3]: a for n, a in arrays.items() if n.startswith(f"model.layers.{i}.")}
        h = normalize(x, layer["input_layernorm.weight"], config)
        x = x + attend(h, layer, config) @ layer["self_attn.o_proj.weight"].T
        h = normalize(x, layer["post_attention_layernorm.weight"], config)
        gate, up = h @ layer["mlp.gate_proj.weight"].T, h @ layer["mlp.up_proj.weight"].T
        x = x + (gate / (1 + np.exp(-gate)) * up) @ layer["mlp.down_proj.weight"].T
    head = arrays["model.embed_tokens.weight" if config.tie_word_embeddings else "lm_head.weight"]
    return normalize(x, arrays["model.norm.weight"], config) @ head.T


def normalize(x, weight, config):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + config.rms_norm_eps) * weight


def attend(h, layer, config):
    n = len(h)
    q, k, v = (
        (h @ layer[f"self_attn.{name}_proj.weight"].T).reshape(n, -1, config.head_dim).transpose(1, 0, 2)
        for name in "qkv"
    )
    q, k = rotate(q, config), rotate(k, config)
    group = config.num_attention_heads // config.num_key_value_heads
    k, v = k.repeat(group, axis=0), v.repeat(group, axis=0)
    scores = q @ k.transpose(0, 2, 1) / np.sqrt(config.head_dim)
    scores[:, np.triu(np.ones((n, n), bool), 1)] = -np.inf
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return (weights @ v).transpose(1, 0, 2).reshape(n, -1)


def rotate(x, config):
    """The half-split form: dimension j turns with dimension j + head_dim / 2. Angles are float32, as transformers' are."""
    half = config.head_dim // 2
    frequency = (1 / config.rope_theta ** (np.arange(half) / half)).astype(np.float32)
    angle = (np.arange(x.shape[1], dtype=np.float32)[:, None] * frequency).astype(np.float64)
    low, high = x[..., :half], x[..., half:]
    return np.concatenate([low * np.cos(angle) - high * np.sin(angle), high * np.cos(angle) + low * np.sin(angle)], -1)
