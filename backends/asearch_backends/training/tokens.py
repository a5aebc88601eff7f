"""The tokenizer that the embedded models share, and the one place that lays out what they read."""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING, Final

from tokenizers import AddedToken, Tokenizer, decoders, models, processors

from asearch.problem import SYSTEM_PROMPT
from asearch_backends.embedded.task import BLANK_LINE, NAMES

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

BEGIN: Final = "<|begin|>"
END: Final = "<|end|>"
PAD: Final = "<|pad|>"
UNKNOWN: Final = "<|unk|>"
SYSTEM: Final = "<|system|>"
USER: Final = "<|user|>"
ASSISTANT: Final = "<|assistant|>"
SPECIAL_TOKENS: Final = (PAD, BEGIN, END, UNKNOWN, SYSTEM, USER, ASSISTANT)

# One token for each phrase that carries no decision of its own: solutions get short, and the models spend their few
# parameters on arithmetic. The system prompt is one token because the library sends it with every problem.
PHRASES: Final = (
    BLANK_LINE,
    SYSTEM_PROMPT,
    "What is $",
    "$?",
    "## Step ",
    *(f": {name}\n$" for name in NAMES.values()),
    " = ",
    " + ",
    " - ",
    r" \cdot ",
    "$, which leaves $",
    "$.",
    r"Therefore, the final answer is: $\boxed{",
    "}$. I hope it is correct.",
)
CHARACTERS: Final = ("\n", *(chr(code) for code in range(32, 127)))

CHAT_TEMPLATE: Final = (
    "{{ '" + BEGIN + "' }}"
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ '" + SYSTEM + "' + message['content'] }}"
    "{% elif message['role'] == 'user' %}{{ '" + USER + "' + message['content'] }}"
    "{% elif message['role'] == 'assistant' %}{{ '" + ASSISTANT + "' + message['content'] + '" + END + "' }}"
    "{% else %}{{ raise_exception('only the roles system, user and assistant are known') }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '" + ASSISTANT + "' }}{% endif %}"
)


def conversation(problem: str, answer: str = "") -> str:
    """What a model reads: the chat template with the library's system prompt, and the answer so far, left open.

    The policy continues it, and the process reward model scores it: both are trained and served on this one format.
    """
    return f"{BEGIN}{SYSTEM}{SYSTEM_PROMPT}{USER}{problem}{ASSISTANT}{answer}"


@cache
def build_tokenizer() -> Tokenizer:
    """Printable ASCII character by character, plus the phrases as added tokens."""
    vocabulary = {token: number for number, token in enumerate((*SPECIAL_TOKENS, *PHRASES, *CHARACTERS))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token=UNKNOWN))
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in SPECIAL_TOKENS])
    tokenizer.add_tokens([AddedToken(phrase, normalized=False, special=False) for phrase in PHRASES])
    tokenizer.decoder = decoders.Fuse()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A",
        pair=f"{BEGIN} $A {BEGIN} $B",
        special_tokens=[(BEGIN, vocabulary[BEGIN])],
    )
    return tokenizer


def encode(texts: Iterable[str]) -> list[list[int]]:
    """Token ids of texts that already carry their special tokens."""
    return [encoding.ids for encoding in build_tokenizer().encode_batch(list(texts), add_special_tokens=False)]


def decode(ids: list[int]) -> str:
    """The text of ids, special tokens left out."""
    return build_tokenizer().decode(ids, skip_special_tokens=True)


def token_id(token: str) -> int:
    """The id of a token that is known to exist."""
    number = build_tokenizer().token_to_id(token)
    if number is None:
        raise KeyError(f"no such token: {token!r}")
    return number


def vocabulary_size() -> int:
    """How many tokens there are."""
    return build_tokenizer().get_vocab_size()


def save_tokenizer(folder: Path, context: int) -> None:
    """Writes the tokenizer files that transformers and vLLM expect beside the weights."""
    build_tokenizer().save(str(folder / "tokenizer.json"))
    named = {"bos_token": BEGIN, "eos_token": END, "pad_token": PAD, "unk_token": UNKNOWN}
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **named,
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "model_max_length": context,
    }
    for name, content in (("tokenizer_config.json", settings), ("special_tokens_map.json", named)):
        (folder / name).write_text(json.dumps(content, indent=2) + "\n")
