"""Running the tool as a user does, in a folder of its own, on data small enough for seconds."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kdrun.cli.main import run


@pytest.fixture
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def kdrun(workdir: Path) -> Callable[..., int]:
    """`kdrun VERB ...` in this process; returns the exit code."""

    def call(*argv: str) -> int:
        return run(list(argv))

    return call


@pytest.fixture
def refused(kdrun: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """`kdrun VERB ...` that must end in exit code 2; returns what standard error says."""

    def call(*argv: str) -> str:
        capsys.readouterr()
        assert kdrun(*argv) == 2
        text = capsys.readouterr().err
        assert "Traceback" not in text
        return text

    return call


@pytest.fixture
def process(workdir: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`kdrun VERB ...` as a process of its own."""

    def call(*argv: str, **settings: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "kdrun", *argv],
            capture_output=True,
            text=True,
            cwd=workdir,
            env={**os.environ, **settings},
            check=False,
        )

    return call
