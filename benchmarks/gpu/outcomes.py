"""A pytest plugin: appends the outcome of each test to a file, so that a killed run keeps them."""

import json
from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--outcomes FILE`: a line of JSON when a test begins and when it ends."""
    parser.addoption("--outcomes", type=Path, required=True)


def pytest_configure(config: pytest.Config) -> None:
    """Listen to the tests of this run."""
    config.pluginmanager.register(Outcomes(config.getoption("--outcomes")))


class Outcomes:
    """Writes lines to `file`; the last line about a test counts."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """A test begins."""
        self._add(nodeid, "did not end", 0.0)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A test ended, or its fixtures failed or skipped it."""
        if report.when == "call" or not report.passed:
            self._add(report.nodeid, report.outcome, report.duration)

    def _add(self, nodeid: str, outcome: str, seconds: float) -> None:
        line = {"test": nodeid.split("::")[-1], "outcome": outcome, "seconds": round(seconds, 1)}
        with self.file.open("a") as lines:
            lines.write(json.dumps(line) + "\n")
