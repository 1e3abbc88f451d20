"""However a run ends, `result.json` says so, and what was saved goes on to the same end."""

import contextlib
import io
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from kdrun.benchmarking import run as benchmark
from kdrun.cli.main import run
from kdrun.engine import loop
from kdrun.ui import console
from tests.reliability import forks
from tests.reliability.outcome import outcome
from tests.support import results

TINY = [
    "dataset=synthetic",
    "dataset.train_size=48",
    "dataset.test_size=24",
    "dataset.image_size=8",
    "dataset.num_classes=3",
    "teacher=cnn_tiny",
    "student=cnn_tiny",
    "batch_size=16",
    "teacher.schedule.batch_size=16",
    "epochs=2",
    "teacher.schedule.epochs=1",
    "threads=1",
    "device=cpu",
]
PACKAGE = str(Path(console.__file__).parents[1])


def kdrun(*words: str) -> int:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return run(list(words))


def statuses(folder: Path) -> list[str]:
    found = sorted(folder.glob("outputs/**/result.json"))
    return [json.loads(path.read_text())["status"] for path in found]


class Pipe(io.StringIO):
    """A standard output whose reader leaves after a number of lines."""

    def __init__(self, lines: int) -> None:
        super().__init__()
        self.lines = lines

    def write(self, text: str) -> int:
        if self.getvalue().count("\n") >= self.lines:
            raise BrokenPipeError(32, "Broken pipe")
        return super().write(text)


@pytest.fixture
def fresh_screen() -> Iterator[None]:
    """The console is made anew before and after: once lost it stays so."""
    console.console.cache_clear()
    yield
    console.console.cache_clear()


@pytest.mark.usefixtures("fresh_screen")
@pytest.mark.parametrize("lines", [3, 9, 14])
def test_a_closed_pipe_interrupts_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: int
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("kdrun.ui.reporter.SLOW_EPOCH_SECONDS", 0.0)  # a line for every epoch
    errors = io.StringIO()
    with contextlib.redirect_stdout(Pipe(lines)), contextlib.redirect_stderr(errors):
        code = run(["distill", *TINY, "alone=false", "ui=plain"])
    assert code == 130, errors.getvalue()
    (result,) = results(tmp_path)
    assert result["status"] == "interrupted"
    assert "standard output was closed" in result["error"]
    assert f"kdrun resume {result['folder'].relative_to(tmp_path)}" in errors.getvalue()
    assert "Traceback" not in errors.getvalue()
    console.console.cache_clear()
    assert kdrun("resume", str(result["folder"])) == 0
    whole = tmp_path / "whole"
    whole.mkdir()
    monkeypatch.chdir(whole)
    assert kdrun("distill", *TINY, "alone=false", "ui=plain") == 0
    assert outcome(whole).differences(outcome(tmp_path)) == []


@pytest.mark.usefixtures("fresh_screen")
def test_a_pipe_that_closes_under_the_result_leaves_a_complete_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    heading = "Result"
    monkeypatch.setattr(
        Pipe, "write", lambda self, text: fail() if heading in text else len(text), raising=True
    )

    def fail() -> int:
        raise BrokenPipeError(32, "Broken pipe")

    with contextlib.redirect_stdout(Pipe(0)):
        assert run(["distill", *TINY, "alone=false", "ui=plain"]) == 0
    (result,) = results(tmp_path)
    assert result["status"] == "completed"
    assert (result["folder"] / "SHA256SUMS").exists()


@pytest.mark.usefixtures("fresh_screen")
def test_a_sweep_stops_when_its_pipe_closes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    errors = io.StringIO()
    with contextlib.redirect_stdout(Pipe(6)), contextlib.redirect_stderr(errors):
        code = run(["distill", "-m", *TINY, "alone=false", "ui=plain", "T=1,4"])
    assert code == 130
    assert statuses(tmp_path) == ["interrupted"]
    assert "kdrun resume" in errors.getvalue()
    assert "Traceback" not in errors.getvalue()


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_every_signal_saves_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    step = loop._Fit._step
    calls = [0]

    def hit(self: Any, batch: Any) -> Any:
        calls[0] += 1
        if calls[0] == 5:  # in the student's first epoch
            os.kill(os.getpid(), getattr(signal, name))
        return step(self, batch)

    monkeypatch.setattr(loop._Fit, "_step", hit)
    assert run(["distill", *TINY, "alone=false", "ui=plain"]) == 130
    (result,) = results(tmp_path)
    assert result["status"] == "interrupted"
    assert name in result["error"]
    assert "kdrun resume" in capsys.readouterr().out


def test_a_verb_without_states_is_typed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    endings: Iterator[BaseException] = iter([KeyboardInterrupt(), OSError(28, "Full", "there")])

    def ended(*rest: Any) -> None:
        raise next(endings)

    monkeypatch.setattr(benchmark, "_measure", ended)
    words = ["benchmark", *TINY, "rounds=1", "steps=1", "ui=plain"]
    assert run(words) == 130
    assert "Interrupted: type the command again." in capsys.readouterr().out
    assert run(words) == 1
    said = capsys.readouterr()
    assert "free some space" in said.err
    assert "kdrun resume" not in said.out + said.err
    assert statuses(tmp_path) == ["interrupted", "failed"]


def test_nohup_keeps_a_run_alive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    step = loop._Fit._step

    def hit(self: Any, batch: Any) -> Any:
        os.kill(os.getpid(), signal.SIGHUP)
        return step(self, batch)

    monkeypatch.setattr(loop._Fit, "_step", hit)
    try:
        assert kdrun("distill", *TINY, "alone=false", "ui=quiet") == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_real_pipe(tmp_path: Path) -> None:
    """The process as a shell starts it: exit code, no traceback."""
    command = [sys.executable, "-m", "kdrun", "distill", *TINY, "epochs=4000", "alone=false"]
    command.remove("epochs=2")
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()  # as `head -1` does
    said = process.stderr.read()
    assert process.wait(300) == 130, said
    assert "Traceback" not in said
    assert statuses(tmp_path) == ["interrupted"]


