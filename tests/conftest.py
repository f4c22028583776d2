"""Where the full data sets are; what several processes share out among them; how the chapters ran."""

from __future__ import annotations

import os
import re
import textwrap
from pathlib import Path
from typing import Any

import pytest
from project import chapters, longest_first

RECORDS = "test_the_shipped_records_agree"  # a parametrised test, each of whose records may take half a minute
# Files that take longest, as measured: after the chapters, which take longer, and before everything else.
SLOW_FILES = ["test_memorisation_curves", "test_processes", "test_training", "test_curves", "test_cli"]
SLOW_FILES = ["tests/book/test_build.py", *(f"tests/unit/{name}.py" for name in SLOW_FILES)]
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


def unit_of_work(nodeid: str) -> str:
    """What one process does: a chapter, a record, or a file whose tests share what took long to make."""
    file, _, name = nodeid.partition("::")
    chapter = re.search(r"\[\w+:[\w-]+\]$", name) if file.endswith("/test_chapters.py") else None
    return f"{file}{chapter[0]}" if chapter else nodeid if name.startswith(RECORDS) else file


def place_in_queue(nodeid: str) -> tuple[int, int]:
    """Longest first, so that processes side by side end together."""
    unit = unit_of_work(nodeid)
    if chapter := re.search(r"\[reader:([\w-]+)\]$", unit):
        return 0, [path.stem for path in longest_first(chapters())].index(chapter[1])
    if unit in SLOW_FILES:
        return 1, SLOW_FILES.index(unit)
    return (2, 0) if unit == nodeid else (3, 0)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):  # one of several processes; alone, the order of the files is the friendlier one
        items.sort(key=lambda item: place_in_queue(item.nodeid))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from xdist.scheduler import LoadScopeScheduling

    class ByChapterOrFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return unit_of_work(nodeid)

    config.option.loadscopereorder = False
    return ByChapterOrFile(config, log)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How each chapter ran, and how long it took, so that one that grew slow is seen."""
    reports = [report for outcome in ("passed", "failed") for report in terminalreporter.stats.get(outcome, [])]
    ran = [value for report in reports for key, value in report.user_properties if key == "chapter"]
    ways = {way: [(seconds, stem) for seconds, stem, each in ran if each == way] for *_, way in ran}
    for way, times in ways.items():
        terminalreporter.section(f"{len(times)} chapters: {way}, seconds")
        each = [f"{stem} {seconds:.0f}" for seconds, stem in sorted(times, reverse=True)]
        terminalreporter.write_line(textwrap.fill(", ".join(each), 120, break_on_hyphens=False))
