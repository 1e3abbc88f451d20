"""A run that stops can be resumed: signals, kills, damaged states; the end is the same bit for bit.

The commands are processes forked from one that has imported torch (`reliability/forks.py`).
"""

import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support import SMALL, results, without_times

from tests.reliability import forks

# Three epochs of six steps for each network.
PLAIN = [*(word for word in SMALL if word != "ui=quiet"), "ui=plain", "batch_size=32"]
PLAIN += ["teacher.schedule.batch_size=32"]
TRAININGS = {"teacher": 1, "alone": 2, "student": 3}
STEP = 9  # in the middle of the second epoch


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], bytes]:
    """The same run, never interrupted."""
    folder = tmp_path_factory.mktemp("reference")
    code, output = forks.run(folder, ["distill", *PLAIN])
    assert code == 0, output
    (result,) = [r for r in results(folder) if r["teachers"]]
    return without_times(result), (result["folder"] / "student.safetensors").read_bytes()


def run_folder(folder: Path) -> Path:
    (path,) = folder.glob("outputs/distill/*/cnn_large-*/*")
    return path


def assert_same_end(folder: Path, reference: tuple[dict[str, Any], bytes]) -> None:
    (result,) = [r for r in results(folder) if r["teachers"]]
    assert result["status"] == "completed"
    assert without_times(result) == reference[0]
    assert (result["folder"] / "student.safetensors").read_bytes() == reference[1]


def trainings_begun(folder: Path) -> set[str]:
    """The networks of `TRAININGS` that have a metrics file."""
    places = {"teacher": "teachers/*/*", "alone": "distill/*/none-*/*"}
    places["student"] = "distill/*/cnn_large-*/*"
    return {
        name for name, place in places.items() if any(folder.glob(f"outputs/{place}/metrics.jsonl"))
    }


@pytest.mark.parametrize("training", TRAININGS)
@pytest.mark.parametrize(
    "number",
    [
        pytest.param(signal.SIGINT, id="ctrl-c", marks=pytest.mark.heavy),
        pytest.param(signal.SIGKILL, id="kill"),
    ],
)
def test_stopped_in_any_training_and_resumed(
    workdir: Path, reference: tuple[dict[str, Any], bytes], training: str, number: int
) -> None:
    stop = partial(forks.signal_at_step, TRAININGS[training], STEP, number)
    code, output = forks.run(workdir, ["distill", *PLAIN], fault=stop)
    assert trainings_begun(workdir) == set(list(TRAININGS)[: TRAININGS[training]])
    result = results(workdir, name="cnn_large-*")[0]
    if number == signal.SIGINT:
        assert code == 130, output
        assert result["status"] == "interrupted"
        assert f"kdrun resume {run_folder(workdir).relative_to(workdir)}" in output
        assert "Traceback" not in output
    else:
        assert code == -signal.SIGKILL, output
        assert result["status"] == "running"
    code, output = forks.run(workdir, ["resume", str(run_folder(workdir))])
    assert code == 0, output
    assert_same_end(workdir, reference)
    # also of the runs that the resumed one started
    commands = [path.read_text() for path in workdir.glob("outputs/distill/*/*/*/command.txt")]
    assert len(commands) == 2
    assert all(command.startswith("kdrun distill ") for command in commands), commands


@pytest.mark.heavy
@pytest.mark.parametrize("step", [STEP, 16], ids=["observing", "frozen"])
def test_a_quantised_student_resumes_with_its_ranges(workdir: Path, step: int) -> None:
    """Killed before and after the last quarter, in which ranges and statistics are fixed."""
    words = ["distill", *PLAIN, "alone=false", "student.quantize=int8", "schedule.ema=0.9"]
    (workdir / "whole").mkdir()
    code, output = forks.run(workdir / "whole", words)
    assert code == 0, output
    (result,) = [r for r in results(workdir / "whole") if r["teachers"]]
    end = without_times(result), (result["folder"] / "student.safetensors").read_bytes()
    (workdir / "stopped").mkdir()
    stop = partial(forks.signal_at_step, 2, step, signal.SIGKILL)
    code, output = forks.run(workdir / "stopped", words, fault=stop)
    assert code == -signal.SIGKILL, output
    code, output = forks.run(workdir / "stopped", ["resume", str(run_folder(workdir / "stopped"))])
    assert code == 0, output
    assert_same_end(workdir / "stopped", end)


def test_sigterm_is_an_interruption(workdir: Path) -> None:
    stop = partial(forks.signal_at_step, TRAININGS["student"], STEP, signal.SIGTERM)
    code, output = forks.run(workdir, ["distill", *PLAIN], fault=stop)
    assert code == 130, output
    assert results(workdir, name="cnn_large-*")[0]["status"] == "interrupted"


def test_a_damaged_state_is_named_and_the_previous_one_used(
    workdir: Path, reference: tuple[dict[str, Any], bytes]
) -> None:
    stop = partial(forks.signal_at_step, TRAININGS["student"], STEP, signal.SIGINT)
    forks.run(workdir, ["distill", *PLAIN, "checkpoint_steps=3"], fault=stop)
    states = run_folder(workdir) / "checkpoints"
    assert (states / "previous.pt").is_file()
    (states / "last.pt").write_bytes((states / "last.pt").read_bytes()[:-400])
    code, output = forks.run(workdir, ["resume", str(run_folder(workdir))])
    assert code == 0, output
    assert "is damaged" in output
    assert "using the previous checkpoint" in output
    assert_same_end(workdir, reference)


def test_a_run_that_another_process_holds_is_refused(workdir: Path) -> None:
    marker = workdir / "training"
    wait = partial(forks.wait_at_step, 2, STEP, marker)
    holder = forks.start(workdir, ["distill", *PLAIN, "alone=false"], fault=wait)
    forks.until(marker.exists, holder)
    code, output = forks.run(workdir, ["resume", str(run_folder(workdir))], "second")
    holder.kill()
    assert code == 2
    assert "in use" in output


def test_resuming_a_finished_run_changes_nothing(
    kdrun: Callable[..., int], workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert kdrun("distill", *PLAIN) == 0
    folder = run_folder(workdir)
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != ".lock"}
    capsys.readouterr()
    assert kdrun("resume", str(folder)) == 0
    assert "is complete" in capsys.readouterr().out
    assert {p: p.read_bytes() for p in before} == before


def test_three_at_once_train_one_teacher(workdir: Path) -> None:
    children = [
        forks.start(workdir, ["distill", *SMALL, f"seed={seed}"], f"seed{seed}")
        for seed in (0, 1, 2)
    ]
    for child in children:
        assert child.wait() == 0, child.output
    found = results(workdir, name="cnn_large-*")
    assert len(found) == 3
    assert sum(not r["teachers"][0]["reused"] for r in found) == 1
    assert len({r["teachers"][0]["sha256"] for r in found}) == 1
