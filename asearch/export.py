"""Search as a generator of training data: the records of a run in the formats that TRL's trainers read.

sft         {"prompt": [messages], "completion": [message]}: right solutions (ReST, V-STaR)
preference  {"prompt": [messages], "chosen": [message], "rejected": [message]}: a right solution, and a wrong one that
            left it as late as any; with siblings=True {"prompt", "chosen", "rejected"} as texts: a step that was kept
            and its sibling that was pruned, after the same beginning
stepwise    {"prompt", "completions": [steps], "labels": [bool]}: a step is right if some solution of the run that
            begins with it is right (the hard estimate of Math-Shepherd, arXiv 2312.08935); a wrong solution ends with
            its first wrong step
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from itertools import accumulate
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Literal, get_args

from asearch.errors import UsageError
from asearch.evaluation import read_config, read_records

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from asearch.evaluation import Record

Format = Literal["sft", "preference", "stepwise"]
Row = dict[str, Any]
COMPLETE = "eos"


@dataclass(slots=True)
class Export:
    """What to write, and what has been written already.

    Args:
        system: the run's system prompt; None: there was none.
        most: rows per problem at most; None: all.
        least: the value by the verifier that a right solution must have; None: any.
        margin: for siblings: by how much the kept step's score must exceed the pruned one's.
        siblings: pairs of steps instead of pairs of solutions.
        right: hashes of the beginnings of right solutions.
    """

    system: str | None
    most: int | None = None
    least: float | None = None
    margin: float = 0.0
    siblings: bool = False
    right: set[bytes] = field(default_factory=set)
    _written: set[bytes] = field(default_factory=set)
    _counts: Counter[str] = field(default_factory=Counter)

    def admits(self, record: Record, *texts: str) -> bool:
        """Whether a row is new and its problem has room for it; counts it if so."""
        key = digest(record.unique_id, *texts)
        if key in self._written or (self.most is not None and self._counts[record.unique_id] >= self.most):
            return False
        self._written.add(key)
        self._counts[record.unique_id] += 1
        return True

    def good(self, record: Record) -> list[int]:
        """The right, complete solutions that are valuable enough, the most valuable first."""
        found = [i for i in complete(record) if record.correct[i]]
        if self.least is not None:
            found = [i for i in found if record.scores[i] and record.agg_scores[i] >= self.least]
        return sorted(found, key=lambda i: (-record.agg_scores[i], i))

    def prompt(self, record: Record) -> list[dict[str, str]]:
        """The messages that the policy was asked with."""
        system = [] if self.system is None else [{"role": "system", "content": self.system}]
        return [*system, {"role": "user", "content": record.problem}]

    def sft(self, record: Record) -> Iterator[Row]:
        """Right solutions."""
        for i in self.good(record):
            if self.admits(record, record.completions[i]):
                yield {"prompt": self.prompt(record), "completion": answer(record.completions[i])}

    def preference(self, record: Record) -> Iterator[Row]:
        """Right solutions against wrong ones, or steps against their siblings."""
        if self.siblings:
            yield from self._steps(record)
            return
        good = self.good(record)
        for i in complete(record):
            if good and not record.correct[i]:
                nearest = max(good, key=lambda j: shared(record.ids[i], record.ids[j]))
                chosen, rejected = record.completions[nearest], record.completions[i]
                if self.admits(record, chosen, rejected):
                    yield {"prompt": self.prompt(record), "chosen": answer(chosen), "rejected": answer(rejected)}

    def _steps(self, record: Record) -> Iterator[Row]:
        nodes = {tuple(node[0]): node for node in record.tree or ()}
        families: dict[tuple[int, ...], list[Any]] = {}
        for place, node in nodes.items():
            families.setdefault(place[:-1], []).append(node)
        for parent, family in families.items():
            before = "".join(nodes[parent[: k + 1]][4] for k in range(len(parent)) if parent[: k + 1] in nodes)
            scored = [node for node in family if node[2] is not None]
            kept = max((n for n in scored if n[1] in ("kept", "finished")), key=itemgetter(2), default=None)
            if kept is not None:
                yield from self._against(record, f"{record.problem}\n\n{before}", kept, scored)

    def _against(self, record: Record, prompt: str, kept: Any, siblings: Sequence[Any]) -> Iterator[Row]:
        for node in siblings:
            worse = node[1] == "pruned" and kept[2] - node[2] > self.margin and node[4] != kept[4]
            if worse and self.admits(record, prompt, kept[4], node[4]):
                yield {"prompt": prompt, "chosen": kept[4], "rejected": node[4]}

    def note_right(self, record: Record) -> None:
        """Remember the beginnings of right solutions."""
        for i in complete(record):
            if record.correct[i]:
                self.right.update(digest(record.unique_id, text) for text in accumulate(record.step_texts(i)))

    def stepwise(self, record: Record) -> Iterator[Row]:
        """Steps with labels; what comes after the first wrong step is left out, for nobody knows what it is."""
        for i in complete(record):
            steps = record.step_texts(i)
            labels = [digest(record.unique_id, text) in self.right for text in accumulate(steps)]
            end = labels.index(False) + 1 if False in labels else len(labels)
            if steps and self.admits(record, *steps[:end], str(labels[end - 1])):
                said = [step.strip() for step in steps[:end]]
                yield {"prompt": record.problem, "completions": said, "labels": labels[:end]}


def export(
    run: str | Path,
    form: Format,
    *,
    most: int | None = None,
    least: float | None = None,
    margin: float = 0.0,
    siblings: bool = False,
) -> Iterator[Row]:
    """Training data from a run, row by row, each only once.

    Args:
        run: its folder.
        form: "sft", "preference" or "stepwise".
        most: rows per problem at most.
        least: the least value by the verifier of a right solution.
        margin: for siblings: by how much the kept step's score must exceed the pruned one's.
        siblings: with "preference": pairs of steps.

    Raises:
        UsageError: there is no such run or format.
    """
    if form not in get_args(Format):
        raise UsageError(f"unknown format {form!r}; known are {', '.join(get_args(Format))}")
    if most is not None and most < 1:
        raise UsageError(f"at least 1 row per problem, not {most}")
    if siblings and form != "preference":
        raise UsageError("siblings are pairs: they need the format preference")
    work = Export(read_config(run).get("system_prompt"), most, least, margin, siblings)
    return _rows(run, work, form)


def _own(run: str | Path) -> Iterator[Record]:
    """The policy's records, without those of the larger policy that it is compared with."""
    others = {entry["label"] for entry in read_config(run).get("entries", ()) if entry.get("policy") == "baseline"}
    return (record for record in read_records(run) if record.label not in others)


def _rows(run: str | Path, work: Export, form: Format) -> Iterator[Row]:
    if form == "stepwise":  # a step of one record may be known to be right from another
        for record in _own(run):
            work.note_right(record)
    rows: Callable[[Record], Iterator[Row]] = getattr(work, form)
    for record in _own(run):
        yield from rows(record)


def complete(record: Record) -> list[int]:
    """The candidates that came to their end."""
    return [i for i, finish in enumerate(record.finishes) if finish == COMPLETE]


def answer(text: str) -> list[dict[str, str]]:
    """A solution as the assistant's turn."""
    return [{"role": "assistant", "content": text}]


def shared(a: tuple[int, ...] | Any, b: tuple[int, ...] | Any) -> int:
    """How many steps two places in the tree have in common."""
    return next((k for k, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def digest(*texts: str) -> bytes:
    """Texts as a few bytes."""
    return hashlib.blake2b("\0".join(texts).encode(), digest_size=12).digest()
