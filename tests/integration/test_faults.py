"""Damaged files, full disks and used-up memory, as a user meets them: a sentence, nothing lost."""

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import SMALL, results, without_times

from kdrun.checksums import SUMS, seal
from kdrun.engine import loop
from kdrun.teachers.store import FILES

Run = Callable[..., int]
Refuse = Callable[..., str]
NO_MEMORY = "DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"
ALONE = [*SMALL, "alone=false"]
STUDENTS = """
import os
import time
from torch import nn
from kdrun.models.cnn import ConvNet


class Student(ConvNet):
    def __init__(self, num_classes, in_channels, image_size, fate="good"):
        super().__init__(num_classes, in_channels, widths=[4])
        self.fate = fate

    def forward(self, images):
        if self.training and self.fate == "fails":
            raise ValueError("a mistake in the network")
        if self.training and self.fate == "hangs":
            time.sleep(300)
        if self.training and self.fate == "starves":
            raise MemoryError
        if self.training and self.fate == "is_killed":
            os.kill(os.getpid(), 9)
        return super().forward(images)
"""


@pytest.fixture
def distilled(kdrun: Run, workdir: Path) -> tuple[Path, dict[str, Any], bytes]:
    """A finished run: its folder, its result, its weights."""
    assert kdrun("distill", *ALONE) == 0
    (result,) = results(workdir)
    folder = result["folder"]
    return folder, without_times(result), (folder / "student.safetensors").read_bytes()


