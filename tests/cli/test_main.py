"""Verbs, help, exit codes, and that starting is quick and free of torch."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import in_kdrun

from kdrun import __version__
from kdrun.cli import help, verbs
from kdrun.cli.main import main, run
from kdrun.errors import DataError, Interrupted, TrainingError

Typed = Callable[..., str]


def subprocess_run(*words: str, **kwargs: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "kdrun", *words], capture_output=True, text=True, **kwargs
    )


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["help"]])
def test_front_page_names_every_verb(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(words) == 0
    page = capsys.readouterr().out
    assert all(f"  {name} " in page for name in verbs.names())
    assert page.count("\n  kdrun ") == 8


def test_examples_of_the_front_page_are_valid(
    stages: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    import shlex

    run([])
    page = capsys.readouterr().out
    assert all(line in page for line, _ in help.EXAMPLES)
    for line, _ in help.EXAMPLES:
        words = shlex.split(line)
        if words[1] != "doctor":
            assert run(words[1:]) == 0, line


@pytest.mark.parametrize("verb", [name for name in verbs.names() if name != "doctor"])
def test_every_verb_has_a_page(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([verb, "--help"]) == 0
    first = capsys.readouterr().out
    assert f"kdrun {verb}" in first
    assert run(["help", verb]) == 0
    assert capsys.readouterr().out == first


def test_page_of_a_hydra_verb(capsys: pytest.CaptureFixture[str], my_configs: Path) -> None:
    run(["distill", "--help", "--config-dir", str(my_configs)])
    page = capsys.readouterr().out
    assert page.count("\n  kdrun distill") == 3
    assert "loss=[kd]" in page
    assert "schedule@teacher.schedule=" in page
    assert "mine" in page
    assert "T=null" in page
    assert "softmax temperature" in page


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"kdrun {__version__}\n"


def test_main_exits_with_the_code() -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["distil"], "Did you mean 'distill'?"),
        (["train_teacher"], "Did you mean 'train-teacher'?"),
        (["quxx"], "The verbs are train-teacher, distill"),
        (["student=resnet8"], "put distill (or another verb) first: kdrun distill student=resnet8"),
        (["-m", "T=1,4"], "kdrun distill -m T=1,4"),
        (["--cfg", "job"], "Put a verb first"),
        (["help", "distil"], "Did you mean 'distill'?"),
    ],
)
def test_wrong_verb(refused: Typed, words: list[str], said: str) -> None:
    assert said in refused(*words)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (DataError("The data are not there."), 2),
        (TrainingError("The loss is not finite."), 1),
        (Interrupted(), 130),
        (KeyboardInterrupt(), 130),
    ],
)
def test_exit_code_of_a_failed_run(
    stages: Any, capsys: pytest.CaptureFixture[str], error: BaseException, code: int
) -> None:
    def fail(config: Any) -> None:
        raise error

    stages.react = fail
    assert run(["distill"]) == code
    said = capsys.readouterr().err
    assert said == (f"error: {error}\n" if str(error) else "")


def test_bug_shows_its_traceback(stages: Any, capsys: pytest.CaptureFixture[str]) -> None:
    stages.react = in_kdrun("1 / 0")
    assert run(["distill"]) == 1
    said = capsys.readouterr().err
    assert "Traceback" in said
    assert "ZeroDivisionError: division by zero" in said
    assert "bug in kdrun" in said.splitlines()[-1]


def test_module_runs_and_returns_its_code(tmp_path: Path) -> None:
    ended = subprocess_run("distill", "stduent=cnn_tiny", cwd=tmp_path)
    assert ended.returncode == 2
    assert "Did you mean student=cnn_tiny?" in ended.stderr
    assert list(tmp_path.iterdir()) == []


def test_closed_pipe_is_quiet(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    process = subprocess.Popen(
        [sys.executable, "-m", "kdrun", "ls", "loss"],
        stdout=write,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
    )
    os.close(write)
    _, said = process.communicate(timeout=300)
    assert said == b""
    assert process.returncode == 0


LISTING = """
import json, sys
from kdrun.cli.main import run
code = run({words!r})
heavy = [m for m in ("torch", "torchvision", "numpy", "hydra", "sklearn") if m in sys.modules]
sys.stderr.write(json.dumps([code, heavy]))
"""


@pytest.mark.parametrize(
    "words",
    [["--help"], ["ls"], ["ls", "loss"], ["ls", "runs"], ["show", "loss/kd"], ["--complete"]],
)
def test_looking_around_imports_nothing_heavy(words: list[str], tmp_path: Path) -> None:
    script = LISTING.format(words=words)
    ended = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "COMP_LINE": "kdrun distill loss."},
        check=True,
    )
    assert json.loads(ended.stderr) == [0, []]
    assert ended.stdout


def test_mistakes_are_answered_without_torch(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", LISTING.format(words=["distill", "T=0"])],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=True,
    )
    code, heavy = json.loads(ended.stderr.splitlines()[-1])
    assert code == 2
    assert "torch" not in heavy


@pytest.mark.heavy  # a time: for a quiet machine
def test_help_is_quick() -> None:
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        subprocess_run("--help", check=True)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.3
