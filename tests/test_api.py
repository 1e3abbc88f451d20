"""The public Python API: its names, and runs from Python."""

import importlib
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from support import SMALL

import kdrun
from kdrun import losses
from kdrun.errors import ConfigError

QUICK = [*SMALL, "schedule.steps=2", "teacher.schedule.steps=2", "alone=false"]


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


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
    folder = Path(result.extra["folder"])
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


def test_a_sweep_from_python() -> None:
    results = kdrun.sweep(*QUICK, T=[1, 4])
    assert [result.T for result in results] == [1, 4]
    assert len({result.extra["folder"] for result in results}) == 2


def test_mistakes_are_raised_and_leave_nothing() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'digits'"):
        kdrun.distill("dataset=digitz")
    with pytest.raises(ConfigError):
        kdrun.distill(loss=["kdd"])
    assert not Path("outputs").exists()
    with pytest.raises(AttributeError):
        importlib.import_module("kdrun").nothing  # noqa: B018