def turn(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_a_result_that_was_damaged_is_written_anew(
    kdrun: Run,
    workdir: Path,
    distilled: tuple[Path, dict[str, Any], bytes],
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, expected, weights = distilled
    listed = {line.split("  ")[1] for line in (folder / SUMS).read_text().splitlines()}
    assert listed == {
        "config.yaml", "command.txt", "env.json", "metrics.jsonl", "metrics.csv", "result.json",
        "student.safetensors", "student.json",
    }  # fmt: skip
    for damage in ("digit", "gone"):
        path = folder / "result.json"
        if damage == "digit":
            turn(path, '"test_size": 60', '"test_size": 61')
        else:
            path.unlink()
        capsys.readouterr()
        assert kdrun("report", str(folder)) == 0
        fault = f"result.json is {'missing' if damage == 'gone' else 'damaged'}"
        assert fault in " ".join(capsys.readouterr().out.split())
        assert kdrun("resume", str(folder)) == 0
        assert fault in (folder / "run.log").read_text()
        (again,) = results(workdir)
        assert without_times(again) == expected
        assert (folder / "student.safetensors").read_bytes() == weights


def test_a_damaged_configuration_or_card_is_refused(
    refused: Refuse, kdrun: Run, distilled: tuple[Path, dict[str, Any], bytes]
) -> None:
    folder, _, _ = distilled
    turn(folder / "student.json", '"params": ', '"params": 1')
    assert "student.json is damaged" in refused("evaluate", f"run={folder}")
    turn(folder / "result.json", '"completed"', '"interrupted"')
    turn(folder / "config.yaml", "momentum: 0.9", "momentum: 0.1")
    assert "config.yaml is damaged" in refused("resume", str(folder))
    (folder / SUMS).unlink()  # the change was on purpose
    assert kdrun("resume", str(folder)) == 0
    (folder / "config.yaml").unlink()
    assert "config.yaml is missing" in refused("resume", str(folder))
    (folder / SUMS).unlink()
    assert "type its command again" in refused("resume", str(folder))


def test_a_teacher_that_does_not_reach_its_card(
    kdrun: Run,
    refused: Refuse,
    workdir: Path,
    distilled: tuple[Path, dict[str, Any], bytes],
    capsys: pytest.CaptureFixture[str],
) -> None:
    (entry,) = (path.parent for path in workdir.glob("outputs/teachers/*/*/teacher.json"))
    values = json.loads((entry / "teacher.json").read_text())
    values["extra"]["test"]["top1"] -= 2
    (entry / "teacher.json").write_text(json.dumps(values))
    assert "teacher.json is damaged" in refused("distill", *ALONE, "seed=1")
    seal(entry, FILES)  # the card was like this from the beginning
    for words in ([], [f"teacher.checkpoint={entry}"]):
        said = refused("distill", *ALONE, *words, "seed=1")
        assert "% on the test split, but its card says" in said
        assert "teacher.check_accuracy=false" in said
    spoken = [word for word in ALONE if word != "ui=quiet"]
    capsys.readouterr()
    assert kdrun("distill", *spoken, "seed=1", "ui=plain", "teacher.check_accuracy=false") == 0
    assert "warning: " in (out := capsys.readouterr().out)
    assert "but its card says" in out


def fail_at(function: Callable[..., Any], call: int, error: Exception) -> Callable[..., Any]:
    """`function`, but its call number `call` (from 1) raises `error`."""
    calls = []

    def failing(*args: Any) -> Any:
        calls.append(args)
        if len(calls) == call:
            raise error
        return function(*args)

    return failing


def test_what_the_machine_lacks_is_said_and_the_run_goes_on(
    kdrun: Run,
    workdir: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    distilled: tuple[Path, dict[str, Any], bytes],
) -> None:
    """Memory is used up within a step; the run that goes on meets a full disk; then all is well."""
    _, expected, weights = distilled
    capsys.readouterr()
    with monkeypatch.context() as patch:
        backward = fail_at(loop.backward, 4, RuntimeError(NO_MEMORY))
        patch.setattr(loop, "backward", backward)
        assert kdrun("distill", *ALONE, "checkpoint_steps=2") == 1
    memory = capsys.readouterr().err
    assert "with batch_size=64: try schedule.batch_size=32" in memory
    assert "The checkpoint of step 2 is kept" in memory
    (part,) = [r for r in results(workdir) if r["status"] == "failed"]
    assert part["error"] in memory
    with monkeypatch.context() as patch:
        full = OSError(errno.ENOSPC, "No space left on device", "x")
        patch.setattr(loop.CheckpointFolder, "save", fail_at(loop.CheckpointFolder.save, 2, full))
        assert kdrun("resume", str(part["folder"])) == 1
    disk = capsys.readouterr().err
    assert "No space left on device (x): free some space" in disk
    assert f"kdrun resume {part['folder']}" in disk
    assert "Traceback" not in memory + disk
    assert kdrun("resume", str(part["folder"])) == 0
    done = next(r for r in results(workdir) if r["folder"] == part["folder"])
    assert without_times(done) == expected
    assert (part["folder"] / "student.safetensors").read_bytes() == weights


WHY = {
    "fails": "a mistake in the network",
    "starves": "Out of memory on cpu in step 1",
    "hangs": "sweep.job_minutes=0.5",
}


@pytest.mark.parametrize(
    "fates",
    [["fails", "starves"], pytest.param(["fails", "hangs", "starves"], marks=pytest.mark.heavy)],
    ids=len,
)
def test_jobs_that_fail_starve_or_hang_leave_the_others(
    kdrun: Run,
    workdir: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    fates: list[str],
) -> None:
    (workdir / "own_students.py").write_text(STUDENTS)
    monkeypatch.syspath_prepend(str(workdir))
    small = [word for word in SMALL if word != "ui=quiet"]
    words = ["student=custom", "student._target_=own_students.Student", "loss=ce", "ui=plain"]
    jobs = [f"+student.fate={','.join(fates)},good", "epochs=1", "sweep.job_minutes=0.5"]
    # an exception of the user's own network is the user's mistake
    code = 2 if "fails" in fates else 1
    assert kdrun("distill", "-m", *(w for w in small if w[:7] != "teacher"), *words, *jobs) == code
    found = {r["status"]: r for r in results(workdir)}
    assert sorted(r["status"] for r in results(workdir)) == ["completed", *["failed"] * len(fates)]
    assert found["completed"]["student"]["test"]["top1"] >= 0
    printed = capsys.readouterr()
    end = printed.out[printed.out.index("sweep: ranked") :]
    for number, fate in enumerate(fates, 1):
        (line,) = [one for one in end.splitlines() if f"job {number}/" in one]
        reasons = [one for one in printed.err.splitlines() if f"job {number}/" in one]
        assert any(WHY[fate] in one for one in [line, *reasons])
    (sweep,) = workdir.glob("outputs/sweeps/*")
    assert len((sweep / "summary.csv").read_text().splitlines()) == 2


@pytest.mark.heavy
def test_a_job_whose_process_is_killed_leaves_the_others(
    process: Callable[..., Any], workdir: Path
) -> None:
    """As the system does when memory runs out; several jobs at once, each in a process."""
    pytest.importorskip("joblib")
    (workdir / "own_students.py").write_text(STUDENTS)
    small = [word for word in SMALL if word != "ui=quiet" and word[:7] != "teacher"]
    words = ["student=custom", "student._target_=own_students.Student", "loss=ce", "epochs=1"]
    launcher = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "ui=plain"]
    jobs = ["+student.fate=is_killed,good,better,best"]
    done = process("distill", "-m", *small, *words, *jobs, *launcher)
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    assert "was killed, perhaps by the system" in done.stdout
    end = done.stdout[done.stdout.index("sweep: ranked") :]
    assert "warning: job 1/4 " in end
    # one more job may have been in hand, and ends with it
    assert sum(r["status"] == "completed" for r in results(workdir)) >= 2
    (sweep,) = workdir.glob("outputs/sweeps/*")
    assert len((sweep / "summary.csv").read_text().splitlines()) >= 3
