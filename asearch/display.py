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
    from asearch.result import Node, Result

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


def search_tree(result: Result, *, width: int = 100, whole: bool = True) -> RichTree:
    """The explored tree with its step scores; equal texts share a line, and the winner's path is marked.

    Args:
        result: of a search.
        width: of a line, in characters.
        whole: show every branch; otherwise only what was tried along the winner's path.
    """
    winner = () if result.winner is None else result.paths[result.winner].id
    title = f"[bold]search tree[/bold]  {len(result.tree)} steps explored, answer {escape(str(result.answer))}"
    root = RichTree(title, guide_style="dim")
    ahead: list[tuple[RichTree, list[tuple[int, ...]]]] = [(root, [()])]
    while ahead:  # no recursion: a solution may have a thousand steps
        into, of = ahead.pop()
        children = [node for parent in of for node in result.tree.children(parent)]
        for twins in equal_steps(children, winner):
            node = twins[0]
            label = _label(node, len(twins), max(24, width - 4 * len(node.path.id)), winner)
            branch = into.add(label)
            if whole or leads_to(node, winner):
                ahead.append((branch, [twin.path.id for twin in twins]))
    return root


def equal_steps(nodes: Sequence[Node], winner: tuple[int, ...]) -> list[list[Node]]:
    """Continuations of one text by what they say, the one that went furthest first."""
    sets: dict[tuple[str, str], list[Node]] = {}
    for node in nodes:
        step = node.path.step
        sets.setdefault((step.text, step.finish) if step else ("", ""), []).append(node)
    grown = {"kept": 0, "finished": 0}
    return [
        sorted(twins, key=lambda n: (not leads_to(n, winner), grown.get(n.fate, 1), n.path.id))
        for twins in sets.values()
    ]


def leads_to(node: Node, winner: tuple[int, ...]) -> bool:
    """Whether a step lies on the winner's path."""
    return bool(winner) and winner[: len(node.path.id)] == node.path.id


def _label(node: Node, count: int, width: int, winner: tuple[int, ...]) -> str:
    text = " ".join(node.path.step.text.split()) if node.path.step else ""
    text = text if len(text) <= width else text[: width - 1] + "…"
    score = "  -  " if node.path.score is None else f"{node.path.score:.3f}"
    style = "bold" if leads_to(node, winner) else FATES[node.fate]
    times = f" [cyan]x{count}[/cyan]" if count > 1 else ""
    note = "  [green]winner[/green]" if node.path.id == winner else NOTES[node.fate]
    return f"{_coloured(score, node.path.score)} [{style}]{escape(text)}[/{style}]{times}[dim]{note}[/dim]"


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
