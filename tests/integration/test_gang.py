"""Gangs: jobs side by side end as they do alone, whatever happens to one of them."""

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support import SMALL, results, without_times

import kdrun as package
from kdrun.distillation.loss_weights import LossWeights
from kdrun.engine.loop import _Fit
from kdrun.schemes.offline import Offline
from kdrun.sweeps.lockstep.forward import SharedForward
from kdrun.sweeps.lockstep.session import BatchStream

Run = Callable[..., int]
AUGMENTED = [*SMALL, "dataset.augment.crop_padding=1", "dataset.augment.flip=true"]
NAME = "cnn_large-*"


def by_job(folder: Path, **wanted: Any) -> list[dict[str, Any]]:
    found = results(folder, name=NAME)
    return [r for r in found if all(r[key] == value for key, value in wanted.items())]


def same_weights(one: Path, other: Path) -> bool:
    first, second = (load_file(folder / "student.safetensors") for folder in (one, other))
    return all(torch.equal(first[name], second[name]) for name in first)


def counted(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How often a batch was made, and a student's step was done."""
    count = {"batches": 0, "steps": 0}
    batch, step = BatchStream.batch, _Fit._step

    def counting_batch(self: BatchStream, epoch: int, number: int) -> Any:
        before = self.last
        found = batch(self, epoch, number)
        count["batches"] += self.last is not before
        return found

    def counting_step(self: Any, one: Any) -> Any:
        count["steps"] += 1
        return step(self, one)

    monkeypatch.setattr(BatchStream, "batch", counting_batch)
    monkeypatch.setattr(_Fit, "_step", counting_step)
    return count


@pytest.mark.parametrize(
    "grid",
    [
        pytest.param(["loss=kd,at", "lr=0.05,0.1"], id="losses and rates"),
        pytest.param(
            [
                "student=mlp30",
                "student.dropout=0.2",
                "T=1,4",
                "lr=0.05,0.1",
                "teacher.cache=off",
                "schedule.max_norm=0.5",
            ],
            id="students with dropout",
            marks=pytest.mark.heavy,
        ),
    ],
)
def test_every_job_of_a_gang_equals_the_same_run_alone(
    kdrun: Run, workdir: Path, monkeypatch: pytest.MonkeyPatch, grid: list[str]
) -> None:
    words = [*AUGMENTED, *grid, "alone=false"]
    places = [workdir / "together", workdir / "apart"]
    for place in places:
        place.mkdir()
    monkeypatch.chdir(places[0])
    with monkeypatch.context() as patch:
        count = counted(patch)
        assert kdrun("distill", "-m", *words, "gang=true") == 0
    trained_teacher = 9  # steps of the teacher, which no job shares
    assert count["steps"] == 4 * count["batches"] + trained_teacher
    monkeypatch.chdir(places[1])
    assert kdrun("distill", "-m", *words) == 0
    together, apart = (results(place, name=NAME) for place in places)
    assert len(together) == len(apart) == 4
    for one in together:
        (other,) = [r for r in apart if r["identity"] == one["identity"]]
        assert without_times(one) == without_times(other)
        assert same_weights(one["folder"], other["folder"])
        assert rows(one["folder"]) == rows(other["folder"])


def rows(folder: Path) -> list[dict[str, Any]]:
    """The epochs' rows without times."""
    found = [json.loads(line) for line in (folder / "metrics.jsonl").open()]
    times = ("epoch_seconds", "images_per_second")
    return [{k: v for k, v in row.items() if k not in times} for row in found]


def test_the_teacher_answers_once_for_all(
    kdrun: Run, workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, answered = [], []
    teacher_outputs, answer = Offline.teacher_outputs, SharedForward.outputs_of
    monkeypatch.setattr(
        Offline,
        "teacher_outputs",
        lambda self, batch: asked.append(1) or teacher_outputs(self, batch),
    )

    def counting(self: SharedForward, images: torch.Tensor, keys: Any, number: int) -> Any:
        before = self.images
        found = answer(self, images, keys, number)
        if self.images is not before:
            answered.append(1)
        return found

    monkeypatch.setattr(SharedForward, "outputs_of", counting)
    # each job compares the gradients of its losses once, on a copy of the first batch
    monkeypatch.setattr(LossWeights, "on_first_batch", lambda self, batch: None)
    words = [*AUGMENTED, "alone=false", "teacher.cache=off", "loss=kd,at,sp"]
    assert kdrun("distill", "-m", *words, "gang=true") == 0
    assert len(asked) == 3 * len(answered)
    assert len(answered) == 9  # three batches of three epochs, feature maps and logits together


def test_a_gang_ends_in_a_table_and_is_not_repeated(kdrun: Run, workdir: Path) -> None:
    words = [*AUGMENTED, "T=1,4", "alpha=0.1,0.9", "gang=true"]
    assert kdrun("distill", "-m", *words) == 0
    (folder,) = workdir.glob("outputs/sweeps/*")
    assert len(list(csv.DictReader((folder / "summary.csv").open()))) == 4
    before = {r["folder"] for r in results(workdir)}
    assert len({r["alone"]["run"] for r in results(workdir, name=NAME)}) == 1
    assert kdrun("distill", "-m", *words) == 0
    assert {r["folder"] for r in results(workdir)} == before


def test_a_job_that_fails_leaves_the_others(kdrun: Run, workdir: Path) -> None:
    words = [*AUGMENTED, "alone=false"]
    assert kdrun("distill", "-m", *words, "lr=0.1,1e6,0.05", "gang=true") == 1
    statuses = sorted(r["status"] for r in results(workdir))
    assert statuses == ["completed", "completed", "failed"]
    kept = {r["identity"]: r["folder"] for r in results(workdir) if r["status"] == "completed"}
    assert kdrun("distill", *words, "lr=0.05") == 0
    last = results(workdir)[-1]
    assert same_weights(kept[last["identity"]], last["folder"])


def test_an_interrupted_gang_goes_on_to_the_same_end(
    kdrun: Run, workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [*AUGMENTED, "alone=false", "T=1,4"]
    steps, step = [], _Fit._step

    def stopping(self: Any, batch: Any) -> Any:
        steps.append(1)
        if len(steps) == 9 + 7:  # the teacher's, and some of the jobs'
            self.training.stop.requested = True
        return step(self, batch)

    monkeypatch.setattr(_Fit, "_step", stopping)
    assert kdrun("distill", "-m", *words, "gang=true") == 130
    monkeypatch.setattr(_Fit, "_step", step)
    assert {r["status"] for r in results(workdir)} == {"interrupted"}
    (sweep,) = workdir.glob("outputs/sweeps/*")
    assert kdrun("resume", str(sweep)) == 0
    gang = {r["T"]: r["folder"] for r in results(workdir)}
    assert len(gang) == 2
    assert kdrun("distill", *words[:-1], "T=4") == 0
    assert same_weights(gang[4], results(workdir)[-1]["folder"])


def test_jobs_that_share_nothing_are_run_by_themselves(kdrun: Run, workdir: Path) -> None:
    words = [*AUGMENTED, "alone=false", "epochs=1"]
    assert kdrun("distill", "-m", *words, "seed=0,1", "T=1,4", "gang=true") == 0
    assert len(by_job(workdir, status="completed")) == 4
    assert len(by_job(workdir, seed=1)) == 2


def test_a_gang_in_several_processes_is_refused(refused: Callable[..., str]) -> None:
    pytest.importorskip("joblib")
    words = ["T=1,4", "gang=true", "hydra/launcher=joblib"]
    assert "leave one of the two out" in refused("distill", "-m", *AUGMENTED, *words)


def test_without_greenlet_it_is_refused_before_anything_is_made(
    refused: Callable[..., str], workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "greenlet", None)
    before = sorted(workdir.rglob("*"))
    text = refused("distill", "-m", *AUGMENTED, "T=1,4", "gang=true")
    assert "pip install 'kdrun[lockstep]'" in text
    assert sorted(workdir.rglob("*")) == before


@pytest.mark.heavy
def test_the_core_imports_no_greenlet() -> None:
    sources = Path(package.__file__).parent.rglob("*.py")
    importing = {path.name for path in sources if "greenlet import" in path.read_text()}
    assert importing == {"scheduler.py"}
    code = (
        "import sys\n"
        "import kdrun.sweeps.executor, kdrun.sweeps.jobs, kdrun.distillation.run\n"
        "assert not [name for name in sys.modules if name.startswith('kdrun.sweeps.lockstep')]\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
