"""What the doctor found: one line per check, with what to do about it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Status = Literal["pass", "warn", "fail"]
Patient = Literal["policy", "prm"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report.

    Args:
        server: whom it is about.
        check: what was looked at.
        status: "pass"; "warn": it works, but something is lost; "fail": a search would not work, or mislead.
        found: what was seen, in one sentence.
        advice: what to do about it; empty where there is nothing to do.
    """

    server: Patient
    check: str
    status: Status
    found: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """All findings, in the order of the checks."""

    findings: tuple[Finding, ...]

    @property
    def healthy(self) -> bool:
        """Nothing failed; there may be warnings."""
        return not any(finding.status == "fail" for finding in self.findings)

    def count(self, status: Status) -> int:
        """How many findings have this status."""
        return sum(finding.status == status for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """The report as data."""
        return {"healthy": self.healthy, "findings": [asdict(finding) for finding in self.findings]}
