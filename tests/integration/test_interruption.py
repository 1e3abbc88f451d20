"""A run that stops goes on: signals, kills, damaged states; the end is the same, bit for bit."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import SMALL, results, without_times

# Long enough to be hit in the middle of each stage.
LONG = [*SMALL, "epochs=40", "teacher.schedule.epochs=12", "batch_size=8", "ui=plain"]
LONG = [word for word in LONG if word not in ("epochs=3", "teacher.schedule.epochs=3", "ui=quiet")]


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], bytes]:
    """The same run, never interrupted."""
    folder = tmp_path_factory.mktemp("reference")
    done = subprocess.run(
        [sys.executable, "-m", "kdrun", "distill", *LONG],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (result,) = [r for r in results(folder) if r["teachers"]]
    return without_times(result), (result["folder"] / "student.safetensors").read_bytes()


def start(folder: Path, *argv: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "kdrun", *argv],
        cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def wait_for(folder: Path, found: Callable[[Path], bool], process: subprocess.Popen[str]) -> None:
    """Until the run has come so far; fails when it ends before."""
    limit = time.monotonic() + 120
    while not found(folder):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < limit
        time.sleep(0.005)


def in_teacher(folder: Path) -> bool:
    return any(folder.glob("outputs/teachers/*/*/metrics.jsonl"))


def in_alone(folder: Path) -> bool:
    return any(folder.glob("outputs/distill/*/none-*/*/metrics.jsonl"))


def in_student(folder: Path) -> bool:
    return any(folder.glob("outputs/distill/*/cnn_large-*/*/metrics.jsonl"))


def student_saved_twice(folder: Path) -> bool:
    return any(folder.glob("outputs/distill/*/cnn_large-*/*/checkpoints/previous.pt"))


STAGES = {"teacher": in_teacher, "alone": in_alone, "student": in_student}


def run_folder(folder: Path) -> Path:
    (path,) = folder.glob("outputs/distill/*/cnn_large-*/*")
    return path


def assert_same_end(folder: Path, reference: tuple[dict[str, Any], bytes]) -> None:
    (result,) = [r for r in results(folder) if r["teachers"]]
    assert result["status"] == "completed"
    assert without_times(result) == reference[0]
    assert (result["folder"] / "student.safetensors").read_bytes() == reference[1]


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-c", "kill"])
def test_stopped_in_any_stage_and_resumed(
    workdir: Path, reference: tuple[dict[str, Any], bytes], stage: str, number: int
) -> None:
    process = start(workdir, "distill", *LONG)
    wait_for(workdir, STAGES[stage], process)
    process.send_signal(number)
    output = process.communicate()[0]
    result = results(workdir, name="cnn_large-*")[0]
    if number == signal.SIGINT:
        assert process.returncode == 130, output
        assert result["status"] == "interrupted"
        assert f"kdrun resume {run_folder(workdir).relative_to(workdir)}" in output
        assert "Traceback" not in output
    else:
        assert result["status"] == "running"
    again = start(workdir, "resume", str(run_folder(workdir)))
    output = again.communicate()[0]
    assert again.returncode == 0, output
    assert_same_end(workdir, reference)


def test_sigterm_is_an_interruption(workdir: Path) -> None:
    process = start(workdir, "distill", *LONG)
    wait_for(workdir, in_student, process)
    process.terminate()
    output = process.communicate()[0]
    assert process.returncode == 130, output
    assert results(workdir, name="cnn_large-*")[0]["status"] == "interrupted"


def test_a_damaged_state_is_told_and_the_one_before_used(
    workdir: Path, reference: tuple[dict[str, Any], bytes]
) -> None:
    process = start(workdir, "distill", *LONG, "checkpoint_minutes=0.002")
    wait_for(workdir, student_saved_twice, process)
    process.send_signal(signal.SIGINT)
    process.communicate()
    states = run_folder(workdir) / "checkpoints"
    assert (states / "previous.pt").is_file()
    (states / "last.pt").write_bytes((states / "last.pt").read_bytes()[:-400])
    again = start(workdir, "resume", str(run_folder(workdir)))
    output = again.communicate()[0]
    assert again.returncode == 0, output
    assert "is damaged" in output
    assert "one before it" in output
    assert_same_end(workdir, reference)


def test_a_run_that_still_goes_on_is_left_alone(workdir: Path) -> None:
    process = start(workdir, "distill", *LONG, "epochs=2000", "alone=false")
    wait_for(workdir, in_student, process)
    second = start(workdir, "resume", str(run_folder(workdir)))
    output = second.communicate()[0]
    process.kill()
    process.communicate()
    assert second.returncode == 2
    assert "in use" in output


def test_resuming_a_finished_run_changes_nothing(workdir: Path) -> None:
    spoken = [*(word for word in SMALL if word != "ui=quiet"), "ui=plain"]
    assert start(workdir, "distill", *spoken).communicate() is not None
    folder = run_folder(workdir)
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != ".lock"}
    again = start(workdir, "resume", str(folder))
    output = again.communicate()[0]
    assert again.returncode == 0
    assert "is complete" in output
    assert {p: p.read_bytes() for p in before} == before


def test_two_at_once_train_one_teacher(workdir: Path) -> None:
    processes = [start(workdir, "distill", *SMALL, f"seed={seed}") for seed in (0, 1, 2)]
    for process in processes:
        output = process.communicate()[0]
        assert process.returncode == 0, output
    found = results(workdir, name="cnn_large-*")
    assert len(found) == 3
    assert sum(not r["teachers"][0]["reused"] for r in found) == 1
    assert len({r["teachers"][0]["sha256"] for r in found}) == 1
