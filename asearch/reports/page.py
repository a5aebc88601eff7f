"""A report as one thing that is written twice: as Markdown, and as an HTML page that holds its pictures itself."""

from __future__ import annotations

import base64
import html
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

CSS = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; font-size: 0.9rem; margin: 1rem 0; }
th, td { padding: 0.2rem 0.7rem; border-bottom: 1px solid #ddd; text-align: right; }
th:first-child, td:first-child { text-align: left; }
img { max-width: 100%; }
"""


@dataclass(frozen=True, slots=True)
class Paragraph:
    """A piece of prose."""

    text: str


@dataclass(frozen=True, slots=True)
class Picture:
    """A PNG in the report's folder."""

    file: str
    says: str


@dataclass(frozen=True, slots=True)
class Grid:
    """A table; its first column is text, the others are numbers."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]


Block = Paragraph | Picture | Grid


@dataclass(slots=True)
class Page:
    """Sections of blocks, in order."""

    title: str
    sections: list[tuple[str, list[Block]]] = field(default_factory=list)

    def add(self, heading: str, *blocks: Block) -> None:
        """A further section."""
        self.sections.append((heading, list(blocks)))

    def markdown(self) -> str:
        """The page as Markdown, with its pictures beside it."""
        parts = [f"# {self.title}"]
        for heading, blocks in self.sections:
            parts += [f"## {heading}", *map(_markdown, blocks)]
        return "\n\n".join(parts) + "\n"

    def html(self, folder: Path) -> str:
        """The page as HTML, with its pictures, which are in the folder, inside."""
        parts = [f"<h1>{html.escape(self.title)}</h1>"]
        for heading, blocks in self.sections:
            parts += [f"<h2>{html.escape(heading)}</h2>", *(_html(block, folder) for block in blocks)]
        head = f'<meta charset="utf-8"><title>{html.escape(self.title)}</title><style>{CSS}</style>'
        return (
            f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n' + "\n".join(parts) + "\n</body></html>\n"
        )


def _markdown(block: Block) -> str:
    if isinstance(block, Paragraph):
        return block.text
    if isinstance(block, Picture):
        return f"![{block.says}]({block.file})"
    lines = [block.header, ["---", *("---:" for _ in block.header[1:])], *block.rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _html(block: Block, folder: Path) -> str:
    if isinstance(block, Paragraph):
        return f"<p>{html.escape(block.text)}</p>"
    if isinstance(block, Picture):
        data = base64.b64encode((folder / block.file).read_bytes()).decode()
        return f'<p><img alt="{html.escape(block.says)}" src="data:image/png;base64,{data}"></p>'
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in block.header)
    rows = ("".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in block.rows)
    return f"<table><tr>{head}</tr>" + "".join(f"<tr>{row}</tr>" for row in rows) + "</table>"
