"""The embedded checkpoints in larger bodies: the same tokens and scores, at the cost of a Llama of 1 or 8 billion parameters.

    python benchmarks/speed/bodies.py FOLDER            # FOLDER/policy: Llama-3.2-1B's shape, FOLDER/prm: Llama-3.1-8B's
    python benchmarks/speed/bodies.py FOLDER --only policy

For timing servers on a GPU, where the embedded models are so small that nothing but overhead would be measured, and random
weights would write texts without steps or answers. Run it with a Python that has PyTorch (vLLM's has); 2.5 and 16 GB are
written, in bfloat16.

A body computes what its seed computes, up to rounding:

- The seed's numbers stand first in every dimension. RMSNorm divides by the root of a mean over more dimensions, all but
  zero: its weights are scaled by sqrt(small/large), its epsilon by small/large.
- A head's rotated halves lie apart, so each half is padded; the frequencies theta^(-2i/dim) of the seed come out of
  theta^(large/small). Queries are scaled for the softmax's 1/sqrt(dim), and are zero where the seed has none. A key head of
  the seed is a key head of the body; of each group of query heads the first is the seed's, and the others are not read.
- Added layers and widths are read, multiplied and added like all others, but what they write goes to added dimensions
  only, a thousandth of what the seed's hold (`TINY`), so that the norms stay what they are.
- Added tokens of the vocabulary are as dear to compute as the others, and never sampled: one added dimension is the
  same for all tokens, and their rows of the head hold a large negative number there.

All added weights are random, not zero: a GPU multiplies zeros faster.
"""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

MODELS = Path(__file__).parents[2] / "backends" / "asearch_backends" / "embedded" / "models"
TINY = 1e-4  # the size of what added dimensions hold; embeddings of the seeds have .2
NEVER = -60.0  # the logit of an added token

Weights = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Shape:
    """Sizes of a Llama."""

    vocab: int
    hidden: int
    inner: int
    layers: int
    heads: int
    kv: int
    dim: int

    @classmethod
    def of(cls, config: dict) -> Shape:
        names = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers")
        heads = ("num_attention_heads", "num_key_value_heads", "head_dim")
        return cls(*(config[name] for name in names + heads))

    def config(self) -> dict:
        return {
            "vocab_size": self.vocab,
            "hidden_size": self.hidden,
            "intermediate_size": self.inner,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv,
            "head_dim": self.dim,
        }


# Configurations as Meta published them with the models.
SHAPES = {
    "policy": Shape(vocab=128_256, hidden=2_048, inner=8_192, layers=16, heads=32, kv=8, dim=64),
    "prm": Shape(vocab=128_256, hidden=4_096, inner=14_336, layers=32, heads=32, kv=8, dim=128),
}


