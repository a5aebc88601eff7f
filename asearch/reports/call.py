"""Writes the report of a run: Markdown and HTML, CSV tables, figures."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from asearch.errors import AsearchError, UsageError
from asearch.reports.compute import Parameters, parameters_of
from asearch.reports.figures import draw_accuracy, draw_compute, draw_levels, draw_optimal
from asearch.reports.fit import Fitted, fitted, readable
from asearch.reports.gather import Gathered, gather
from asearch.reports.levels import QUINTILES, Kind, levels_of
from asearch.reports.methods import with_methods
from asearch.reports.page import Grid, Page, Paragraph, Picture
from asearch.reports.tables import (
    LevelPoint,
    Point,
    accuracy_csv,
    level_csv,
    level_points,
    optimal_csv,
    points_of,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

LEVEL_KINDS: tuple[Kind, ...] = ("oracle", "model", "dataset")
OPTIMAL_KINDS: tuple[Kind, ...] = ("oracle", "model", "first")


@dataclass(frozen=True, slots=True)
class Report:
    """A report that was written.

    Args:
        folder: with report.md, report.html, CSV tables and PNG figures.
        points: accuracy and cost of every method at every budget.
        levels: accuracy by level.
        optimal: compute-optimal scaling, by kind of levels.
    """

    folder: Path
    points: tuple[Point, ...]
    levels: tuple[LevelPoint, ...]
    optimal: dict[Kind, list[Fitted]]


def write_report(
    run: str | Path,
    out: str | Path | None = None,
    *,
    parameters: Parameters | None = None,
    count: int = QUINTILES,
    seed: int = 0,
    methods: Sequence[str] = (),
) -> Report:
    """The report of a run's folder; the log is read once, and little of it is kept.

    Args:
        run: its folder.
        out: where to write; None: `report` in the run's folder.
        parameters: sizes of the models; what is not given is read off their names.
        count: how many levels of difficulty.
        seed: of the cross-validation's splits.
        methods: those to be shown, as the tables call them (`asearch.reports.methods.named` says how freely); none: all.

    Raises:
        UsageError: there is no such run, nothing in its log, or no such method.
        AsearchError: the report cannot be written.
    """
    found = gather(run)
    if not found.records:
        raise UsageError(f"the log of {run} is empty: there is nothing to report yet")
    shown = with_methods(found, methods) if methods else found
    sizes = parameters_of(found.config, parameters or Parameters())
    folder = Path(run) / "report" if out is None else Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return _written(shown, folder, sizes, count, seed, left_out=len(found.strategies) - len(shown.strategies))
    except OSError as failure:
        raise AsearchError(f"cannot write the report to {folder}: {failure.strerror or failure}") from failure


def _written(run: Gathered, folder: Path, sizes: Parameters, count: int, seed: int, *, left_out: int = 0) -> Report:
    points = points_of(run, sizes)
    page = Page(f"Evaluation on {(run.config.get('dataset') or {}).get('source', 'a dataset')}")
    page.add("The run", Paragraph(summary(run) + (f" {LEFT_OUT.format(left_out)}" if left_out else "")))
    _accuracy(page, folder, points)
    _compute(page, folder, points, sizes)
    levels = _levels(page, folder, run, count)
    optimal = _optimal(page, folder, run, points, count, seed)
    _write(folder / "report.md", page.markdown())
    _write(folder / "report.html", page.html(folder))
    return Report(folder, tuple(points), tuple(levels), optimal)


LEFT_OUT = (
    "This report is about some of its methods, and leaves out {}; compute-optimal scaling chooses between those that are "
    "here, and levels are read off all samples."
)


def _write(file: Path, text: str) -> None:
    """A file, whole or not at all."""
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    beside.write_text(text, encoding="utf-8")
    beside.replace(file)


def summary(run: Gathered) -> str:
    """What was run, in sentences."""
    models = run.config.get("models") or {}
    names = {"policy": "policy", "prm": "verifier", "baseline": "larger policy"}
    who = ", ".join(f"{names[role]} {models[role].get('model', 'unknown')}" for role in names if role in models)
    return f"{len(run.ids)} problems, {run.records:,} searches. Models: {who or 'not named'}."


def _accuracy(page: Page, folder: Path, points: Sequence[Point]) -> None:
    _write(folder / "accuracy.csv", accuracy_csv(points))
    blocks: list[Picture | Paragraph | Grid] = []
    if any(not p.label.startswith("greedy") for p in points):
        draw_accuracy(folder / "accuracy.png", points, "Accuracy against the budget")
        blocks.append(Picture("accuracy.png", "accuracy against N for every method"))
    blocks.append(Paragraph("Accuracy in per cent, mean over seeds ± their standard deviation. Table: accuracy.csv."))
    page.add("Accuracy against N", *blocks, accuracy_grid(points))


def accuracy_grid(points: Sequence[Point]) -> Grid:
    """A row per method, a column per budget."""
    budgets = sorted({p.n for p in points})
    table = {(p.label, p.n): p for p in points}
    rows = [
        [label, *(said(table.get((label, n))) for n in budgets)] for label in dict.fromkeys(p.label for p in points)
    ]
    return Grid(["", *(f"N = {n}" for n in budgets)], rows)


def said(point: Point | None) -> str:
    """An accuracy for people."""
    if point is None:
        return ""
    spread = "" if point.spread is None else f" ± {100 * point.spread:.1f}"
    return f"{100 * point.accuracy:.1f}{spread}"


def _compute(page: Page, folder: Path, points: Sequence[Point], sizes: Parameters) -> None:
    note = (
        "Tokens that policy and verifier compute together, the prompt and every explored step once by each (as with a "
        "prefix cache)."
    )
    draw_compute(folder / "tokens.png", points, lambda p: p.computed, "tokens per problem, policy + verifier",
                 "Accuracy against tokens")  # fmt: skip
    page.add("Accuracy against tokens", Paragraph(note), Picture("tokens.png", "accuracy against tokens"))
    if not any(p.flops for p in points):
        page.add("Accuracy against FLOPs", Paragraph(
            "The sizes of the models are not known: pass --policy-params and --prm-params for this figure."))  # fmt: skip
        return
    draw_compute(folder / "flops.png", points, lambda p: p.flops, "FLOPs per problem, policy + verifier",
                 "Accuracy against total compute")  # fmt: skip
    roles = {"policy": sizes.policy, "verifier": sizes.prm, "larger policy": sizes.baseline}
    sized = ", ".join(f"{role} {size / 1e6:,.2f} million" for role, size in roles.items() if size)
    how = f"2 x parameters x tokens, of policy and verifier together; parameters: {sized}."
    missing = sorted({p.label for p in points if p.flops is None})
    left_out = f" Left out, because the size of their models is not known: {', '.join(missing)}." if missing else ""
    page.add("Accuracy against FLOPs", Paragraph(how + left_out), Picture("flops.png", "accuracy against FLOPs"))


def _levels(page: Page, folder: Path, run: Gathered, count: int) -> list[LevelPoint]:
    """Bars for every kind of level that the run has."""
    found: list[LevelPoint] = []
    for kind in LEVEL_KINDS:
        try:
            levels = levels_of(run, kind, count)
        except UsageError as why:
            if kind == "oracle":
                page.add("By level", Paragraph(f"No levels: {why}."))
            continue
        points = level_points(run, kind, levels)
        found += points
        if any(not p.label.startswith("greedy") for p in points):
            draw_levels(folder / f"levels-{kind}.png", points, f"Accuracy by level: {SAID[kind]}")
            page.add(f"By level: {SAID[kind]}", Picture(f"levels-{kind}.png", f"accuracy by {kind} level"))
    _write(folder / "levels.csv", level_csv(found))
    return found


SAID = {"oracle": "pass@1 of the samples", "model": "the verifier's mean score", "dataset": "the dataset's own"}


def _optimal(
    page: Page, folder: Path, run: Gathered, points: Sequence[Point], count: int, seed: int
) -> dict[Kind, list[Fitted]]:
    found: dict[Kind, list[Fitted]] = {}
    for kind in OPTIMAL_KINDS:
        try:
            found[kind] = readable(run, fitted(run, kind, count=count, seed=seed))
        except UsageError as why:
            reason = str(why)
    if not found:
        page.add("Compute-optimal scaling", Paragraph(f"Not in this report: {reason}."))
        return found
    draw_optimal(folder / "optimal.png", found, points, "Compute-optimal scaling")
    _write(folder / "optimal.csv", optimal_csv(f for fits in found.values() for f in fits))
    page.add("Compute-optimal scaling", Paragraph(OPTIMAL_NOTE), Picture("optimal.png", "compute-optimal scaling"),
             optimal_grid(found))  # fmt: skip
    return found


OPTIMAL_NOTE = (
    "Per level of difficulty and budget, the best of the strategies with a weighted vote. Cross-validated: chosen on one half "
    "of a level's problems and evaluated on the other (Snell et al. 2024). Same data: chosen and evaluated on the same "
    "problems, as in the article, which flatters; so does the best single method, which is chosen in hindsight. Oracle levels "
    "need the reference answers, the verifier's levels all samples; levels by first samples are what a search can see."
)


def optimal_grid(found: dict[Kind, list[Fitted]]) -> Grid:
    """A row per kind of levels and budget."""
    rows = [
        [f"{kind}, N = {f.n}", *(f"{100 * x:.1f}" for x in (f.cross_validated, f.same_data, f.single_accuracy)), f.single,
         " / ".join(f.chosen)]
        for kind, fits in found.items() for f in fits
    ]  # fmt: skip
    return Grid(["levels", "cross-validated", "same data", "best single", "which", "chosen, easiest level first"], rows)
