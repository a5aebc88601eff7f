"""Tiny random checkpoints of the architectures that policies and PRMs have, as Hugging Face folders.

Two layers of 32 units and a few hundred tokens: nonsense comes out, but by the same arithmetic as in the real models,
so that what a server answers can be compared with a plain forward pass. Needs torch and transformers.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

CORPUS = r"""
What is $3 + 4 \cdot 5$? Compute $12 - 7$. ## Step 1: Multiply
$4 \cdot 5 = 20$, which leaves $3 + 20$.

## Step 2: Add
Therefore, the final answer is: $\boxed{23}$. I hope it is correct. The step is + right or - wrong. ки ки
Please reason step by step. Solve the following math problem efficiently and clearly: simple problems, complex problems.
"""

LLAMA_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
CHATML_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# How the real tokenizers cut text before they merge: a run of line breaks never joins what follows it.
SPLIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 1,
    "num_key_value_heads": 1,
    "max_position_embeddings": 2048,
    "initializer_range": 0.3,  # far more than usual, so that scores differ from one step to the next
}


def llama(folder: Path, seed: int = 0) -> Path:
    """A causal model with a Llama-3-style tokenizer: it adds BOS, and its chat template trims every turn."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = byte_tokenizer(
        ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"], bos=True
    )
    tokenizer.bos_token, tokenizer.eos_token, tokenizer.chat_template = (
        "<|begin_of_text|>",
        "<|eot_id|>",
        LLAMA_TEMPLATE,
    )
    ends = {"bos_token_id": 0, "eos_token_id": 3}
    config = LlamaConfig(vocab_size=len(tokenizer), **SHAPE, **ends)
    torch.manual_seed(seed)
    model = LlamaForCausalLM(config).float()
    vocabulary = tokenizer.get_vocab()
    write_only(model, [i for piece, i in vocabulary.items() if piece == "<|eot_id|>" or is_text(piece)])
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def is_text(piece: str) -> bool:
    """Whether a byte-level piece stands for printable ASCII or white space by itself."""
    return not piece.startswith("<|") and all(" " < c <= "~" or c in "ĠĊ" for c in piece)


def write_only(model, allowed: list[int]) -> None:
    """Make a causal model never write other tokens: one unit of its residual stream becomes a constant that rules them out.

    A real model writes neither headers nor half characters into its solutions; a random one would.
    """
    import torch

    with torch.no_grad():
        model.model.embed_tokens.weight[:, 0] = 3.0
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight[0] = 0.0
            layer.mlp.down_proj.weight[0] = 0.0
        model.lm_head.weight[:, 0] = -30.0
        model.lm_head.weight[allowed, 0] = 0.0


def mistral(folder: Path, seed: int = 0) -> Path:
    """A causal model with a SentencePiece-style tokenizer, as Math-Shepherd has."""
    from transformers import MistralConfig, MistralForCausalLM

    tokenizer = metaspace_tokenizer()
    ends = {"bos_token_id": 1, "eos_token_id": 2, "sliding_window": None}
    return save(MistralForCausalLM, MistralConfig(vocab_size=len(tokenizer), **SHAPE, **ends), tokenizer, folder, seed)


def qwen_tokens(folder: Path, seed: int = 0) -> Path:
    """A token classifier on Qwen2, as TRL's trainer for process reward models makes them."""
    from transformers import Qwen2Config, Qwen2ForTokenClassification

    tokenizer = qwen_tokenizer()
    config = Qwen2Config(vocab_size=len(tokenizer), num_labels=2, **SHAPE)
    return save(Qwen2ForTokenClassification, config, tokenizer, folder, seed)


def qwen_outcome(folder: Path, seed: int = 0) -> Path:
    """An outcome reward model: one number for the whole text."""
    from transformers import Qwen2Config, Qwen2ForSequenceClassification

    tokenizer = qwen_tokenizer()
    config = Qwen2Config(vocab_size=len(tokenizer), num_labels=1, pad_token_id=0, **SHAPE)
    return save(Qwen2ForSequenceClassification, config, tokenizer, folder, seed)


