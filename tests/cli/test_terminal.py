"""Terminals without some characters, closed or full output, odd folders, and single mistakes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kdrun.cli import output
from kdrun.cli.main import run
from kdrun.commands import new
from kdrun.errors import ConfigError


def kdrun(words: str, redirect: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """The command in a shell, so that streams can be closed as a user closes them."""
    return subprocess.run(
        ["sh", "-c", f"exec {sys.executable} -m kdrun {words} {redirect}"],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, **environment},
    )


def test_an_ascii_terminal_gets_escapes() -> None:
    done = kdrun("show loss/kd", PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert r"T\xb2" in done.stdout


@pytest.mark.parametrize("redirect", [">&-", "<&- >&-", ">&- 2>&-"])
def test_closed_streams_are_no_error(redirect: str) -> None:
    done = kdrun("ls loss", redirect)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("words", ["ls loss", "distill --cfg job"])
def test_a_full_standard_output_is_blamed(words: str) -> None:
    done = kdrun(words, ">/dev/full")
    assert done.returncode == 1
    assert done.stderr == ("error: Standard output cannot be written: No space left on device.\n")


@pytest.mark.parametrize("words", ["show loss/kd", "report x", "doctor", "distill", "new loss a"])
def test_a_deleted_folder_is_named(
    words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    try:
        assert run(words.split()) == 2
        assert "current folder does not exist any more" in capsys.readouterr().err
        assert run(["--help"]) == 0
    finally:
        os.chdir(tmp_path)


def test_a_folder_called_like_an_interpolation(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = tmp_path / "${x}"
    odd.mkdir()
    monkeypatch.chdir(odd)
    for words in (["distill", "--cfg", "job"], ["distill", "-m", "T=1,2"], ["search", "T=1,2"]):
        assert run(words) == 2
        assert "has ${ in its name" in capsys.readouterr().err
    assert run(["ls", "loss"]) == 0
    assert not list(odd.iterdir())


@pytest.mark.parametrize("name", ["null", "true", "no", "on", "off", "yes", "nan", "inf"])
def test_new_refuses_names_that_yaml_reads_otherwise(name: str) -> None:
    with pytest.raises(ConfigError, match=f"my_{name}"):
        new.check_name("loss", "loss", name)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["distill", "+foo=${nope}", "--cfg", "job", "--resolve"], "'nope' not found"),
        (["train-teacher", "++foo=online", "-m", "--cfg", "job"], "leave out one of them"),
        (["distill", "loss=[kd,kd]"], "names kd twice"),
        (["distill", "-m", "T=range(1,1000000000)"], "999,999,999 jobs"),
        (["distill", "-m", "T=range(1,1000000000)", "--cfg", "job"], "999,999,999 jobs"),
        (["distill", "T=range(1,1000000000)"], "999,999,999 jobs"),
        (["distill", "-m", "T=range(1,102)", "seed=range(0,100)"], "10,100 jobs (101 x 100)"),
        (["distill", "-m", "T=range(0,1,0)"], "has no end"),
        (["search", "T=range(0,1,1e-9)"], "1,000,000,000 jobs"),
        (["search", "T=1,2", "search.trials=10001"], "search.trials=10001 must be at most 10,000"),
        (["distill", "schedule.betas=[0.5,0.9]"], "optimizer=adam or adamw or lamb reads it"),
        (
            ["distill", "schedule.optimizer=adam", "schedule.momentum=0.5"],
            "sgd or dot or deepkd",
        ),
        (["distill", "teacher.schedule.gamma=0.5"], "teacher.schedule.curve=step reads it"),
        (["distill", "-m", "schedule.curve=cosine,linear", "schedule.gamma=0.5"], "curve=step"),
        (["evaluate", "run="], "run= is empty"),
    ],
)
def test_mistakes_end_in_a_sentence(
    words: list[str], text: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert run(words) == 2
    printed = capsys.readouterr()
    assert text in printed.err
    assert printed.err.count("\n") == 1
    assert printed.out == ""
    assert not list(tmp_path.iterdir())


def test_a_named_sweep_is_counted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "my" / "sweep"
    folder.mkdir(parents=True)
    (folder / "huge.yaml").write_text(
        "# @package _global_\nhydra:\n  mode: MULTIRUN\n  sweeper:\n"
        "    params:\n      T: range(0,9,1e-9)\n"
    )
    for more in ([], ["--cfg", "job"], ["-m"]):
        assert run(["distill", "--config-dir", "my", "sweep=huge", *more]) == 2
        assert "9,000,000,000 jobs" in capsys.readouterr().err


def test_long_work_is_reported_on_standard_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(output.time, "monotonic", lambda: now[0])
    progress = output.Progress("checking jobs", 100)
    for done, seconds in ((1, 0.5), (2, 1.5), (3, 2.0), (50, 7.0), (100, 60.0)):
        now[0] = seconds
        progress.show(done)
    printed = capsys.readouterr()
    assert printed.err == "checking jobs: 0 of 100\nchecking jobs: 50 of 100\n"
    assert printed.out == ""