def test_a_real_hangup(tmp_path: Path) -> None:
    """A closed terminal signals the whole process group."""
    marker = tmp_path / "training"
    waiting = partial(forks.wait_at_step, 2, 2, marker)
    child = forks.start(tmp_path, ["distill", *TINY, "alone=false"], fault=waiting)
    forks.until(marker.exists, child)
    child.signal(signal.SIGHUP)
    marker.unlink()
    assert child.wait() == 130, child.output
    assert "Traceback" not in child.output
    assert statuses(tmp_path) == ["interrupted"]


ERRORS: list[Callable[[], BaseException]] = [
    lambda: KeyboardInterrupt(),
    lambda: SystemExit(3),
    lambda: MemoryError(),
    lambda: OSError(5, "Input/output error"),
    lambda: RuntimeError("something broke"),
    lambda: GeneratorExit(),
]


class Injector:
    """Raises an exception in the n-th call of a function of kdrun, counted from a run's start."""

    def __init__(self, number: int | None, error: BaseException | None) -> None:
        self.number, self.error, self.calls, self.where = number, error, 0, ""

    def __enter__(self) -> "Injector":
        sys.setprofile(self._called)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _called(self, frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event != "call" or not code.co_filename.startswith(PACKAGE):
            return
        if not self.calls and code.co_qualname != "recording":
            return
        self.calls += 1
        if self.calls == self.number:
            self.where = f"{Path(code.co_filename).name}:{code.co_qualname}"
            assert self.error is not None
            raise self.error


def inject(number: int | None, error: BaseException | None, words: list[str]) -> Injector:
    with Injector(number, error) as injected, contextlib.suppress(BaseException):
        kdrun(*words)
    return injected


def wrong_endings(tmp_path: Path, verb: str, trials: int, seed: int) -> list[str]:
    """Runs of a verb, each with an exception somewhere: those that leave `running` behind."""
    words = [verb, *TINY, "ui=quiet", *(["alone=false"] if verb == "distill" else [])]
    if verb == "train-teacher":
        words = [word for word in words if not word.startswith(("student", "epochs", "batch_size"))]
    words = [word.replace("train_size=48", "train_size=32") for word in words]
    whole = inject(None, None, [*words, "output_root=whole"]).calls
    assert whole > 500
    draw = random.Random(seed)
    wrong = []
    for trial in range(trials):
        number = draw.randrange(1, whole)
        root = tmp_path / f"trial{trial}"
        error = ERRORS[trial % len(ERRORS)]()
        injected = inject(number, error, [*words, f"output_root={root}"])
        for path in root.glob("**/result.json"):
            if json.loads(path.read_text())["status"] == "running":
                wrong.append(f"{error!r} in call {number}, {injected.where}: {path}")
    return wrong


def test_no_exception_anywhere_leaves_running_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert wrong_endings(tmp_path, "distill", 6, 0) == []


@pytest.mark.heavy
@pytest.mark.parametrize("verb", ["distill", "train-teacher"])
def test_no_exception_anywhere_leaves_running_behind_at_length(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert wrong_endings(tmp_path, verb, 60, 1) == []


REFUSED = {
    "alpha without a soft loss": ["distill", "loss=sp", "alpha=0.5"],
    "a checkpoint that does not fit": ["distill", "teacher.checkpoint=other.safetensors"],
    "wrong taps": ["distill", "loss=sp", "loss.sp.taps=[nosuch]"],
    "data that are not there": ["distill", "dataset=imagefolder", "dataset.root=nowhere"],
    "an objective in a sweep": ["distill", "-m", "loss=sp", "alpha=0.5,0.9"],
    "a teacher's checkpoint": ["train-teacher", "teacher.checkpoint=other.safetensors"],
    "a teacher's data": ["train-teacher", "dataset=imagefolder", "dataset.root=nowhere"],
    "no such data to evaluate on": ["evaluate", "run=run", "dataset=imagefolder",
                                    "dataset.root=nowhere"],
    "data of other classes": ["evaluate", "run=run", "dataset=digits"],
    "data of other classes to export": ["export", "run=run", "dataset=digits"],
    "a benchmark's taps": ["benchmark", "loss=sp", "loss.sp.taps=[nosuch]"],
}  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run, `run`, and weights that fit no network, `other.safetensors`."""
    folder = tmp_path_factory.mktemp("finished")
    with contextlib.chdir(folder):
        assert kdrun("distill", *TINY, "alone=false", "output_root=made") == 0
        (made,) = Path("made/distill").glob("*/*/*/")
        made.rename("run")
        save_file({"x.weight": torch.zeros(2, 3)}, "other.safetensors")
    return folder


@pytest.mark.parametrize("what", REFUSED)
def test_a_refused_command_leaves_no_folder(
    finished: Path, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    verb, *words = REFUSED[what]
    data = "imagefolder" in " ".join(words)
    mine = [word for word in TINY if not (data and word.startswith("dataset"))]
    if verb == "train-teacher":
        mine = [word for word in mine if not word.startswith(("student", "epochs", "batch_size"))]
    if verb in ("evaluate", "export"):
        mine = ["threads=1"]
    with contextlib.chdir(finished):
        assert run([verb, *mine, *words]) == 2
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        left = [path for path in Path("outputs").rglob("*") if "cache" not in path.parts]
        assert left == []
        assert not Path("run/export").exists()
