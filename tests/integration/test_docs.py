"""Every shell command of these pages is run, top to bottom, in one folder for each page.

A ```bash block holds commands; a ```python block that opens with `# name.py`, and a ```yaml block
that opens with `# folder/name.yaml`, is written to that file first. `kdrun` and scripts run in this
process, with an epoch for every training. A line that ends in `# exit code N` must end so.
"""

import os
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import writing_once

from kdrun.cli.main import run
from kdrun.deploy import export_timing, formats
from tests.reliability import forks

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = ["deploy.md", "extending.md", "troubleshooting.md"]
BLOCK = re.compile(r"^```(bash|python|yaml)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SMALL = {
    "distill": ["epochs=1", "teacher.schedule.epochs=1", "alone=false", "ui=quiet", "threads=1"],
    "train-teacher": ["epochs=1", "ui=quiet", "threads=1"],
    "export": ["ui=quiet", "threads=1"],
    "evaluate": ["ui=quiet", "threads=1"],
}


class Page:
    """One page's commands in a folder; shell variables last from block to block."""

    def __init__(self, text: str, folder: Path) -> None:
        self.text = text
        self.folder = folder
        self.variables: dict[str, str] = {}

    def run(self) -> int:
        """All blocks in order; returns how many commands there were."""
        commands = 0
        for language, content in BLOCK.findall(self.text):
            if language == "bash":
                for line in lines(content):
                    self._command(line)
                    commands += 1
            else:
                named = re.match(r"# (\S+\.(?:py|yaml))\n", content)
                if named:
                    path = self.folder / named.group(1)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_text(content)
        return commands

    def _command(self, line: str) -> None:
        line, _, code = line.partition("# exit code ")
        expected = int(code or 0)
        assignment = re.fullmatch(r"(\w+)=(.*)", line.strip())
        if assignment:
            name, value = assignment.groups()
            self.variables[name] = self._shell(f"printf %s {value}").stdout.strip()
            assert self.variables[name], f"{line}: empty"
        elif line.startswith("kdrun "):
            words = self._words(line.removeprefix("kdrun "))
            if "-c" not in words and "--cfg" not in words:
                words += SMALL.get(words[0], [])
            assert run(words) == expected, shlex.join(["kdrun", *words])
        elif line.startswith("python -m pytest "):
            code, said = forks.run_pytest(self.folder, *shlex.split(line)[3:])
            assert code == expected, f"{line}\n{said}"
        elif line.startswith("python "):
            self._script(*self._words(line.removeprefix("python ")))
        else:
            done = self._shell(line)
            assert done.returncode == expected, f"{line}\n{done.stdout}\n{done.stderr}"

    def _words(self, line: str) -> list[str]:
        """The words of a line as the shell expands them."""
        return self._shell(f"printf '%s\\0' {line}").stdout.split("\0")[:-1]

    def _script(self, name: str, *args: str) -> None:
        """`python name args...` in this process."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", [name, *args])
            runpy.run_path(str(self.folder / name), run_name="__main__")

    def _shell(self, line: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            ["bash", "-c", line],
            cwd=self.folder,
            env={**os.environ, **self.variables},
            capture_output=True,
            text=True,
            check=False,
        )


def lines(block: str) -> Iterator[str]:
    """Commands of a block, those over several lines joined."""
    for line in block.replace("\\\n", " ").splitlines():
        if line.strip() and not line.startswith("#"):
            yield line


@pytest.mark.heavy
@pytest.mark.parametrize("name", PAGES)
def test_every_command_of_the_page_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (DOCS / name).read_text()
    if "format=onnx" in text:
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(export_timing, "SECONDS_PER_CELL", 0.0)
    monkeypatch.setattr(formats, "write_onnx", writing_once(formats.write_onnx))
    assert Page(text, tmp_path).run() >= 5


def test_there_is_no_other_kind_of_block() -> None:
    """A block that nothing runs is plain text."""
    for name in PAGES:
        languages = set(re.findall(r"^```(\w+)$", (DOCS / name).read_text(), re.MULTILINE))
        assert languages <= {"bash", "python", "yaml", "text"}, name


def test_the_lines_of_a_block() -> None:
    block = "# a comment\nkdrun ls \\\n  loss\n\nls\n"
    assert [line.split() for line in lines(block)] == [["kdrun", "ls", "loss"], ["ls"]]
