"""Where the full data sets are; and the slow tests by name in the report, so that a chapter that grew slow is seen."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

SHARED_DATA = Path(__file__).parents[1].parent / "shared" / "data"


@pytest.fixture(scope="session")
def session_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def shared_data(monkeypatch: pytest.MonkeyPatch, session_cache: Path) -> Path:
    """The full sets: where REPDYN_DATA says, else beside the project. A cache of the tests' own, no download."""

    def no_network(*_: object, **__: object) -> str:
        raise OSError("the tests do not download")

    monkeypatch.setattr("pooch.retrieve", no_network)
    folder = Path(os.environ.get("REPDYN_DATA", SHARED_DATA))
    if folder.is_dir():
        monkeypatch.setenv("REPDYN_DATA", str(folder))
        monkeypatch.setattr("pooch.os_cache", lambda name: session_cache / name)
    return folder


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    passed = terminalreporter.stats.get("passed", [])
    timed = [(report.nodeid, value) for report in passed for key, value in report.user_properties if key == "seconds"]
    if timed:
        terminalreporter.section("seconds to run a chapter as a reader does")
        for name, seconds in timed:
            terminalreporter.write_line(f"{seconds:6.1f}  {name}")
