"""Two processes that train one network, started by PyTorch's own torchrun, on the CPU."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support import SMALL, results, without_times

Run = Callable[..., int]

# Batches of 47 and a last one of 39; the test split, 61 images, does not divide by two. Few steps:
# rounding grows with each of them, in one process as well when its threads change.
SETTINGS = [
    *(word for word in SMALL if "test_size" not in word and "epochs" not in word),
    *("dataset.test_size=61", "epochs=1", "teacher.schedule.epochs=1", "batch_size=47"),
    *("dataset.augment.crop_padding=1", "dataset.augment.flip=true"),
]
# A contrastive loss that leaves its memories behind, each process its own.
WATCHED = """
import os, torch
from kdrun.losses.crd import ContrastiveDistillation

class Watched(ContrastiveDistillation):
    def start_step(self, done):
        pass

    def after_step(self):
        super().after_step()
        memory = torch.cat([self.student_side.rows, self.teacher_side.rows])
        torch.save(memory, f"memory-{os.environ.get('RANK', 'alone')}.pt")
"""
WATCHED_YAML = "watched:\n  _target_: watched.Watched\n  weight: 0.8\n  negatives: 64\n"


def torchrun(folder: Path, *argv: str, processes: int = 2) -> subprocess.Popen[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}"]
    command = [*launcher, "--standalone", "-m", "kdrun", *argv]
    return subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True, env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip


def finished(process: subprocess.Popen[str], code: int = 0) -> str:
    said = process.communicate(timeout=600)[0]
    assert (process.returncode == 0) is (code == 0), said
    return said


def test_two_processes_minimise_what_one_does(kdrun: Run, workdir: Path) -> None:
    """Similarities within the batch, a memory of all images, batch normalisation, metrics."""
    (workdir / "watched.py").write_text(WATCHED)
    (workdir / "my" / "loss").mkdir(parents=True)
    (workdir / "my" / "loss" / "watched.yaml").write_text(WATCHED_YAML)
    command = ["distill", "--config-dir", "my", *SETTINGS, "student=resnet8", "dataset.channels=3"]
    command += [
        "loss=[kd,sp,watched,fitnet]",
        "loss.fitnet.taps=[stage1]",
        "schedule.nesterov=true",
        "schedule.max_norm=1.4",
    ]
    command += ["teacher=resnet14", "lr=0.001"]
    assert kdrun(*command) == 0
    shutil.move("outputs", "alone")
    said = finished(torchrun(workdir, *(w for w in command if w != "ui=quiet"), "ui=plain"))
    assert said.count("Stage 2") == 1, "both processes spoke"
    assert "2 processes" in said

    (workdir / "one").mkdir()
    shutil.move("alone", "one/outputs")
    (one,) = results(workdir / "one", name="resnet14-*")
    (two,) = results(workdir, name="resnet14-*")
    assert len(list(workdir.glob("outputs/distill/*/*/*"))) == 2  # the student, and it alone
    assert two["status"] == "completed"
    best = [result["student"]["best_val"]["test"] for result in (one, two)]
    assert best[0] == pytest.approx(best[1], rel=1e-3)
    assert one["student"]["test"] == pytest.approx(two["student"]["test"], rel=1e-3)
    weights = [load_file(r["folder"] / "student.safetensors") for r in (one, two)]
    for name, tensor in weights[0].items():
        torch.testing.assert_close(weights[1][name], tensor, rtol=1e-3, atol=1e-4, msg=name)
    memories = [torch.load(workdir / f"memory-{rank}.pt") for rank in (0, 1, "alone")]
    assert torch.equal(memories[0], memories[1])
    torch.testing.assert_close(memories[0], memories[2], rtol=1e-3, atol=1e-3)


@pytest.mark.heavy
def test_ctrl_c_and_resume(kdrun: Run, workdir: Path) -> None:
    words = [w for w in SETTINGS if not w.startswith(("epochs", "ui="))]
    command = ["distill", *words, "epochs=30", "ui=plain", "alone=false"]
    process = torchrun(workdir, *command)
    limit = time.monotonic() + 300
    while not list(workdir.glob("outputs/distill/*/*/*/metrics.jsonl")):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < limit
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    said = finished(process, code=1)
    (stopped,) = results(workdir)
    assert stopped["status"] == "interrupted", said
    assert said.count("kdrun resume") == 1
    said = finished(torchrun(workdir, "resume", str(stopped["folder"])))
    assert "resuming after step" in said
    (done,) = results(workdir)
    assert done["status"] == "completed"
    assert kdrun(*command, "output_root=alone/outputs", "ui=quiet") == 0
    (one,) = results(workdir / "alone")
    assert without_times(one)["student"]["test"] == pytest.approx(done["student"]["test"], rel=1e-3)


@pytest.mark.heavy
def test_mistakes_are_said_once(workdir: Path) -> None:
    said = finished(torchrun(workdir, "distill", "-m", *SETTINGS, "T=1,2"), code=2)
    assert said.count("error: Under torchrun all processes train one network") == 1
