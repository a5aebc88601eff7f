"""Text to tokens and back: the checkpoint's own tokenizer and chat template."""

from __future__ import annotations

import datetime as dt
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer as FastTokenizer

from asearch_backends.embedded.checkpoint import CheckpointError, read_json

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt

_CONTINUE_HERE = "CONTINUE_FINAL_MESSAGE_HERE "
_CONTEXT = 5  # tokens before new ones that may change how these are written
_UNFINISHED = "�"  # how a decoder writes bytes that are not a whole character yet


class ChatTemplateError(ValueError):
    """The messages cannot be rendered; the message says why."""


class Tokenizer:
    """tokenizer.json, with the template and the special tokens of tokenizer_config.json."""

    def __init__(self, folder: Path, vocabulary: int) -> None:
        try:
            self._fast = FastTokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:  # the library raises plain Exception
            raise CheckpointError(f"cannot read {folder / 'tokenizer.json'}: {error}") from error
        config = folder / "tokenizer_config.json"
        self._config = read_json(config) if config.is_file() else {}
        self._vocabulary = vocabulary
        self.bos, self.eos = self._special("bos_token"), self._special("eos_token")
        self.eos_id: int | None = self._fast.token_to_id(self.eos) if self.eos else None
        self._template = self._load_template(folder)
        self._context_free = _decodes_token_by_token(read_json(folder / "tokenizer.json"))
        self.pieces = tuple(self._fast.decode_batch([[t] for t in range(vocabulary)], skip_special_tokens=True))

    # -- encoding --

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Token ids; add_special_tokens puts a BOS in front, even if there is one."""
        ids: list[int] = self._fast.encode(text, add_special_tokens=add_special_tokens).ids
        return ids

    def render(
        self, messages: list[dict[str, Any]], *, add_generation_prompt: bool, continue_final_message: bool, **extra: Any
    ) -> str:
        """The text of a conversation as the model was trained to see it."""
        if self._template is None:
            raise ChatTemplateError("this model has no chat template")
        if continue_final_message:
            final = messages[-1]
            messages = [*messages[:-1], {**final, "content": final["content"] + _CONTINUE_HERE}]
        try:
            text = self._template.render(
                messages=messages,
                add_generation_prompt=add_generation_prompt,
                bos_token=self.bos or "",
                eos_token=self.eos or "",
                **extra,
            )
        except (TemplateError, TypeError, ValueError, KeyError) as error:
            raise ChatTemplateError(f"the chat template refuses these messages: {error}") from error
        return _cut_at_mark(text) if continue_final_message else text

    # -- decoding --

    def token_string(self, token: int) -> str:
        """The token as it stands in the vocabulary."""
        text: str | None = self._fast.id_to_token(token)
        return "" if text is None else text

    def decode(self, tokens: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        text: str = self._fast.decode(tokens, skip_special_tokens=skip_special_tokens)
        return text

    def continuation(self, before: Sequence[int], tokens: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """The text that tokens add to those before them."""
        if self._context_free:
            return self.decode(tokens, skip_special_tokens=skip_special_tokens)
        context = list(before[-_CONTEXT:])
        start = self.decode(context, skip_special_tokens=skip_special_tokens)
        return self.decode([*context, *tokens], skip_special_tokens=skip_special_tokens)[len(start) :]

    # -- stop strings --

    @lru_cache(maxsize=256)  # noqa: B019 - one tokenizer lives as long as the process
    def may_complete(self, stop: tuple[str, ...]) -> npt.NDArray[np.bool_]:
        """For every token, whether one of these stop strings can end inside it."""
        return np.fromiter((_may_end_in(piece, stop) for piece in self.pieces), np.bool_, len(self.pieces))

    def _special(self, name: str) -> str | None:
        token = self._config.get(name)
        return token.get("content") if isinstance(token, dict) else token

    def _load_template(self, folder: Path) -> Any:
        file = folder / "chat_template.jinja"
        source = file.read_text(encoding="utf-8") if file.is_file() else self._config.get("chat_template")
        if isinstance(source, list):
            source = next((t["template"] for t in source if t.get("name") == "default"), None)
        if source is None:
            return None
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        environment.globals |= {"raise_exception": _raise_exception, "strftime_now": _strftime_now}
        environment.filters["tojson"] = lambda value, **_: orjson.dumps(value).decode()
        try:
            return environment.from_string(source)
        except TemplateError as error:
            raise CheckpointError(f"broken chat template in {folder}: {error}") from error


class IncrementalText:
    """The text of a growing sequence, piece by piece, without decoding it from the start each time."""

    def __init__(self, tokenizer: Tokenizer, prompt: Sequence[int], *, skip_special_tokens: bool) -> None:
        self._tokenizer, self._skip = tokenizer, skip_special_tokens
        self._before = list(prompt[-_CONTEXT:])
        self._open: list[int] = []  # tokens that end in an unfinished character

    def push(self, tokens: Sequence[int]) -> str:
        """The text that became certain with these tokens."""
        self._open.extend(tokens)
        text = self._tokenizer.continuation(self._before, self._open, skip_special_tokens=self._skip)
        if text.endswith(_UNFINISHED):
            return ""
        self._before = [*self._before, *self._open][-_CONTEXT:]
        self._open = []
        return text


def find_stop(
    tokenizer: Tokenizer, tokens: Sequence[int], stop: tuple[str, ...], *, skip_special_tokens: bool = True
) -> tuple[str, int] | None:
    """The stop string that the last token completed, and how many characters come after it.

    Looks back no further than the longest stop string reaches.
    """
    longest = max(map(len, stop))
    for look_back in _look_backs(longest, len(tokens)):
        tail = tokens[-look_back:]
        text = tokenizer.decode(tail, skip_special_tokens=skip_special_tokens)
        known = len(tokenizer.decode(tail[:-1], skip_special_tokens=skip_special_tokens))
        if known >= longest or look_back == len(tokens):
            break
    for candidate in stop:
        at = text.find(candidate, max(known - len(candidate) + 1, 0))
        if at >= 0:
            return candidate, len(text) - at - len(candidate)
    return None


def _look_backs(longest: int, tokens: int) -> list[int]:
    """Ever more tokens: most have a character or more, special ones have none."""
    steps = []
    look_back = longest + 2
    while look_back < tokens:
        steps.append(look_back)
        look_back *= 4
    return [*steps, tokens]


def _may_end_in(piece: str, stop: tuple[str, ...]) -> bool:
    if _UNFINISHED in piece:
        return True
    # A piece decoded alone may have lost its leading space.
    return any(
        text and (s in text or any(s.endswith(text[:k]) for k in range(1, min(len(text), len(s)) + 1)))
        for s in stop
        for text in ((piece, " " + piece) if piece else ("",))
    )


def _decodes_token_by_token(tokenizer: dict[str, Any]) -> bool:
    """Whether text is the sum of its tokens' texts: a decoder that only joins."""
    decoder = tokenizer.get("decoder")
    return isinstance(decoder, dict) and decoder.get("type") in {"Fuse", "ByteLevel"}


def _cut_at_mark(text: str) -> str:
    """End the text where the final message ends; a template that trims it has trimmed the mark's space, too."""
    mark = _CONTINUE_HERE.strip()
    at = text.rfind(mark)
    if at < 0:
        raise ChatTemplateError("continue_final_message is set, but the final message does not appear in the chat")
    trimmed = not text.startswith(_CONTINUE_HERE, at)
    return text[:at].rstrip() if trimmed else text[:at]


def _raise_exception(message: str) -> None:
    raise ChatTemplateError(message)


def _strftime_now(pattern: str) -> str:
    return dt.datetime.now().astimezone().strftime(pattern)
