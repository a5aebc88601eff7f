"""Reports of runs: levels of difficulty, compute-optimal plans, tables, figures, a page."""

from __future__ import annotations

from asearch.reports.call import Report, write_report
from asearch.reports.compute import Parameters
from asearch.reports.fit import Fitted, fitted, make_plan
from asearch.reports.gather import Gathered, gather
from asearch.reports.levels import Levels, levels_of
from asearch.reports.published import Published, read_published

__all__ = [
    "Fitted",
    "Gathered",
    "Levels",
    "Parameters",
    "Published",
    "Report",
    "fitted",
    "gather",
    "levels_of",
    "make_plan",
    "read_published",
    "write_report",
]
