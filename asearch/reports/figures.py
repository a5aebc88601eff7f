"""The figures of a report: accuracy against N and against compute, bars by level, the compute-optimal curve."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from asearch.plots import (
    HATCHES,
    STYLES,
    Curve,
    accuracy_axis,
    budget_axis,
    draw_baselines,
    draw_curves,
    drawing,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from asearch.reports.fit import Fitted
    from asearch.reports.levels import Kind
    from asearch.reports.tables import LevelPoint, Point

WIDE = (9.4, 4.8)
GREEDY = "greedy"


def curves_of(points: Iterable[Point], x: Callable[[Point], float | None]) -> dict[str, Curve]:
    """A curve per method, greedy decoding left out; points without an x are left out."""
    grouped: dict[str, list[tuple[float, Point]]] = {}
    for point in points:
        place = x(point)
        if place is not None and not is_greedy(point):
            grouped.setdefault(point.label, []).append((place, point))
    return {
        label: Curve([x for x, _ in found], [p.accuracy for _, p in found], [p.spread for _, p in found])
        for label, found in sorted(grouped.items())
    }


def is_greedy(point: Point) -> bool:
    """Whether a point is greedy decoding, which is a baseline."""
    return point.label.startswith(GREEDY)


def draw_accuracy(file: Path, points: Sequence[Point], title: str) -> None:
    """Accuracy against N, with the greedy baselines as lines."""
    with drawing(file, size=WIDE) as axes:
        draw_curves(axes, curves_of(points, lambda p: p.n))
        budget_axis(axes, sorted({p.n for p in points if not is_greedy(p)}))
        draw_baselines(axes, {p.label: p.accuracy for p in points if is_greedy(p)})
        accuracy_axis(axes, title=title, outside=True)


def draw_compute(
    file: Path, points: Sequence[Point], x: Callable[[Point], float | None], name: str, title: str
) -> None:
    """Accuracy against what policy and verifier compute together, with greedy decoding as points on the same axis."""
    with drawing(file, size=WIDE) as axes:
        draw_curves(axes, curves_of(points, x))
        for marker, point in zip(("*", "D", "p"), filter(is_greedy, points), strict=False):
            place = x(point)
            if place is not None:
                axes.plot([place], [100 * point.accuracy], marker=marker, color="#222222", markersize=11,
                          linestyle="none", label=point.label, zorder=5)  # fmt: skip
        axes.set_xscale("log")
        axes.set_xlabel(name)
        accuracy_axis(axes, title=title, outside=True)


def draw_levels(file: Path, points: Sequence[LevelPoint], title: str) -> None:
    """Bars: per level the accuracy of each method, a panel per budget."""
    budgets = sorted({p.n for p in points if not p.label.startswith(GREEDY)})
    labels = sorted({p.label for p in points if not p.label.startswith(GREEDY)})
    levels = list(dict.fromkeys(p.level for p in points))
    columns = min(2, len(budgets))
    rows = math.ceil(len(budgets) / columns)
    with drawing(file, size=(5.2 * columns + 2.2, 2.9 * rows + 0.6), panels=(rows, columns)) as given:
        panels = [given] if rows == columns == 1 else list(given.flat)
        for axes, n in zip(panels, budgets, strict=False):
            _bars(axes, [p for p in points if p.n == n], labels, levels)
            axes.set_title(f"N = {n}", fontsize=10)
            axes.set_ylim(0, 100)
        for axes in panels[len(budgets) :]:
            axes.set_visible(False)
        for row in range(rows):
            panels[row * columns].set_ylabel("accuracy (%)")
        figure = panels[0].figure
        handles, names = _all_handles(panels)
        figure.legend(handles, names, loc="outside right center", frameon=False, fontsize=9)
        figure.suptitle(title, fontsize=11)


def _bars(axes: Any, points: Sequence[LevelPoint], labels: Sequence[str], levels: Sequence[str]) -> None:
    """A bar per method and level; a method that has none here takes no room, and its style stays its own elsewhere."""
    table = {(p.label, p.level): p.accuracy for p in points}
    there = [label for label in labels if any((label, level) in table for level in levels)]
    width = 0.84 / max(1, len(there))
    for place, label in enumerate(there):
        known = [(j, table[label, level]) for j, level in enumerate(levels) if (label, level) in table]
        i = labels.index(label)
        axes.bar(
            [j + (place - (len(there) - 1) / 2) * width for j, _ in known],
            [100 * accuracy for _, accuracy in known],
            width,
            label=label,
            color=STYLES[i % len(STYLES)][0],
            hatch=HATCHES[i % len(HATCHES)],
            edgecolor="white",
            linewidth=0.4,
        )
    axes.set_xlim(-0.5, len(levels) - 0.5)
    axes.set_xticks(range(len(levels)), levels)
    axes.set_xlabel("level of difficulty (easiest first)", fontsize=9)
    axes.grid(visible=False, axis="x")


def _all_handles(panels: Sequence[Any]) -> tuple[list[Any], list[str]]:
    found: dict[str, Any] = {}
    for axes in panels:
        for handle, name in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(name, handle)
    return [found[name] for name in sorted(found)], sorted(found)


def draw_optimal(file: Path, found: Mapping[Kind, Sequence[Fitted]], points: Sequence[Point], title: str) -> None:
    """Compute-optimal scaling beside every method that it can choose from."""
    some = next(iter(found.values()))
    curves = {
        f"compute-optimal, {KINDS[kind]}, cross-validated": Curve(
            [f.n for f in fits], [f.cross_validated for f in fits]
        )
        for kind, fits in found.items()
    }
    if "oracle" in found:
        oracle = found["oracle"]
        curves["compute-optimal, oracle levels, same data"] = Curve(
            [f.n for f in oracle], [f.same_data for f in oracle]
        )
    budgets = [f.n for f in some]
    labels = {f.single for fits in found.values() for f in fits} | {
        c for fs in found.values() for f in fs for c in f.chosen
    }
    methods = [p for p in points if p.label in labels and p.n in budgets]
    with drawing(file, size=(10.2, 4.8)) as axes:
        draw_curves(axes, curves)
        plain = {name: Curve(c.x, c.accuracy) for name, c in curves_of(methods, lambda p: p.n).items()}
        draw_curves(axes, plain, first=len(curves), color="#8a8a8a", linewidth=1.2, markersize=5, zorder=1.5)
        budget_axis(axes, budgets)
        draw_baselines(axes, {p.label: p.accuracy for p in points if is_greedy(p)})
        accuracy_axis(axes, title=title, outside=True)


KINDS: Mapping[str, str] = {"oracle": "oracle levels", "model": "verifier's levels", "first": "levels by first samples"}
