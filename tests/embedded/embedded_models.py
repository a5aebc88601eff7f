"""Tiny random models in the shipped format, and servers on them in this process."""

from __future__ import annotations

import itertools
import json
import string
from contextlib import asynccontextmanager

import aiohttp
import numpy as np
from safetensors.numpy import load_file, save_file
from tokenizers import AddedToken, decoders, models, processors
from tokenizers import Tokenizer as FastTokenizer

from asearch_backends.embedded.checkpoint import _parse_config, expected_shapes, load_checkpoint
from asearch_backends.embedded.engine import Engine
from asearch_backends.embedded.sampling import SamplingParams
from asearch_backends.embedded.sequence import Sequence
from asearch_backends.embedded.server import listening
from asearch_backends.embedded.service import ServiceOptions, running_server
from asearch_backends.embedded.tokenizer import Tokenizer

SPECIAL = ("<|begin|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|pad|>", "<|unk|>")
PHRASES = ("\n\n", "## Step ", "Therefore", " the ")
TEMPLATE = (
    "<|begin|>{% for m in messages %}{% if m.role == 'assistant' %}<|assistant|>{{ m.content }}<|end|>"
    "{% else %}<|{{ m.role }}|>{{ m.content }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
TRIMMING_TEMPLATE = TEMPLATE.replace("{{ m.content }}", "{{ m.content | trim }}")
SHAPE = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 64,
    "intermediate_size": 112,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
    "hidden_act": "silu",
    "torch_dtype": "float32",
}


def write_checkpoint(folder, *, seed=0, template=TEMPLATE, generation=None, **shape):
    """A model folder with random weights; `shape` overrides entries of config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = make_tokenizer()
    config = SHAPE | {"vocab_size": tokenizer.get_vocab_size(), "bos_token_id": 0, "eos_token_id": 4} | shape
    rng = np.random.default_rng(seed)
    arrays = {}
    for name, size in expected_shapes(_parse_config(config, {}, folder)).items():
        # Norm weights near one, matrices large enough that logits differ and attention is not flat.
        spread = 0.3 if len(size) == 1 else 1.5 / np.sqrt(size[-1])
        arrays[name] = (rng.standard_normal(size) * spread + (len(size) == 1)).astype(np.float32)
    save_file(arrays, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 4} | (generation or {})))
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"bos_token": "<|begin|>", "eos_token": "<|end|>", "chat_template": template}
    (folder / "tokenizer_config.json").write_text(json.dumps(names))
    return folder


def make_tokenizer():
    """Characters, some phrases, and a BOS in front when special tokens are added."""
    characters = [c for c in string.printable if c.isprintable()] + ["\n"]
    vocabulary = {token: i for i, token in enumerate((*SPECIAL, *PHRASES, *characters))}
    tokenizer = FastTokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<|unk|>"))
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIAL])
    tokenizer.add_tokens([AddedToken(t, normalized=False) for t in PHRASES])
    tokenizer.decoder = decoders.Fuse()
    tokenizer.post_processor = processors.TemplateProcessing(single="<|begin|> $A", special_tokens=[("<|begin|>", 0)])
    return tokenizer


class Running:
    """A server in this process, a client for it, and its engine to look into."""

    def __init__(self, url, session, engine, server):
        self.url, self.session, self.engine, self.server = url, session, engine, server

    async def post(self, path, body, **options):
        async with self.session.post(self.url + path, json=body, **options) as response:
            return response.status, await response.json()

    async def complete(self, **body):
        """A completion that must succeed, with all sampling parameters at their neutral values."""
        neutral = {"temperature": 1.0, "return_token_ids": True, "max_tokens": 24}
        status, answer = await self.post("/v1/completions", neutral | body)
        assert status == 200, answer
        return answer

    async def metrics(self):
        async with self.session.get(self.url + "/metrics") as response:
            lines = (await response.text()).splitlines()
        return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in lines if not line.startswith("#")}


@asynccontextmanager
async def serving(folder, **options):
    async with (
        running_server(ServiceOptions(str(folder), **options)) as (server, engine),
        listening(server, "127.0.0.1", 0) as url,
        aiohttp.ClientSession() as session,
    ):
        yield Running(url, session, engine, server)


def write_chain(folder, *links, **options):
    """A model that always continues as these texts say: after each token of a text comes the next one, for certain.

    Its layers add nothing, embeddings are one-hot, and the head maps a token to its successor.
    """
    tokenizer = make_tokenizer()
    size = tokenizer.get_vocab_size()
    write_checkpoint(folder, hidden_size=128, tie_word_embeddings=False, **options)
    arrays = load_file(folder / "model.safetensors")
    for name, array in arrays.items():
        array[...] = 1 if "norm" in name else 0
    np.fill_diagonal(arrays["model.embed_tokens.weight"], 1)
    for text in links:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        for token, successor in itertools.pairwise(ids):
            arrays["lm_head.weight"][successor, token] = 10
    assert size <= 128
    save_file(arrays, folder / "model.safetensors")
    return folder


def token_ids(text, *, add_special_tokens=False):
    return make_tokenizer().encode(text, add_special_tokens=add_special_tokens).ids


class Recorder:
    """A listener that keeps what it hears."""

    def __init__(self):
        self.completions, self.tokens, self.error = {}, [], None

    def on_tokens(self, sequence, tokens, logprobs):
        self.tokens += tokens

    def on_finished(self, sequence, completion):
        self.completions[sequence.index] = completion

    def on_failed(self, error):
        self.error = error


class SteppedEngine:
    """An engine without its thread: tests make every step themselves."""

    def __init__(self, folder, *, max_num_seqs=32, cache_mb=16):
        checkpoint = load_checkpoint(folder)
        self.vocabulary = checkpoint.config.vocab_size
        self.engine = Engine(
            checkpoint,
            Tokenizer(folder, self.vocabulary),
            max_num_seqs=max_num_seqs,
            max_model_len=checkpoint.config.max_position_embeddings,
            cache_bytes=cache_mb * 2**20,
            deliver=lambda events: [event() for event in events],
        )
        self.invariant = self.engine._model.batch_invariant

    @property
    def computed(self):
        """Prompt tokens that were not found in the cache or shared."""
        return self.engine.counters.cache_queries - self.engine.counters.cache_hits

    def submit(self, prompts, *, seed=0, streaming=False, recorder=None, **params):
        recorder = recorder or Recorder()
        settings = SamplingParams(**{"max_tokens": 16, "ignore_eos": True} | params)
        sequences = [
            Sequence(i, np.array(prompt, np.int32), settings, seed + i, recorder, streaming=streaming)
            for i, prompt in enumerate(prompts)
        ]
        self.engine.submit(sequences)
        return recorder, sequences

    def step(self):
        assert self.engine._receive()
        self.engine._drop_aborted()
        self.engine.step()
        self.engine._flush()

    def run(self, prompts, **params):
        """Submit, and step until nothing is left; the token ids in order."""
        recorder, _ = self.submit(prompts, **params)
        self.drain()
        return [recorder.completions[i].token_ids for i in range(len(prompts))]

    def drain(self):
        while self.engine.running or self.engine.waiting:
            self.step()
