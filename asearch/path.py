"""A path through a problem: steps, one after another, as immutable values that share their beginnings."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Literal

from asearch.problem import STEP_SEPARATOR, Problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# Why a step ended: at the step separator (the path goes on), at the model's end of text, or because room ran out
# (tokens or context). `length` is not an end: such a path has no answer of its own accord.
Finish = Literal["step", "eos", "length"]


@dataclass(frozen=True, slots=True)
class Step:
    """One step as the policy wrote it.

    Args:
        text: the text, with the separator that ended it.
        finish: why it ended.
        token_ids: the generated ids, with the stop token, where the server gave them; else None.
        tokens: how many tokens were generated for it.
        score: the PRM's probability that the solution is right up to the end of this step; None: not scored.
    """

    text: str
    finish: Finish
    token_ids: tuple[int, ...] | None = None
    tokens: int = 0
    score: float | None = None


@dataclass(frozen=True, eq=False)
class Path:
    """The beginning of a solution: a chain of steps, or a whole solution when it is finished.

    A path is a value. Growing one makes a new path that points to it, so the explored tree is there for free and
    nothing is copied. `id` names the place in the tree (the child indices from the root), independent of the order in
    which replies arrive.
    """

    problem: Problem
    parent: Path | None = None
    step: Step | None = None
    id: tuple[int, ...] = ()

    def __repr__(self) -> str:
        return f"Path(id={self.name!r}, depth={self.depth}, finish={self.finish!r}, score={self.score!r})"

    def grow(self, step: Step, index: int) -> Path:
        """The path that goes on from here with `step`, as child number `index`."""
        return Path(self.problem, self, step, (*self.id, index))

    @property
    def name(self) -> str:
        """The id as text: '0.2.1', and 'root' for the empty path."""
        return ".".join(map(str, self.id)) or "root"

    @property
    def chain(self) -> tuple[Step, ...]:
        """The steps, first to last."""
        before = self.parent.trunk if self.parent is not None else ()
        return before if self.step is None else (*before, self.step)

    @cached_property
    def trunk(self) -> tuple[Step, ...]:
        """The chain, kept: children share it. (A tree has many more leaves, which keep nothing.)"""
        return tuple(path.step for path in reversed(list(self.lineage())) if path.step is not None)

    @property
    def steps(self) -> tuple[Step, ...]:
        return self.chain

    @property
    def depth(self) -> int:
        return len(self.chain)

    @property
    def text(self) -> str:
        """The solution so far."""
        return "".join(step.text for step in self.chain)

    @property
    def finish(self) -> Finish:
        """Why the last step ended; an empty path is one that goes on."""
        return self.step.finish if self.step else "step"

    @property
    def finished(self) -> bool:
        """Nothing more can be added: the model ended its text, or the room ran out."""
        return self.finish != "step"

    @property
    def complete(self) -> bool:
        """The model itself ended its text."""
        return self.finish == "eos"

    @property
    def scores(self) -> tuple[float, ...]:
        """The scores of the scored steps, first to last."""
        return tuple(step.score for step in self.chain if step.score is not None)

    @property
    def score(self) -> float | None:
        """The PRM's verdict on the last step."""
        return self.step.score if self.step else None

    @property
    def token_ids(self) -> tuple[int, ...] | None:
        """All generated ids, or None where the server gave text only."""
        ids: list[int] = []
        for step in self.chain:
            if step.token_ids is None:
                return None
            ids.extend(step.token_ids)
        return tuple(ids)

    @property
    def tokens(self) -> int:
        """Generated tokens along this path."""
        return sum(step.tokens for step in self.chain)

    @property
    def unscored(self) -> tuple[Step, ...]:
        """The steps at the end that have no score yet."""
        new: list[Step] = []
        for path in self.lineage():
            if path.step is None or path.step.score is not None:
                break
            new.append(path.step)
        return tuple(reversed(new))

    def lineage(self) -> Iterator[Path]:
        """This path and its ancestors, without the empty root, youngest first."""
        path: Path | None = self
        while path is not None and path.step is not None:
            yield path
            path = path.parent

    def with_scores(self, scores: Sequence[float]) -> Path:
        """The same path with its last steps scored, in order; the ancestors before them are shared."""
        scored = list(islice(self.lineage(), len(scores)))
        if len(scored) < len(scores):
            raise ValueError(f"{len(scores)} scores are too many for a path of {self.depth} steps")
        path = scored[-1].parent if scored else self
        for old, score in zip(reversed(scored), scores, strict=True):
            step = old.step
            assert step is not None  # noqa: S101 - a lineage has steps only
            judged = Step(step.text, step.finish, step.token_ids, step.tokens, float(score))
            path = Path(old.problem, path, judged, old.id)
        return path or self


def split_steps(text: str, separator: str = STEP_SEPARATOR) -> list[str]:
    r"""Cut a solution into steps after each separator; what is blank belongs to the step before it.

    The pieces joined give the text back. (The reference's adapter splits text that ends in a separator into one step
    more than there is, and scores the empty one.)

    >>> split_steps("one\n\ntwo\n\n")
    ['one\n\n', 'two\n\n']
    """
    steps: list[str] = []
    current: list[str] = []
    spoken = False
    pieces = text.split(separator)
    for piece in [*(piece + separator for piece in pieces[:-1]), pieces[-1]]:
        if spoken and piece.strip():
            steps.append("".join(current))
            current = []
        spoken = spoken or bool(piece.strip())
        current.append(piece)
    last = "".join(current)
    return [*steps, last] if last else steps


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the policy samples. The defaults are the article's; every field is sent to the server explicitly.

    `max_tokens` bounds the whole solution, not a step. `top_k` below 1 means all tokens.
    """

    temperature: float = 0.8
    top_p: float = 1.0
    top_k: int = -1
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    max_tokens: int = 2048
    separator: str = field(default=STEP_SEPARATOR)
