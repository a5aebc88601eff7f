"""What a search returns: the answer, why it won, and everything that was explored. Goes to and from JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any

from asearch.answers import Group
from asearch.errors import UsageError
from asearch.jury import Select, check_select, electorate, representative, tally
from asearch.path import Path, Step
from asearch.problem import Problem
from asearch.scoring import Reduction, Vote, reduce_scores
from asearch.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from asearch.search import Fate


@dataclass(frozen=True, slots=True)
class Node:
    """One explored step: its path, and what became of it."""

    path: Path
    fate: Fate


@dataclass(frozen=True)
class Tree:
    """Every explored step, those that were pruned included, in the order of their ids."""

    nodes: tuple[Node, ...]

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def __len__(self) -> int:
        return len(self.nodes)

    def children(self, of: tuple[int, ...] = ()) -> list[Node]:
        """The explored continuations of a path."""
        return self._children.get(of, [])

    @cached_property
    def _children(self) -> dict[tuple[int, ...], list[Node]]:
        table: dict[tuple[int, ...], list[Node]] = {}
        for node in self.nodes:
            table.setdefault(node.path.id[:-1], []).append(node)
        return table

    def lines(self, width: int = 100) -> Iterator[str]:
        """The tree as text: one line per step, with its score and its fate."""
        ahead = [(node, "", last) for node, last in marked_last(self.children())]
        while ahead:  # no recursion: a solution may have a thousand steps
            node, indent, last = ahead.pop()
            score = "  -  " if node.path.score is None else f"{node.path.score:.3f}"
            text = " ".join(node.path.step.text.split()) if node.path.step else ""
            line = f"{indent}{'└─' if last else '├─'} {score} {MARKS[node.fate]} {text}"
            yield line if len(line) <= width else line[: width - 1] + "…"
            further = indent + ("   " if last else "│  ")
            ahead += [(child, further, end) for child, end in marked_last(self.children(node.path.id))]


def marked_last(nodes: Sequence[Node]) -> list[tuple[Node, bool]]:
    """Siblings, last first, each with whether it is the last."""
    return [(node, i == 0) for i, node in enumerate(reversed(nodes))]


# Strategies whose candidates do not depend on each other, and the option that says how many of n belong together.
INDEPENDENT = {
    "greedy": "",
    "majority": "",
    "best_of_n": "",
    "self_verify": "",
    "dvts": "width",
    "self_refine": "revisions",
}

MARKS: Mapping[Fate, str] = {"open": "·", "kept": "•", "pruned": "✂", "finished": "✓", "failed": "!"}


@dataclass(frozen=True)
class Result:
    """The outcome of a search.

    Args:
        problem: what was asked.
        strategy: name and options of the strategy, as plain data.
        answer: the winning answer, as text of its best candidate; None if no candidate has one.
        text: the solution that stands for the answer (the best candidate where there is no answer).
        score: that candidate's value: its step scores reduced to one number; None without a verifier.
        paths: every candidate, with steps, step scores and finish.
        values: one per candidate.
        answers: one per candidate; None where the text has none.
        groups: which candidates have equal answers, by index (those that were cut off stand here, too, and vote only
            where no other has an answer).
        votes: the table of votes, winner first.
        usage: requests, tokens and seconds.
        tree: every explored step.
        winner: index of the candidate whose text this is; None where there is none.
        stopped_by: "tokens", "seconds" or "requests" if the budget ended the search, "decided" if the vote was settled
            early, "error" where there is nothing but errors (`solve_all` only: elsewhere that is raised), else None.
        errors: what failed for good on the way.
    """

    problem: Problem
    strategy: Mapping[str, Any]
    answer: str | None
    text: str
    score: float | None
    paths: tuple[Path, ...]
    values: tuple[float, ...]
    answers: tuple[str | None, ...]
    groups: tuple[Group, ...]
    votes: tuple[Vote, ...]
    usage: Usage
    tree: Tree
    winner: int | None = None
    stopped_by: str | None = None
    errors: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return (
            f"Result(answer={self.answer!r}, score={self.score!r}, {len(self.paths)} paths, {self.usage.tokens} tokens)"
        )

    def voted(self, select: Select, reduction: Reduction | None = None) -> Result:
        """The result that the same candidates give with another selection, or another reduction of their scores.

        Valid for samples, which do not depend on either; in a tree search the reduction has steered the search.

        Raises:
            UsageError: there is no such selection; or there are no scores to go by.
        """
        how: Reduction = reduction or self.strategy["reduction"]
        if check_select(select) != "majority" and not any(path.scores for path in self.paths):
            raise UsageError(f"no candidate has a score, so {select!r} has nothing to go by")
        return conclude(
            problem=self.problem,
            strategy={**self.strategy, "select": select, "reduction": how},
            paths=self.paths,
            values=[reduce_scores(path.scores, how) if path.scores else 0.0 for path in self.paths],
            answers=self.answers,
            groups=self.groups,
            usage=self.usage,
            tree=self.tree,
            judged=self.score is not None,
            stopped_by=self.stopped_by,
            errors=self.errors,
        )

    def at(self, k: int) -> Result:
        """The result that the first k of n candidates would have given, as the article sub-samples its curves.

        Valid where candidates do not depend on each other: samples (greedy, majority, best-of-N, self-verify), and
        whole DVTS subtrees or chains of revisions, of whose size k must then be a multiple. The usage stays that of the
        whole run.

        Raises:
            UsageError: for strategies whose candidates competed, for a run that was cut short, and for a k out of range.
        """
        name, n = self.strategy["name"], int(self.strategy["n"])
        if name not in INDEPENDENT:
            raise UsageError(
                f"candidates of {name} competed with each other, so there is no part to take: run it at n={k}"
            )
        if self.stopped_by is not None or self.errors:
            raise UsageError(
                "this run was cut short, so its first candidates are no fair sample; run it without budget, and with "
                "early_stop=False where there is that option"
            )
        size = int(self.strategy[part]) if (part := INDEPENDENT[name]) else 1
        if not 1 <= k <= n or k % size:
            raise UsageError(f"k must be a multiple of {size} from {size} to {n}, not {k}")
        return self._only({i for i, path in enumerate(self.paths) if path.id[0] < k}, k)

    def _only(self, kept: set[int], k: int) -> Result:
        new = {old: i for i, old in enumerate(sorted(kept))}
        paths, values = [self.paths[i] for i in new], [self.values[i] for i in new]
        groups = [
            Group(self.answers[members[0]] or "", tuple(new[i] for i in members))
            for group in self.groups
            if (members := [i for i in group.members if i in kept])
        ]
        nodes = tuple(node for node in self.tree.nodes if node.path.id[0] < k)
        return conclude(
            problem=self.problem,
            strategy={**self.strategy, "n": k},
            paths=paths,
            values=values,
            answers=[self.answers[i] for i in new],
            groups=groups,
            usage=self.usage,
            tree=Tree(nodes),
            judged=self.score is not None,
        )

    def to_json(self) -> dict[str, Any]:
        """Plain data for `json.dumps`."""
        candidates = zip(self.paths, self.values, self.answers, strict=True)
        return {
            "problem": {**asdict(self.problem), "history": [list(turn) for turn in self.problem.history]},
            "strategy": dict(self.strategy),
            "answer": self.answer,
            "text": self.text,
            "score": self.score,
            "winner": self.winner,
            "votes": [asdict(vote) for vote in self.votes],
            "usage": asdict(self.usage),
            "stopped_by": self.stopped_by,
            "errors": list(self.errors),
            "paths": [path_to_json(p) | {"value": v, "answer": a} for p, v, a in candidates],
            "groups": [{"answer": group.answer, "members": list(group.members)} for group in self.groups],
            "tree": [node_to_json(node) for node in self.tree.nodes],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Result:
        """A result from what `to_json` made."""
        history = tuple((role, content) for role, content in data["problem"]["history"])
        problem = Problem(**{**data["problem"], "history": history})
        tree = tree_from_json(problem, data["tree"])
        known = {node.path.id: node.path for node in tree.nodes}
        return cls(
            problem=problem,
            strategy=data["strategy"],
            answer=data["answer"],
            text=data["text"],
            score=data["score"],
            paths=tuple(known.get(tuple(p["id"])) or path_from_json(problem, p) for p in data["paths"]),
            values=tuple(p["value"] for p in data["paths"]),
            answers=tuple(p["answer"] for p in data["paths"]),
            groups=tuple(Group(g["answer"], tuple(g["members"])) for g in data["groups"]),
            votes=tuple(Vote(**vote) for vote in data["votes"]),
            usage=Usage(**data["usage"]),
            tree=tree,
            winner=data["winner"],
            stopped_by=data["stopped_by"],
            errors=tuple(data["errors"]),
        )


def conclude(
    *,
    problem: Problem,
    strategy: Mapping[str, Any],
    paths: Sequence[Path],
    values: Sequence[float],
    answers: Sequence[str | None],
    groups: Sequence[Group],
    usage: Usage,
    tree: Tree,
    judged: bool,
    stopped_by: str | None = None,
    errors: Iterable[str] = (),
) -> Result:
    """Count the votes of grouped candidates and make the result."""
    select: Select = strategy["select"]
    if select == "weighted" and not any(values):
        select = "majority"  # nothing was scored (the budget ended before), so there is nothing to weigh by
    voters = electorate(groups, paths, answers)
    votes = tally(voters, values, select)
    winner = representative(voters, votes, values)
    if winner is None and paths:
        winner = max(range(len(paths)), key=lambda i: (values[i], -i))
    return Result(
        problem=problem,
        strategy=strategy,
        answer=answers[winner] if votes and winner is not None else None,
        text=paths[winner].text if winner is not None else "",
        score=values[winner] if judged and winner is not None else None,
        paths=tuple(paths),
        values=tuple(values),
        answers=tuple(answers),
        groups=tuple(groups),
        votes=votes,
        usage=usage,
        tree=tree,
        winner=winner,
        stopped_by=stopped_by,
        errors=tuple(errors),
    )


def step_to_json(step: Step) -> dict[str, Any]:
    ids = None if step.token_ids is None else list(step.token_ids)
    return {f.name: getattr(step, f.name) for f in fields(step)} | {"token_ids": ids}


def step_from_json(data: Mapping[str, Any]) -> Step:
    ids = data["token_ids"]
    return Step(**{**data, "token_ids": None if ids is None else tuple(ids)})


def path_to_json(path: Path) -> dict[str, Any]:
    return {"id": list(path.id), "steps": [step_to_json(step) for step in path.chain], "finish": path.finish}


def path_from_json(problem: Problem, data: Mapping[str, Any]) -> Path:
    path = Path(problem)
    for index, step in zip(data["id"], data["steps"], strict=True):
        path = path.grow(step_from_json(step), index)
    return path


def node_to_json(node: Node) -> dict[str, Any]:
    step = None if node.path.step is None else step_to_json(node.path.step)
    return {"id": list(node.path.id), "fate": node.fate, "step": step}


def tree_from_json(problem: Problem, nodes: Iterable[Mapping[str, Any]]) -> Tree:
    paths: dict[tuple[int, ...], Path] = {(): Path(problem)}
    made = []
    for data in nodes:
        key = tuple(data["id"])
        paths[key] = paths[key[:-1]].grow(step_from_json(data["step"]), key[-1])
        made.append(Node(paths[key], data["fate"]))
    return Tree(tuple(made))
