"""`kdrun new`: what it writes trains, passes its own tests and is clean; what it refuses."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from kdrun.cli.main import run
from kdrun.commands.new import class_name
from tests.reliability import forks

Typed = Callable[..., str]


@pytest.mark.heavy
def test_what_it_writes_passes_its_own_tests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In another folder, tested as the user would, each trained for an epoch.

    A loss in the current folder is tested by the commands of docs/extending.md.
    """
    monkeypatch.chdir(tmp_path)
    for words in (["model", "tensor"], ["experiment", "first"]):
        assert run(["new", *words, "--dir", "my work"]) == 0
    said = capsys.readouterr().out
    assert "cd 'my work'" in said
    assert "kdrun distill --config-dir my_configs student=tensor" in said
    folder = tmp_path / "my work"
    assert len(list(folder.rglob("*.*"))) == 3 + 2
    code, said = forks.run_pytest(folder, ".")
    assert code == 0, said
    assert "6 passed" in said


def test_what_it_writes_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for words in (["loss", "margin"], ["model", "small"]):
        assert run(["new", *words]) == 0
    words = ["--config-dir", "my_configs", "teacher=small", "student=small", "loss=[kd,margin]"]
    small = ["epochs=1", "teacher.schedule.epochs=1", "alone=false", "ui=quiet", "threads=1"]
    assert run(["distill", *words, *small]) == 0


def test_what_it_writes_is_clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ruff")
    monkeypatch.chdir(tmp_path)
    for what in ("loss", "model", "experiment"):
        assert run(["new", what, "a_rather_long_name"]) == 0
    for words in (["check", "--select", "E,F,W,I,UP,B,PT"], ["format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", words[0], "--isolated", "--line-length", "100",
             *words[1:], "."],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout


def test_nothing_is_overwritten(refused: Typed, capsys: pytest.CaptureFixture[str]) -> None:
    Path("test_loss_mine.py").write_text("my own")
    assert "test_loss_mine.py is there already" in refused("new", "loss", "mine")
    assert [path.name for path in Path().iterdir()] == ["test_loss_mine.py"]
    assert Path("test_loss_mine.py").read_text() == "my own"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["loss", "My-Loss"], "kdrun new loss my_loss"),
        (["loss", "SoftMargin"], "kdrun new loss soft_margin"),
        (["loss", "3x"], "kdrun new loss my_3x"),
        (["loss", "class"], "kdrun new loss my_class"),
        (["loss", "손실"], "kdrun new loss my_"),
        (["loss", "kd"], "loss=kd is kdrun's own"),
        (["model", "resnet8"], "student=resnet8 is kdrun's own"),
        (["experiment", "smoke"], "experiment=smoke is kdrun's own"),
        (["los", "x"], "Did you mean 'loss'?"),
        (["loss"], "takes what to make and its name"),
        (["loss", "x", "--dir"], "--dir needs a folder"),
        (["loss", "x", "--fodler"], "new has no option --fodler"),
        (["loss", "x", "--dir", "file/below"], "cannot be written"),
    ],
)
def test_a_wrong_name_is_answered(refused: Typed, words: list[str], said: str) -> None:
    Path("file").write_text("")
    assert said in refused("new", *words)


@pytest.mark.parametrize(
    ("name", "suffix", "cls"),
    [
        ("soft_margin", "Loss", "SoftMarginLoss"),
        ("term", "Loss", "TermLoss"),
        ("my_loss", "Loss", "MyLoss"),
        ("loss", "Loss", "LossLoss"),
        ("tiny_net", "Net", "TinyNet"),
        ("tensor", "Net", "TensorNet"),
    ],
)
def test_class_names_shadow_nothing(name: str, suffix: str, cls: str) -> None:
    assert class_name(name, suffix) == cls
