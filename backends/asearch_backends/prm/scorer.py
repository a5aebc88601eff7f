"""One forward pass for all steps of a path, and many paths of like length together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from asearch.problem import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from asearch_backends.prm.checkpoint import Checkpoint

Rows = list[list[float]]


class InputError(Exception):
    """An input that cannot be scored, and why."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids, and the positions at which rows of scores are read."""

    ids: tuple[int, ...]
    positions: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.ids)


class Scorer:
    """Scores encoded paths with a checkpoint.

    Args:
        checkpoint: the model.
        max_batch_tokens: padded tokens of one forward pass.
    """

    def __init__(self, checkpoint: Checkpoint, *, max_batch_tokens: int = 16_384) -> None:
        self.checkpoint = checkpoint
        self.max_batch_tokens = max_batch_tokens
        self.forward_passes = 0
        self._pad = checkpoint.tokenizer.pad_token_id or 0

    def encode_path(self, problem: str, steps: Sequence[str]) -> Encoded:
        """A problem and its steps, read at the end of each step.

        Raises:
            InputError: nothing to score, or too long.
        """
        return self._checked(self.lay_out(problem, steps))

    def lay_out(self, problem: str, steps: Sequence[str]) -> Encoded:
        """The same, however long it is."""
        if not problem.strip():
            raise InputError("the problem is empty")
        if not steps or not all(step.strip() for step in steps):
            raise InputError("steps must be a list of texts of which none is blank")
        family = self.checkpoint.family
        if family.fragments:
            return self._by_fragments(problem, steps)
        texts = family.prefixes(Problem(problem), steps)
        ids, ends = self._tokenize(texts[-1], special=family.bos)
        try:
            positions = tuple(ends[len(text)] for text in texts)
        except KeyError:
            raise InputError("a token of this model reaches from one step into the next") from None
        return Encoded(tuple(ids), positions)

    def encode_text(self, text: str, *, special: bool) -> Encoded:
        """A text that is laid out already: read at the family's tag, or, where it has none, at every token."""
        return self.encode_ids(self.tokenize(text, special=special))

    def encode_ids(self, ids: Sequence[int]) -> Encoded:
        """Token ids that are laid out already."""
        size = len(self.checkpoint.tokenizer)
        if not all(isinstance(token, int) and 0 <= token < size for token in ids):
            raise InputError(f"token ids must be integers from 0 to {size - 1}")
        tag = self.checkpoint.family.tag
        wanted = self.checkpoint.tokenizer(tag, add_special_tokens=False)["input_ids"] if tag else []
        at_tag = [i for i, token in enumerate(ids) if len(wanted) == 1 and token == wanted[0]]
        return self._checked(Encoded(tuple(ids), tuple(at_tag if tag else range(len(ids)))))

    def tokenize(self, text: str, *, special: bool) -> list[int]:
        """The token ids of a text, with or without those that the tokenizer puts around it."""
        return self._tokenize(text, special=special)[0]

    def tokenize_chat(self, messages: Sequence[dict[str, str]], *, special: bool, **options: Any) -> list[int]:
        """The token ids of a chat as the checkpoint's own template lays it out.

        Raises:
            InputError: there is no template, or it refuses the chat.
        """
        from jinja2 import TemplateError

        try:
            text = self.checkpoint.tokenizer.apply_chat_template(messages, tokenize=False, **options)
        except (ValueError, TypeError, TemplateError) as failure:
            reason = str(failure).strip().splitlines() or [type(failure).__name__]
            raise InputError(f"the chat cannot be rendered: {reason[0]}") from None
        return self.tokenize(text, special=special)

    def score(self, paths: Sequence[Encoded]) -> list[Rows]:
        """Rows of probabilities per path, in order."""
        rows: list[Rows] = [[] for _ in paths]
        for group in self.groups(paths):
            for i, found in zip(group, self._forward([paths[i] for i in group]), strict=True):
                rows[i] = found
        return rows

    def groups(self, paths: Sequence[Encoded]) -> Iterator[list[int]]:
        """Indices of paths that go through the model together: of like length, so that little of it is padding."""
        group: list[int] = []
        for i in sorted(range(len(paths)), key=lambda i: -len(paths[i])):
            longest = len(paths[group[0]]) if group else 0
            if group and (longest * (len(group) + 1) > self.max_batch_tokens or len(paths[i]) < 0.7 * longest - 16):
                yield group
                group = []
            group.append(i)
        if group:
            yield group

    def _forward(self, paths: Sequence[Encoded]) -> list[Rows]:
        self.forward_passes += 1
        longest = max(map(len, paths))
        device = self.checkpoint.device
        ids = torch.full((len(paths), longest), self._pad, dtype=torch.long)
        mask = torch.zeros((len(paths), longest), dtype=torch.long)
        for row, path in enumerate(paths):  # padded on the right, where a causal model does not see it
            ids[row, : len(path)] = torch.tensor(path.ids)
            mask[row, : len(path)] = 1
        with torch.inference_mode():
            hidden = self.checkpoint.body(input_ids=ids.to(device), attention_mask=mask.to(device), use_cache=False)
            wanted = [hidden.last_hidden_state[row, list(path.positions)] for row, path in enumerate(paths)]
            scores = self.checkpoint.head(torch.cat(wanted)).float().cpu().tolist()
        split: list[Rows] = []
        for path in paths:
            split.append(scores[: len(path.positions)])
            scores = scores[len(path.positions) :]
        return split

    def _tokenize(self, text: str, *, special: bool) -> tuple[list[int], dict[int, int]]:
        """Token ids, and for each character offset at which a token ends, the position of that token."""
        out = self.checkpoint.tokenizer(text, add_special_tokens=special, return_offsets_mapping=True)
        ends = {end: i for i, (start, end) in enumerate(out["offset_mapping"]) if end > start}
        return out["input_ids"], ends

    def _by_fragments(self, problem: str, steps: Sequence[str]) -> Encoded:
        ids: list[int] = []
        positions = []
        for part in self.checkpoint.family.parts(Problem(problem), steps):
            for fragment in part:
                ids += self._tokenize(fragment, special=False)[0]
            positions.append(len(ids) - 1)
        return Encoded(tuple(ids), tuple(positions))

    def _checked(self, path: Encoded) -> Encoded:
        limit = self.checkpoint.max_length
        if not path.ids:
            raise InputError("the input has no tokens")
        if len(path) > limit:
            raise InputError(f"This model's maximum context length is {limit} tokens; the input has {len(path)}.")
        return path