class Body:
    """A seed, grown.

    Args:
        weights: of the seed.
        seed: its shape.
        shape: the body's; larger than the seed's in everything.
        dtype: of the body's weights.
    """

    def __init__(self, weights: Weights, seed: Shape, shape: Shape, dtype: torch.dtype = torch.bfloat16) -> None:
        self.seed, self.shape, self._weights, self._dtype = seed, shape, weights, dtype
        self._random = torch.Generator().manual_seed(0)

    def grow(self) -> Weights:
        """All weights of the body, under their names in the transformers library."""
        grown = self._ends()
        added = self._added_layer()
        for i in range(self.shape.layers):
            layer = self._seed_layer(f"model.layers.{i}.") if i < self.seed.layers else added
            grown |= {f"model.layers.{i}.{name}": tensor.clone() for name, tensor in layer.items()}
        return grown

    def _ends(self) -> Weights:
        """Embeddings, the last norm and, if the seed has one of its own, the head."""
        seed, shape = self.seed, self.shape
        constant = seed.hidden  # the dimension that is the same for all tokens
        embedding = self._like(shape.vocab, shape.hidden, size=TINY)
        embedding[: seed.vocab, : seed.hidden] = self._weights["model.embed_tokens.weight"]
        embedding[:, constant] = TINY
        norm = self._norm("model.norm.weight", added=0.0)
        norm[constant] = 1 / TINY  # about 1 then, as what the last layer leaves has a root mean square of about 1
        ends = {"model.embed_tokens.weight": embedding, "model.norm.weight": norm}
        tied = "lm_head.weight" not in self._weights
        head = embedding if tied else self._like(shape.vocab, shape.hidden, size=TINY)
        if not tied:
            head[: seed.vocab, : seed.hidden] = self._weights["lm_head.weight"]
            head[: seed.vocab, constant] = 0.0
            ends["lm_head.weight"] = head
        head[seed.vocab :, constant] = 100 * NEVER
        return ends

    def _seed_layer(self, prefix: str) -> Weights:
        """A layer of the seed, padded."""
        seed, shape = self.seed, self.shape
        grown = self._random_layer(written=False)
        for name in ("input_layernorm", "post_attention_layernorm"):
            grown[f"{name}.weight"] = self._norm(f"{prefix}{name}.weight", added=0.0)
        for kind, per_key in (("q", shape.heads // shape.kv), ("k", 1)):
            self._place_halves(grown[f"self_attn.{kind}_proj.weight"], f"{prefix}self_attn.{kind}_proj.weight", per_key)
        value, out = grown["self_attn.v_proj.weight"], grown["self_attn.o_proj.weight"]
        small_value, small_out = (self._weights[f"{prefix}self_attn.{kind}_proj.weight"] for kind in "vo")
        for head in range(seed.kv):
            small = slice(head * seed.dim, (head + 1) * seed.dim)
            first = head * shape.dim
            value[first : first + seed.dim, : seed.hidden] = small_value[small]
            column = head * (shape.heads // shape.kv) * shape.dim
            out[: seed.hidden, column : column + seed.dim] = small_out[:, small]
        for name in ("gate", "up"):
            grown[f"mlp.{name}_proj.weight"][: seed.inner, : seed.hidden] = self._weights[
                f"{prefix}mlp.{name}_proj.weight"
            ]
        grown["mlp.down_proj.weight"][: seed.hidden, : seed.inner] = self._weights[f"{prefix}mlp.down_proj.weight"]
        return grown

    def _place_halves(self, large: torch.Tensor, name: str, per_key: int) -> None:
        """Rows of rotated heads, each half on its own; queries (several heads per key) are zero elsewhere."""
        seed, shape, small = self.seed, self.shape, self._weights[name]
        queries = ".q_proj." in name
        scale = (shape.dim / seed.dim) ** 0.5 if queries else 1.0
        for head in range(seed.kv):
            first = head * per_key * shape.dim
            if queries:
                large[first : first + shape.dim] = 0.0
            for half in range(2):
                rows = first + half * shape.dim // 2
                source = head * seed.dim + half * seed.dim // 2
                large[rows : rows + seed.dim // 2, : seed.hidden] = scale * small[source : source + seed.dim // 2]

    def _added_layer(self) -> Weights:
        layer = self._random_layer(written=True)
        for name in ("input_layernorm", "post_attention_layernorm"):
            layer[f"{name}.weight"] = self._norm(None, added=1.0)
        return layer

    def _random_layer(self, *, written: bool) -> Weights:
        """Random matrices of a layer; what it writes is tiny, and goes to added dimensions."""
        shape = self.shape
        layer = {
            "self_attn.q_proj.weight": self._like(shape.heads * shape.dim, shape.hidden),
            "self_attn.k_proj.weight": self._like(shape.kv * shape.dim, shape.hidden),
            "self_attn.v_proj.weight": self._like(shape.kv * shape.dim, shape.hidden),
            "mlp.gate_proj.weight": self._like(shape.inner, shape.hidden),
            "mlp.up_proj.weight": self._like(shape.inner, shape.hidden),
            "self_attn.o_proj.weight": self._like(shape.hidden, shape.heads * shape.dim, size=TINY / 100),
            "mlp.down_proj.weight": self._like(shape.hidden, shape.inner, size=TINY / 100),
        }
        for name in ("self_attn.o_proj.weight", "mlp.down_proj.weight"):
            layer[name][: self.seed.hidden + 1] = 0.0  # the seed's dimensions, and the constant one
            if not written:
                layer[name][self.seed.hidden + 1 :] /= 100
        return layer

    def _norm(self, name: str | None, *, added: float) -> torch.Tensor:
        """Weights of a norm, which divides by the root of a mean over more dimensions than the seed's."""
        norm = torch.full((self.shape.hidden,), added, dtype=self._dtype)
        if name is not None:
            norm[: self.seed.hidden] = self._weights[name] * (self.seed.hidden / self.shape.hidden) ** 0.5
        return norm

    def _like(self, rows: int, columns: int, size: float = 0.02) -> torch.Tensor:
        """Random numbers, of which a million are drawn: a GPU cannot tell."""
        drawn = size * torch.randn(1_000_003, generator=self._random)
        repeats = -(-rows * columns // len(drawn))
        return drawn.to(self._dtype).repeat(repeats)[: rows * columns].reshape(rows, columns).clone()


def write(source: Path, target: Path, shape: Shape, dtype: torch.dtype = torch.bfloat16) -> None:
    """Grow the checkpoint of a folder into a folder."""
    target.mkdir(parents=True, exist_ok=True)
    config = json.loads((source / "config.json").read_text())
    seed = Shape.of(config)
    if seed.heads != seed.kv or seed.kv > shape.kv or seed.dim > shape.dim or seed.layers > shape.layers:
        raise SystemExit(
            f"{source} does not fit into {shape}: every key head needs one query head, and all sizes must grow"
        )
    body = Body(load_file(source / "model.safetensors"), seed, shape, dtype)
    save_file(body.grow(), target / "model.safetensors", metadata={"format": "pt"})
    config |= shape.config() | {
        "rms_norm_eps": config["rms_norm_eps"] * seed.hidden / shape.hidden,
        "rope_theta": config["rope_theta"] ** (shape.dim / seed.dim),
        "torch_dtype": str(dtype).removeprefix("torch."),
    }
    (target / "config.json").write_text(json.dumps(config, indent=2))
    for name in ("generation_config.json", "special_tokens_map.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(source / name, target / name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="+", choices=SHAPES, default=list(SHAPES))
    arguments = parser.parse_args()
    for name in arguments.only:
        write(MODELS / name, arguments.folder / name, SHAPES[name])
        print(arguments.folder / name)


if __name__ == "__main__":
    main()
