"""A student that starts from weights: fine-tuning, a second distillation, its baseline, resume."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support import SMALL, results

from kdrun.files import sha256_of

STILL = ["lr=1e-12", "epochs=1", "schedule.weight_decay=0", "schedule.warmup_epochs=0"]
FAST = [*SMALL, "teacher=cnn_tiny", "teacher.schedule.epochs=1"]


def test_it_starts_there_and_so_does_its_baseline(
    kdrun: Callable[..., int], workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert kdrun("distill", *FAST, "epochs=1", "alone=false") == 0
    (first,) = results(workdir)
    weights = {
        f"module.{k}": v for k, v in load_file(first["folder"] / "student.safetensors").items()
    }
    torch.save({"state_dict": weights, "optimizer": {"state": {}, "param_groups": []}}, "s.pth")
    words = ["student.checkpoint=s.pth", "ui=plain", "seed=7"]
    assert kdrun("distill", *FAST, *STILL, *words) == 0
    said = capsys.readouterr().out
    assert f"s.pth (sha256 {sha256_of(Path('s.pth'))[:8]}…); weights read under" in said
    started, alone = (
        next(r for r in results(workdir) if r.get("student_checkpoint") and r["loss"] == [loss])
        for loss in ("kd", "ce")
    )
    known = {"checkpoint": "s.pth", "sha256": sha256_of(Path("s.pth"))}
    assert started["student_checkpoint"] == known == alone["student_checkpoint"]
    before = load_file(first["folder"] / "student.safetensors")
    for run in (started, alone):
        after = load_file(run["folder"] / "student.safetensors")
        for name, tensor in before.items():
            if tensor.is_floating_point() and "running" not in name:
                torch.testing.assert_close(after[name], tensor, atol=1e-6, rtol=0)
    assert started["alone"]["run"] == str(alone["folder"].relative_to(workdir))
    again = json.loads((started["folder"] / "result.json").read_text())
    (started["folder"] / "result.json").write_text(json.dumps({**again, "status": "interrupted"}))
    (started["folder"] / "SHA256SUMS").unlink(missing_ok=True)
    torch.save({"state_dict": {k: v + 1 for k, v in weights.items()}}, "s.pth")
    assert kdrun("resume", str(started["folder"])) == 2
    assert "s.pth has changed since this run began with it" in capsys.readouterr().err


def test_weights_of_other_classes_name_the_remedy(
    kdrun: Callable[..., int], refused: Callable[..., str], workdir: Path
) -> None:
    assert kdrun("distill", *FAST, "epochs=1", "loss=ce") == 0
    (first,) = results(workdir)
    other = ["dataset.num_classes=6", f"student.checkpoint={first['folder']}", "alone=false"]
    text = refused("distill", *FAST, *other, "loss=ce")
    assert "is [4, " in text
    assert "student.new_classifier=true" in text
    assert len(results(workdir)) == 1  # a rejected command leaves no run folder
    words = [*other, *STILL, "student.new_classifier=true", "loss=ce"]
    assert kdrun("distill", *FAST, *words) == 0
    last = next(
        r for r in results(workdir) if r.get("student_checkpoint", {}).get("new_classifier")
    )
    new, old = (load_file(r["folder"] / "student.safetensors") for r in (last, first))
    same = [name for name in old if old[name].shape == new[name].shape]
    assert len(same) == len(old) - 2  # all but weight and bias of the classifier
    for name in same:
        if old[name].is_floating_point() and "running" not in name:
            torch.testing.assert_close(new[name], old[name], atol=1e-6, rtol=0)
