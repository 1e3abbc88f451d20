"""docs/reports.md says what is so: its commands run, its YAML is read."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from kdrun.cli import verbs
from kdrun.cli.main import run
from kdrun.report.published import read_published

Make = Callable[..., Path]
TEXT = (Path(__file__).resolve().parents[2] / "docs" / "reports.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, flags=re.DOTALL | re.MULTILINE)


COMMANDS = [
    shlex.split(re.split(r"\s{3,}| (?=pictures=)", line)[0])[1:]
    for block in blocks("text")
    for line in block.splitlines()
    if line.startswith(("kdrun report", "kdrun compare"))
]


@pytest.mark.parametrize("argv", COMMANDS, ids=" ".join)
def test_each_command_runs(
    argv: list[str], make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    one, two = make(), make(T=2.0)
    (tmp_path / "outputs/distill/digits").mkdir()
    one.rename(tmp_path / "outputs/distill/digits/one")
    (tmp_path / "outputs/sweeps").mkdir()
    two.rename(tmp_path / "outputs/sweeps/...")
    for name in ("A", "B"):
        make().rename(tmp_path / name)
    (tmp_path / "my_configs/published").mkdir(parents=True)
    (yaml,) = blocks("yaml")
    (tmp_path / "my_configs/published/lab.yaml").write_text(yaml)
    assert run(argv) == 0


def test_the_published_figures_are_read(tmp_path: Path) -> None:
    (tmp_path / "published").mkdir()
    (yaml,) = blocks("yaml")
    (tmp_path / "published" / "lab.yaml").write_text(yaml)
    mine = [figure for figure in read_published(tmp_path) if "notebook" in figure.source]
    assert [figure.shown for figure in mine] == ["95.10 %", "96.20 %", "91.00 %"]


def test_every_command_names_a_verb() -> None:
    assert {argv[0] for argv in COMMANDS} <= set(verbs.names())
    assert len(COMMANDS) >= 7
