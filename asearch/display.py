"""What a terminal shows: tables, trees, progress. No arithmetic beyond formatting."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.tree import Tree as RichTree

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import Console

    from asearch.demo import Row
    from asearch.result import Node, Result, Tree

FATES = {"open": "dim", "kept": "bold", "pruned": "dim", "finished": "green", "failed": "red"}
NOTES = {"open": "", "kept": "", "pruned": "  pruned", "finished": "  done", "failed": "  failed"}


def progress_bars(console: Console) -> Progress:
    """One bar per strategy: how far, how right so far, how fast."""
    return Progress(
        TextColumn("{task.description:<22}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]:<34}"),
        TimeElapsedColumn(),
        console=console,
        auto_refresh=True,
    )


def strategy_table(rows: Iterable[Row], n: int) -> Table:
    """What each strategy reached, and what it cost."""
    table = plain_table(f"strategy (N={n})", "accuracy", "policy tokens", "PRM tokens", "requests", "seconds")
    for row in rows:
        table.add_row(
            row.label,
            f"{100 * row.accuracy:.0f} %",
            f"{row.usage.policy_tokens:,}",
            f"{row.usage.prm_tokens:,}",
            f"{row.usage.requests + row.usage.prm_requests:,}",
            f"{row.seconds:.1f}",
        )
    return table


def search_tree(tree: Tree, answer: str | None, *, width: int = 100) -> RichTree:
    """The explored tree with its step scores; what was pruned is dim."""
    root = RichTree(f"[bold]search tree[/bold]  ({len(tree)} steps explored, answer {escape(str(answer))})")
    _branches(root, tree, tree.children(), width)
    return root


def _branches(into: RichTree, tree: Tree, nodes: Sequence[Node], width: int) -> None:
    for node in nodes:
        branch = into.add(_label(node, max(20, width - 4 * len(node.path.id))))
        _branches(branch, tree, tree.children(node.path.id), width)


def _label(node: Node, width: int) -> str:
    text = " ".join(node.path.step.text.split()) if node.path.step else ""
    text = text if len(text) <= width else text[: width - 1] + "…"
    score = "  -  " if node.path.score is None else f"{node.path.score:.3f}"
    style = FATES[node.fate]
    return f"[{style}]{_coloured(score, node.path.score)} {escape(text)}{NOTES[node.fate]}[/{style}]"


def _coloured(label: str, score: float | None) -> str:
    if score is None:
        return label
    colour = "green" if score >= 0.8 else "yellow" if score >= 0.4 else "red"
    return f"[{colour}]{label}[/{colour}]"


def vote_table(result: Result, limit: int = 5) -> Table:
    """Why an answer won."""
    table = plain_table("answer", "weight", "candidates")
    for vote in result.votes[:limit]:
        table.add_row(escape(vote.answer), f"{vote.weight:.3f}", str(vote.count))
    return table


def plain_table(first: str, *others: str) -> Table:
    """A table without lines: names on the left, figures on the right."""
    table = Table(header_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(first)
    for name in others:
        table.add_column(name, justify="right")
    return table
