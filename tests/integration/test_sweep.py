"""Sweeps: one teacher, many students; done jobs are not repeated; a failing one is told."""

import csv
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from safetensors.torch import load_file
from support import SMALL, results, without_times

from kdrun.distillation import student
from kdrun.engine.loop import _Fit

Run = Callable[..., int]


def test_a_sweep_trains_one_teacher_and_ranks_its_settings(
    kdrun: Run, workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoken = [word for word in SMALL if word != "ui=quiet"]
    assert kdrun("distill", "-m", *spoken, "ui=plain", "T=1,4", "seed=0,1") == 0
    said = capsys.readouterr().out
    found = results(workdir, name="cnn_large-*")
    assert sorted((r["T"], r["seed"]) for r in found) == [(1, 0), (1, 1), (4, 0), (4, 1)]
    assert len(list(workdir.glob("outputs/teachers/*/*/teacher.json"))) == 1
    assert len({r["alone"]["run"] for r in found}) == 2
    assert "teacher cnn_large (seed 0): will be trained, once" in said
    for number, words in enumerate(("T=1 seed=0", "T=1 seed=1", "T=4 seed=0", "T=4 seed=1"), 1):
        assert len(re.findall(rf"job {number}/4 +{words} +[\d.]+ +[\d.]+ +[+-][\d.]+ ", said)) == 1
    assert said.count("teacher cnn_large: test top-1") == 1
    assert "next:" not in said
    assert "\x1b" not in said
    assert re.search(r"verdict: .*95 % interval .* n=2 seeds", said)
    (folder,) = workdir.glob("outputs/sweeps/*")
    rows = list(csv.DictReader((folder / "summary.csv").open()))
    ranks = [float(row["best val top-1 %"]) for row in rows]
    assert ranks == sorted(ranks, reverse=True)
    assert (folder / "summary.md").read_text().startswith("| job |")
    settings = list(csv.DictReader((folder / "ranking.csv").open()))
    for line in settings:
        same = [r for r in found if r["T"] == float(line["T"])]
        for column, values in {
            "best val top-1 %": [r["student"]["best_val"]["val_top1"] for r in same],
            "test top-1 %": [r["student"]["test"]["top1"] for r in same],
        }.items():
            assert float(line[f"{column} mean"]) == pytest.approx(numpy.mean(values))
            assert float(line[f"{column} std"]) == pytest.approx(numpy.std(values, ddof=1))
        assert line["n"] == "2"
    means = [float(line["best val top-1 % mean"]) for line in settings]
    assert means == sorted(means, reverse=True)
    assert f": T={settings[0]['T']}\n" in said[said.index("best on validation") :]
    assert (folder / "ranking.md").read_text().startswith("| T | n |")


def test_a_job_equals_the_same_run_alone(kdrun: Run, workdir: Path) -> None:
    """Bit for bit, also where the other run trains its own teacher and its own baseline."""
    kdrun("distill", "-m", *SMALL, "T=1,4", "loss=[kd,sp]")
    kdrun("distill", *SMALL, "T=4", "loss=[kd,sp]", "output_root=elsewhere/outputs")
    (one,) = [r for r in results(workdir, name="cnn_large-*") if r["T"] == 4]
    (two,) = results(workdir / "elsewhere", name="cnn_large-*")
    assert without_times(one) == without_times(two)
    weights = [load_file(r["folder"] / "student.safetensors") for r in (one, two)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_the_same_sweep_again_repeats_nothing(kdrun: Run, workdir: Path) -> None:
    kdrun("distill", "-m", *SMALL, "T=1,4")
    before = {r["folder"] for r in results(workdir)}
    kdrun("distill", "-m", *SMALL, "T=1,4,8")
    after = {r["folder"] for r in results(workdir)}
    assert before < after
    assert len(after) == len(before) + 1


def test_an_unfinished_job_is_continued(kdrun: Run, workdir: Path) -> None:
    kdrun("distill", "-m", *SMALL, "T=1,4")
    half = results(workdir, name="cnn_large-*")[0]["folder"]
    values = json.loads((half / "result.json").read_text())
    (half / "SHA256SUMS").unlink()  # a run that has not ended has no list
    (half / "result.json").write_text(json.dumps({**values, "status": "interrupted"}))
    (sweep,) = workdir.glob("outputs/sweeps/*")
    assert kdrun("resume", str(sweep)) == 0
    found = results(workdir, name="cnn_large-*")
    assert len(found) == 2
    assert {r["status"] for r in found} == {"completed"}


def test_a_failing_job_does_not_stop_the_others_and_is_shown_at_the_end(
    kdrun: Run, workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoken = [word for word in SMALL if word != "ui=quiet"]
    words = ["-m", *spoken, "ui=plain", "alone=false", "epochs=1", "batch_size=8"]
    words.append("schedule.weight_decay=500000,0.0005")
    assert kdrun("distill", *words) == 1
    said = capsys.readouterr().out
    assert sorted(r["status"] for r in results(workdir)) == ["completed", "failed"]
    (failed,) = [r for r in results(workdir) if r["status"] == "failed"]
    end = said[said.index("sweep: ranked") :]
    assert "warning: job 1/2 schedule.weight_decay=500000 failed (log: " in end
    assert failed["error"] not in said  # on standard error, once
    assert f"log: {failed['folder'].relative_to(workdir)}/run.log" in end
    assert "failed: Not finite" in (failed["folder"] / "run.log").read_text()


def test_a_hanging_job_is_ended_and_the_others_go_on(
    kdrun: Run, workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that hangs in its loop, where nothing looks at the time."""
    train, calls = student.run_training, []

    def hang(*args: Any) -> Any:
        calls.append(args)
        if len(calls) == 1:
            with args[1].stop.deferred:
                time.sleep(300)
        return train(*args)

    kdrun("train-teacher", *(word for word in SMALL if not word.startswith("teacher.")))
    monkeypatch.setattr(student, "run_training", hang)
    started = time.monotonic()
    words = ["-m", *SMALL, "T=1,4", "epochs=1", "alone=false", "sweep.job_minutes=0.1"]
    assert kdrun("distill", *words) == 1
    assert time.monotonic() - started < 250
    ended, done = results(workdir)
    assert (ended["status"], done["status"]) == ("failed", "completed")
    assert "exceeded sweep.job_minutes=0.1" in ended["error"]


def test_a_slow_job_saves_its_state_when_its_time_is_up(
    kdrun: Run, workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same command with more time resumes the job."""
    kdrun("train-teacher", *(word for word in SMALL if not word.startswith("teacher.")))
    slow = [*SMALL, "ui=plain", "alone=false", "batch_size=32", "seed=5"]
    step, started = _Fit._step, time.monotonic()

    def wait_for_the_limit(fit: _Fit, batch: Any) -> Any:
        while fit.state.step == 8 and not fit.training.stop.requested:
            assert time.monotonic() - started < 250, "there is no limit"
            time.sleep(0.01)
        return step(fit, batch)

    with monkeypatch.context() as patch:
        patch.setattr(_Fit, "_step", wait_for_the_limit)
        assert kdrun("distill", "-m", *slow, "sweep.job_minutes=0.05") == 1
    (ended,) = results(workdir)
    assert ended["status"] == "failed"
    assert "stopped after step" in ended["error"]
    assert kdrun("distill", "-m", *slow) == 0
    (done,) = results(workdir)
    assert "resuming after step 9 of 18" in (done["folder"] / "run.log").read_text()
    assert (done["folder"], done["status"]) == (ended["folder"], "completed")


def test_a_named_sweep(kdrun: Run, workdir: Path) -> None:
    assert kdrun("distill", "sweep=seeds", "seed=3,4", *SMALL, "alone=false") == 0
    assert sorted(r["seed"] for r in results(workdir)) == [3, 4]


def test_other_data_in_the_same_place_are_run_again(kdrun: Run, workdir: Path) -> None:
    (workdir / "own.py").write_text(
        "import numpy\n"
        "def load(shift=0):\n"
        "    draw = numpy.random.default_rng(int(open('seed.txt').read()))\n"
        "    part = lambda n: (draw.integers(0, 255, (n, 1, 8, 8), dtype=numpy.uint8),"
        " numpy.arange(n) % 3)\n"
        "    return {'train': part(60), 'test': part(30)}\n"
    )
    small = [word for word in SMALL if not word.startswith("dataset")]
    words = ["-m", "dataset=custom", "dataset._target_=own.load", *small, "T=1,4", "alone=false"]
    for seed, runs in (("1", 2), ("1", 2), ("2", 4)):
        (workdir / "seed.txt").write_text(seed)
        assert kdrun("distill", *words) == 0
        assert len(results(workdir)) == runs


@pytest.mark.heavy
def test_evaluations_can_be_swept(kdrun: Run, workdir: Path) -> None:
    kdrun("distill", "-m", *SMALL, "T=1,4", "alone=false")
    runs = ",".join(f"'{r['folder'].relative_to(workdir)}'" for r in results(workdir))
    assert kdrun("evaluate", "-m", f"run={runs}", "ui=quiet") == 0
    newest = max(workdir.glob("outputs/sweeps/*"), key=lambda path: path.name)
    rows = list(csv.DictReader((newest / "summary.csv").open()))
    tests = sorted(r["student"]["test"]["errors"] for r in results(workdir))
    assert sorted(int(row["test errors"]) for row in rows) == tests


def test_an_objective_that_cannot_be_stops_the_sweep_before_it_starts(
    refused: Callable[..., str], workdir: Path
) -> None:
    assert "would change nothing" in refused("distill", "-m", *SMALL, "loss=kd,sp", "T=3")
    assert not results(workdir)


@pytest.mark.heavy
def test_teachers_can_be_swept(kdrun: Run, workdir: Path) -> None:
    small = [word for word in SMALL if not word.startswith("teacher.")]
    assert kdrun("train-teacher", "-m", *small, "seed=0,1") == 0
    assert len(list(workdir.glob("outputs/teachers/*/*/teacher.json"))) == 2
    assert kdrun("distill", *SMALL, "teacher.seed=1", "alone=false") == 0
    (result,) = results(workdir)
    assert result["teachers"][0]["reused"] is True