def qwen_prm(folder: Path, seed: int = 0) -> Path:
    """Qwen2 with the two-layer head of Qwen2.5-Math-PRM, under that checkpoint's names."""
    import torch
    from transformers import Qwen2Config

    tokenizer = qwen_tokenizer()
    config = Qwen2Config(vocab_size=len(tokenizer), num_labels=2, **SHAPE)
    torch.manual_seed(seed + 1)
    size = config.hidden_size
    head = {
        "score.0.weight": torch.randn(size, size) * 0.3,
        "score.0.bias": torch.randn(size) * 0.1,
        "score.2.weight": torch.randn(2, size) * 0.3,
        "score.2.bias": torch.randn(2) * 0.1,
    }
    return save_with_head(config, head, "Qwen2ForProcessRewardModel", tokenizer, folder, seed)


def skywork(folder: Path, seed: int = 0) -> Path:
    """Qwen2 with the value head of Skywork-o1-Open-PRM, under that checkpoint's names."""
    import torch
    from transformers import Qwen2Config

    tokenizer = qwen_tokenizer()
    config = Qwen2Config(vocab_size=len(tokenizer), **SHAPE)
    torch.manual_seed(seed + 1)
    head = {
        "v_head.summary.weight": torch.randn(1, config.hidden_size) * 0.3,
        "v_head.summary.bias": torch.randn(1) * 0.1,
    }
    return save_with_head(config, head, "Qwen2ForPrmModel", tokenizer, folder, seed)


def save(kind, config, tokenizer, folder: Path, seed: int) -> Path:
    import torch

    torch.manual_seed(seed)
    kind(config).float().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_with_head(config, head: dict, architecture: str, tokenizer, folder: Path, seed: int) -> Path:
    """A plain Qwen2 and a head of its own, in one file."""
    import torch
    from safetensors.torch import save_file
    from transformers import Qwen2ForCausalLM

    torch.manual_seed(seed)
    body = {name: t.contiguous().clone() for name, t in Qwen2ForCausalLM(config).float().state_dict().items()}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(body | head, str(folder / "model.safetensors"), metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config.to_dict() | {"architectures": [architecture]}))
    tokenizer.save_pretrained(folder)
    return folder


def qwen_tokenizer():
    tokenizer = byte_tokenizer(["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<extra_0>"], bos=False)
    tokenizer.bos_token = tokenizer.pad_token = "<|endoftext|>"
    tokenizer.eos_token, tokenizer.chat_template = "<|im_end|>", CHATML_TEMPLATE
    return tokenizer


def byte_tokenizer(special: list[str], *, bos: bool):
    """Byte-level BPE with the given special tokens as ids 0, 1, 2 ..."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(SPLIT), "isolated")
    raw.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False, min_frequency=1
    )
    raw.train_from_iterator([CORPUS, "Therefore.\n\n", "x \n\n\n\n", "y \n\n"] * 3, trainer)
    if bos:
        raw.post_processor = processors.TemplateProcessing(single=f"{special[0]} $A", special_tokens=[(special[0], 0)])
    return PreTrainedTokenizerFast(tokenizer_object=raw, clean_up_tokenization_spaces=False)


def metaspace_tokenizer():
    """BPE over words that begin with a marked space, with BOS, as SentencePiece models are converted."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["<unk>", "<s>", "</s>"]
    raw = Tokenizer(models.BPE(unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    raw.decoder = decoders.Metaspace(prepend_scheme="first")
    alphabet = [chr(c) for c in range(32, 127)] + ["\n", "▁"]
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=special, initial_alphabet=alphabet, show_progress=False, min_frequency=1
    )
    raw.train_from_iterator([CORPUS, "ки + - ки"] * 20, trainer)
    raw.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, clean_up_tokenization_spaces=False)
    tokenizer.bos_token, tokenizer.eos_token, tokenizer.unk_token = "<s>", "</s>", "<unk>"
    return tokenizer
