"""Canonical forms as values, and groups of candidates whose forms agree.

A form says what an answer means: two answers with a common key are equal. Forms with different keys but the same probe
(numeric values at fixed points) may still be equal, and are worth a proof. Groups are the connected components of both
relations, so they are symmetric and transitive by construction.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


@dataclass(frozen=True, slots=True)
class Form:
    """What an answer means, in a form that can be compared and sent between processes.

    Args:
        kind: `number`, `expression`, `tuple`, `set`, `region`, `matrix`, `relation`, `base`, `ratio`, `text`, or `unread`
            for an answer that could not be parsed and stands for its own text.
        key: equal keys mean equal answers.
        also: further keys under which the same answer is known (`y = 2x` is also the line `2x - y = 0`).
        probe: equal probes are worth a proof; None where the key decides.
    """

    kind: str
    key: str
    also: tuple[str, ...] = ()
    probe: str | None = None

    @property
    def keys(self) -> tuple[str, ...]:
        return (self.key, *self.also)


@dataclass(frozen=True, slots=True)
class Group:
    """Candidates with equal answers.

    Args:
        answer: the text of the first seen.
        members: indices of the candidates, in order.
    """

    answer: str
    members: tuple[int, ...]


class Classes:
    """Answer texts in classes of equal meaning (union-find), by the keys of their forms and by proofs added later."""

    def __init__(self, forms: Mapping[str, Form]) -> None:
        self.forms = forms
        self._parent = {text: text for text in forms}
        first: dict[str, str] = {}
        for text, form in forms.items():
            for key in form.keys:
                self.merge(first.setdefault(key, text), text)

    def find(self, text: str) -> str:
        while self._parent[text] != text:
            self._parent[text] = self._parent[self._parent[text]]
            text = self._parent[text]
        return text

    def merge(self, a: str, b: str) -> None:
        self._parent[self.find(b)] = self.find(a)

    def doubtful(self) -> list[list[str]]:
        """One text per class, listed with the other classes of the same probe; only where there are at least two.

        Two exact numbers are never in doubt: their keys have decided.
        """
        by_probe: dict[str, dict[str, str]] = defaultdict(dict)
        for text, form in self.forms.items():
            if form.probe is not None:
                by_probe[form.probe].setdefault(self.find(text), text)
        suspects = [list(texts.values()) for texts in by_probe.values()]
        return [texts for texts in suspects if sum(self.forms[t].kind != "number" for t in texts) and len(texts) > 1]

    def groups(self, answers: Sequence[str | None]) -> list[Group]:
        """Members by class, classes in the order in which they were first seen."""
        members: dict[str, list[int]] = defaultdict(list)
        for index, answer in enumerate(answers):
            if answer is not None and answer in self.forms:
                members[self.find(answer)].append(index)
        return [Group(str(answers[found[0]]), tuple(found)) for found in members.values()]


def distinct(answers: Sequence[str | None]) -> Iterator[str]:
    """The different answers in the order in which they were first seen; None and blank ones are no answers."""
    yield from dict.fromkeys(answer for answer in answers if answer is not None and answer.strip())


def pairs_to_prove(texts: Sequence[str], classes: Classes) -> Iterator[tuple[str, str]]:
    """Pairs in doubt, skipping those that earlier proofs have settled meanwhile, and pairs of exact numbers."""
    for i, b in enumerate(texts):
        for a in texts[:i]:
            both_numbers = classes.forms[a].kind == classes.forms[b].kind == "number"
            if not both_numbers and classes.find(a) != classes.find(b):
                yield a, b
