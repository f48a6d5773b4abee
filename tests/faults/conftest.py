"""Counts what the fault tests tried and what held, and prints it as a table."""

from collections import Counter

import pytest


@pytest.fixture
def tally(request):
    """tally(fault, promise) before a trial; what it returns is called once the promise was seen to hold."""
    seen = request.node.user_properties  # part of the test's report, so it comes back from a worker of pytest-xdist

    def begin(fault, promise):
        seen.append(("tried", [fault, promise]))
        return lambda: seen.append(("held", [fault, promise]))

    return begin


def pytest_terminal_summary(terminalreporter):
    reports = [report for outcome in ("passed", "failed", "skipped") for report in terminalreporter.stats.get(outcome, [])]
    seen = Counter((word, *fault) for report in reports if report.when == "call" for word, fault in report.user_properties)
    faults = sorted({(fault, promise) for _, fault, promise in seen})
    if not faults:
        return
    rows = [("fault", "what is promised", "tried", "held")]
    rows += [(*pair, str(seen["tried", *pair]), str(seen["held", *pair])) for pair in faults]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    terminalreporter.section("faults")
    for row in rows:
        terminalreporter.line("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
