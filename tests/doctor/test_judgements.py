"""What the doctor makes of what it sees, without servers."""

from datetime import date

import pytest

from asearch.doctor.judgements import dates_in, judge_burst, judge_cache, judge_context
from asearch.doctor.report import Finding, Report

DAY = date(2026, 3, 9)


@pytest.mark.parametrize(
    "text",
    ["Today Date: 09 Mar 2026", "2026-03-09", "on March 9, 2026", "9th March 2026", "Mar 9 2026", "2026/3/9"],
)
def test_dates_are_read_however_they_are_written(text):
    assert dates_in(text) == [DAY]


@pytest.mark.parametrize("text", ["December 2023", "12 - 3 \\cdot 2026", "99 Mar 2026", "step 3 of 2026", "2026-13-40"])
def test_what_is_no_date(text):
    assert dates_in(text) == []


@pytest.mark.parametrize(
    ("server", "alone", "at_once", "refused", "status"),
    [
        ("policy", (32, 1.0), (512, 2.0), 0, "pass"),
        ("policy", (32, 1.0), (512, 16.0), 0, "warn"),  # one after another
        ("prm", (4, 1.0), (64, 16.0), 0, "pass"),  # reading is arithmetic
        ("prm", (4, 1.0), (64, 1.0), 3, "warn"),
    ],
)
def test_bursts(server, alone, at_once, refused, status):
    assert judge_burst(server, "tokens", 16, alone, at_once, refused).status == status


def test_a_cache_that_nobody_tells_of_is_not_judged():
    assert judge_cache("policy", 100, None) is None


@pytest.mark.parametrize(
    ("length", "short", "status"), [(4096, False, "pass"), (2048, False, "warn"), (512, True, "pass")]
)
def test_contexts(length, short, status):
    assert judge_context("m", length, 200, short=short).status == status


def test_a_report_is_data_and_fails_with_its_worst_finding():
    warned = Report((Finding("prm", "family", "warn", "hm", "do this"),))
    failed = Report((*warned.findings, Finding("policy", "seeds", "fail", "no")))
    assert (warned.healthy, failed.healthy) == (True, False)
    assert failed.to_json()["findings"][0] == {
        "server": "prm",
        "check": "family",
        "status": "warn",
        "found": "hm",
        "advice": "do this",
    }
