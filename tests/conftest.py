"""How the tests report: the slow ones by name, so that a chapter that grew slow is seen."""

from __future__ import annotations

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    passed = terminalreporter.stats.get("passed", [])
    timed = [(report.nodeid, value) for report in passed for key, value in report.user_properties if key == "seconds"]
    if timed:
        terminalreporter.section("seconds to run a chapter as a reader does")
        for name, seconds in timed:
            terminalreporter.write_line(f"{seconds:6.1f}  {name}")
