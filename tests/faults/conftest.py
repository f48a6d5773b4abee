"""Counts what the fault tests tried and what held, and prints it as a table."""

from collections import defaultdict

import pytest

TALLY = pytest.StashKey[dict]()


def pytest_configure(config):
    config.stash[TALLY] = defaultdict(lambda: [0, 0])


@pytest.fixture
def tally(request):
    """tally(fault, promise) before a trial; what it returns is called once the promise was seen to hold."""
    counts = request.config.stash[TALLY]

    def begin(fault, promise):
        counts[fault, promise][0] += 1

        def held():
            counts[fault, promise][1] += 1

        return held

    return begin


def pytest_terminal_summary(terminalreporter, config):
    counts = config.stash.get(TALLY, {})
    if not counts:
        return
    rows = [("fault", "what is promised", "tried", "held")]
    rows += [(fault, promise, str(tried), str(held)) for (fault, promise), (tried, held) in sorted(counts.items())]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    terminalreporter.section("faults")
    for row in rows:
        terminalreporter.line("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
