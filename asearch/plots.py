"""Pictures of results. Curves can be told apart without colour: each has its own marker and line style."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

# Okabe and Ito's palette, made to be distinguished under all common forms of colour blindness.
STYLES = (
    ("#0072B2", "o", "-"),
    ("#D55E00", "s", "--"),
    ("#009E73", "^", "-."),
    ("#CC79A7", "D", (0, (3, 1, 1, 1, 1, 1))),
    ("#E69F00", "v", (0, (5, 1))),
    ("#56B4E9", "P", ":"),
    ("#000000", "X", (0, (1, 1))),
)


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
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.6), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for (name, curve), (colour, marker, line) in zip(curves.items(), STYLES, strict=False):
        budgets = sorted(curve)
        heights = [100 * curve[n] for n in budgets]
        axes.plot(
            budgets, heights, color=colour, marker=marker, linestyle=line, label=name, linewidth=1.8, markersize=6
        )
        if bands and name in bands:
            halves = [100 * bands[name].get(n, 0.0) for n in budgets]
            low = [h - d for h, d in zip(heights, halves, strict=True)]
            high = [h + d for h, d in zip(heights, halves, strict=True)]
            axes.fill_between(budgets, low, high, color=colour, alpha=0.12, linewidth=0)
    every = sorted({n for curve in curves.values() for n in curve})
    for shade, (name, height) in zip(("#444444", "#999999"), (baselines or {}).items(), strict=False):
        axes.axhline(100 * height, color=shade, linewidth=1.2, linestyle=(0, (6, 3)))
        axes.annotate(
            f"{name} {100 * height:.0f} %",
            (every[0] if every else 1, 100 * height),
            textcoords="offset points",
            xytext=(0, 4),
            ha="left",
            fontsize=8,
            color=shade,
        )
    axes.set_ylim(bottom=0)
    axes.set_xscale("log", base=2)
    axes.set_xticks(every, [str(n) for n in every])
    axes.minorticks_off()
    axes.set_xlabel("solutions or beams per problem (N)")
    axes.set_ylabel("accuracy (%)")
    axes.set_title(title, fontsize=11)
    axes.grid(visible=True, alpha=0.25)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.legend(frameon=False, fontsize=9)
    figure.savefig(file)
