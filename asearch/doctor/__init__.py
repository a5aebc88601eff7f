"""Finds out what is wrong with a policy and a verifier before a search is spent on them.

`diagnose` asks both servers a few dozen small questions and makes a `Report` of what it saw: one `Finding` per check,
with what to do about it.
"""

from asearch.doctor.examination import diagnose
from asearch.doctor.report import Finding, Report

__all__ = ["Finding", "Report", "diagnose"]
