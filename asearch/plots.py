"""Pictures of results. Curves can be told apart without colour: each has its own marker and line style."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from asearch.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

# Okabe and Ito's palette, made to be distinguished under all common forms of colour blindness, without its yellow, which
# is too light for lines on white. Where it begins again, markers and lines are others.
STYLES: tuple[tuple[str, str, Any], ...] = (
    ("#0072B2", "o", "-"),
    ("#D55E00", "s", "--"),
    ("#009E73", "^", "-."),
    ("#CC79A7", "D", (0, (3, 1, 1, 1, 1, 1))),
    ("#E69F00", "v", (0, (5, 1))),
    ("#56B4E9", "P", ":"),
    ("#000000", "X", (0, (1, 1))),
    ("#0072B2", "<", (0, (8, 2))),
    ("#D55E00", ">", (0, (2, 2))),
    ("#009E73", "h", (0, (6, 1, 1, 1))),
    ("#CC79A7", "p", (0, (4, 4))),
    ("#E69F00", "*", (0, (1, 3))),
    ("#56B4E9", "d", (0, (7, 1, 2, 1))),
    ("#000000", "8", (0, (9, 3, 1, 3))),
)
HATCHES = ("", "///", "...", "\\\\\\", "xxx", "---", "+++", "ooo")
GREYS = ("#444444", "#777777", "#999999")


@dataclass(frozen=True, slots=True)
class Curve:
    """A line of a figure.

    Args:
        x: where its points are.
        accuracy: in [0, 1].
        spread: half the height of the band around it: the standard deviation over seeds; None draws none.
    """

    x: Sequence[float]
    accuracy: Sequence[float]
    spread: Sequence[float | None] | None = None


def style(i: int) -> dict[str, Any]:
    """Colour, marker and line of the curve number i."""
    colour, marker, line = STYLES[i % len(STYLES)]
    return {"color": colour, "marker": marker, "linestyle": line, "linewidth": 1.8, "markersize": 6}


@contextmanager
def drawing(file: Path, *, size: tuple[float, float] = (7.2, 4.6), panels: tuple[int, int] = (1, 1)) -> Iterator[Any]:
    """Axes to draw on (an array of them, if several panels); saved as PNG at the end of the block.

    Raises:
        UsageError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise UsageError("pictures need matplotlib: pip install 'asearch[eval]'") from None

    figure = Figure(figsize=size, dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(*panels, squeeze=False, sharey=panels != (1, 1))
    for one in axes.flat:
        one.grid(visible=True, axis="both", alpha=0.25)
        one.set_axisbelow(True)
        for side in ("top", "right"):
            one.spines[side].set_visible(False)
    yield axes[0][0] if panels == (1, 1) else axes
    figure.savefig(file)


def draw_curves(axes: Any, curves: Mapping[str, Curve], *, first: int = 0, **changes: Any) -> None:
    """Curves with their bands, each in a style of its own, but for the changes."""
    for i, (name, curve) in enumerate(curves.items(), start=first):
        heights = [100 * a for a in curve.accuracy]
        axes.plot(curve.x, heights, label=name, **{**style(i), **changes})
        if curve.spread is not None and any(curve.spread):
            halves = [100 * (d or 0.0) for d in curve.spread]
            low = [h - d for h, d in zip(heights, halves, strict=True)]
            high = [h + d for h, d in zip(heights, halves, strict=True)]
            axes.fill_between(curve.x, low, high, color=STYLES[i % len(STYLES)][0], alpha=0.12, linewidth=0)


def draw_baselines(axes: Any, baselines: Mapping[str, float]) -> None:
    """Horizontal lines, named in the legend: a label beside them would lie across the curves."""
    for shade, dashes, (name, height) in zip(GREYS, ((6, 3), (2, 2), (1, 3)), baselines.items(), strict=False):
        axes.axhline(
            100 * height,
            color=shade,
            linewidth=1.2,
            linestyle=(0, dashes),
            zorder=1,
            label=f"{name}: {100 * height:.0f} %",
        )


def budget_axis(axes: Any, budgets: Sequence[int]) -> None:
    """A logarithmic axis of N, base 2, with a tick at each budget."""
    axes.set_xscale("log", base=2)
    axes.set_xticks(list(budgets), [str(n) for n in budgets])
    axes.minorticks_off()
    axes.set_xlabel("solutions or beams per problem (N)")


def accuracy_axis(axes: Any, *, title: str = "", outside: bool = False) -> None:
    """An axis of per cent from 0, and the legend: inside, or beside the axes where there are many curves."""
    axes.set_ylim(0, 1.06 * axes.get_ylim()[1])  # room for the name of a baseline at the top
    axes.set_ylabel("accuracy (%)")
    axes.set_title(title, fontsize=11)
    place: dict[str, Any] = {"loc": "center left", "bbox_to_anchor": (1.01, 0.5)} if outside else {}
    axes.legend(frameon=False, fontsize=9, handlelength=3.2, **place)


def plot_accuracy(
    file: Path,
    curves: Mapping[str, Mapping[int, float]],
    *,
    baselines: Mapping[str, float] | None = None,
    bands: Mapping[str, Mapping[int, float]] | None = None,
    title: str = "",
) -> None:
    """Draw accuracy against the budget N, one curve per strategy, and save it as PNG.

    Args:
        file: where to save.
        curves: per strategy, N -> accuracy in [0, 1].
        baselines: horizontal lines, such as the greedy accuracy.
        bands: per strategy, N -> half the width of a band (standard deviation over seeds).
        title: above the axes.
    """
    lines = {}
    for name, curve in curves.items():
        budgets = sorted(curve)
        band = (bands or {}).get(name)
        spread = None if band is None else [band.get(n) for n in budgets]
        lines[name] = Curve(budgets, [curve[n] for n in budgets], spread)
    with drawing(file, size=(9.0, 4.6) if len(lines) > 5 else (7.2, 4.6)) as axes:
        draw_curves(axes, lines)
        budget_axis(axes, sorted({n for curve in curves.values() for n in curve}))
        draw_baselines(axes, baselines or {})
        accuracy_axis(axes, title=title, outside=len(lines) > 5)
