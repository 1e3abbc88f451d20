"""The public Python API: its names, and runs from Python."""

import importlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support import SMALL

import kdrun
from kdrun import losses
from kdrun.cli import main as cli
from kdrun.engine.interrupt import StopRequest
from kdrun.engine.loop import _Fit
from kdrun.errors import ConfigError
from kdrun.runs.sweeps import SweepFolder
from kdrun.sweeps import executor
from kdrun.sweeps.launchers import Launcher
from tests.reliability import forks

QUICK = [*SMALL, "schedule.steps=2", "teacher.schedule.steps=2", "alone=false"]


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@contextmanager
def ctrl_c_at_step(training: int, step: int) -> Iterator[None]:
    """A signal to this process before a step of its n-th training."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("run", "_step"):  # restored afterwards
            patch.setattr(_Fit, name, getattr(_Fit, name))
        forks.signal_at_step(training, step, signal.SIGINT)
        yield


def test_the_public_names() -> None:
    assert set(kdrun.__all__) == {
        "DistillOutput", "Distiller", "RunResult", "__version__", "distill", "load", "report",
        "sweep", "train_teacher",
    }  # fmt: skip
    for module in (kdrun, losses):
        for name in module.__all__:
            found = getattr(module, name)
            assert name == "__version__" or callable(found), name
            assert name == "__version__" or found.__doc__, name


def test_importing_kdrun_imports_no_torch() -> None:
    code = "import sys, kdrun, kdrun.losses; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, env=dict(os.environ))


def test_a_run_from_python() -> None:
    result = kdrun.distill(*QUICK, T=4, loss=["kd", "sp"])
    folder = result.folder
    assert folder is not None
    assert result.status == "completed"
    assert result.loss == ("kd", "sp")
    assert result.T == 4
    assert result.student.test.top1 is not None
    assert (folder / "student.safetensors").is_file()
    assert result.to_dict()["student"]["test"]["top1"] == result.student.test.top1
    assert kdrun.load(folder).classes
    page: Any = kdrun.report("outputs", to="reports")
    assert (page / "report.html").is_file()
    words = [word for word in QUICK if not word.startswith(("epochs", "schedule", "alone"))]
    teacher = kdrun.train_teacher(*words)
    assert teacher.teachers[0].test.top1 is not None


def test_a_run_in_another_thread() -> None:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(kdrun.distill(*QUICK)))
    thread.start()
    thread.join()
    assert found[0].status == "completed"


def test_a_sweep_in_another_thread(tmp_path: Path) -> None:
    """Signal handlers cannot be installed there, whichever launcher runs the jobs."""
    found: list[Any] = []

    def run() -> None:
        found.extend(kdrun.sweep(*QUICK, T=[1, 4]))
        folder = SweepFolder(tmp_path / "other")
        with executor._watched(folder, Launcher("joblib", processes=2)) as stopped:
            found.append(stopped)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert [result.T for result in found[:2]] == [1, 4]
    assert found[2:] == [[]]


def test_a_time_limit_in_another_thread_leaves_the_main_thread_its_timer() -> None:
    def run() -> None:
        with StopRequest(60.0):
            pass

    before = signal.setitimer(signal.ITIMER_REAL, 3600)
    try:
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 0
    finally:
        signal.setitimer(signal.ITIMER_REAL, *before)


def test_ctrl_c_saves_a_run_from_python_that_resumes_bit_identically(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: dict[str, Any] = {"T": 4, "loss": ["kd", "sp"], "batch_size": 32, "alone": False}
    never_stopped = kdrun.distill(*SMALL, **settings)
    (tmp_path / "stopped").mkdir()
    monkeypatch.chdir(tmp_path / "stopped")
    handler = signal.getsignal(signal.SIGINT)
    with ctrl_c_at_step(2, 9), pytest.raises(KeyboardInterrupt):  # the student's second epoch
        kdrun.distill(*SMALL, **settings)
    assert signal.getsignal(signal.SIGINT) is handler
    (folder,) = Path().glob("outputs/distill/*/*/*")
    assert json.loads((folder / "result.json").read_text())["status"] == "interrupted"
    assert cli.run(["resume", str(folder)]) == 0
    weights = [
        (path / "student.safetensors").read_bytes()
        for path in (folder, tmp_path / str(never_stopped.folder))
    ]
    assert weights[0] == weights[1]


def test_ctrl_c_stops_a_sweep_from_python_that_can_be_resumed() -> None:
    with ctrl_c_at_step(2, 1), pytest.raises(KeyboardInterrupt):  # the first job's student
        kdrun.sweep(*QUICK, T=[1, 4])
    (folder,) = Path().glob("outputs/sweeps/*")
    assert len(list(Path().glob("outputs/distill/*/*/*"))) == 1
    assert cli.run(["resume", str(folder)]) == 0
    runs = list(Path().glob("outputs/distill/*/*/*/student.safetensors"))
    assert len(runs) == 2


def test_a_result_is_a_row_of_a_table() -> None:
    result = kdrun.RunResult.from_dict(
        {
            "loss": ["kd", "sp"],
            "error": None,
            "student": {"test": {"top1": 90.0}, "new": {"entry": [1, 2]}},
            "teachers": [{"name": "a", "test": {"top1": 95.0}}, {"name": "b"}],
            "peers": [],
        }
    )
    assert result.folder is None
    assert result.to_dict(flat=True) == {
        "loss": ("kd", "sp"),
        "error": None,
        "student.test.top1": 90.0,
        "student.new.entry": (1, 2),
        "teachers.0.name": "a",
        "teachers.0.test.top1": 95.0,
        "teachers.1.name": "b",
        "peers": (),
    }
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame([result.to_dict(flat=True)] * 2)
    assert table.groupby("loss")["student.test.top1"].mean().tolist() == [90.0]


def test_a_sweep_from_python() -> None:
    results = kdrun.sweep(*QUICK, T=[1, 4])
    assert [result.T for result in results] == [1, 4]
    assert len({result.folder for result in results}) == 2


def test_mistakes_are_raised_and_leave_nothing() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'digits'"):
        kdrun.distill("dataset=digitz")
    with pytest.raises(ConfigError):
        kdrun.distill(loss=["kdd"])
    assert not Path("outputs").exists()
    with pytest.raises(AttributeError):
        importlib.import_module("kdrun").nothing  # noqa: B018
