"""Runs under a policy with a cycle: the teacher is found cached, a stopped run ends alike."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support import SMALL, results

from kdrun.engine.checkpoint import CheckpointFolder
from kdrun.models.features.taps import FeatureExtractor

Run = Callable[..., int]
SHORT = [*SMALL, "teacher.schedule.epochs=1", "val_fraction=0"]
STRONG = [*SHORT, "augment=randaugment", "augment.crop_padding=1", "augment.flip=true"]
CYCLED = [*STRONG, "augment.cycle=2", "augment.erasing.prob=0.5", "alone=false"]


def weights(result: dict[str, Any]) -> dict[str, torch.Tensor]:
    return load_file(result["folder"] / "student.safetensors")


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.heavy
def test_the_second_job_finds_the_teacher_cached_and_a_stopped_one_ends_alike(
    kdrun: Run, workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert kdrun("distill", *CYCLED) == 0
    assert kdrun("distill", *CYCLED, "T=2") == 0
    assert kdrun("distill", *CYCLED, "teacher.cache=off", "dataset.resident=false") == 0
    first, second, off = results(workdir)
    assert first["teacher_cache"][0]["computed"] < first["teacher_cache"][0]["images"]
    assert second["teacher_cache"][0]["found_percent"] == 100.0
    assert same(weights(first), weights(off))

    saves, save = [], CheckpointFolder.save

    def stop_in_the_middle(self: CheckpointFolder, *args: Any, **more: Any) -> Any:
        done = save(self, *args, **more)
        saves.append(1)
        if len(saves) == 3:
            raise KeyboardInterrupt
        return done

    monkeypatch.setattr(CheckpointFolder, "save", stop_in_the_middle)
    assert kdrun("distill", *CYCLED, "checkpoint_steps=1", "output_root=again") == 130
    monkeypatch.setattr(CheckpointFolder, "save", save)
    (path,) = workdir.glob("again/distill/*/*/*/result.json")
    assert kdrun("resume", str(path.parent)) == 0
    assert same(weights(first), load_file(path.parent / "student.safetensors"))


@pytest.mark.heavy
def test_the_second_run_of_deits_recipe_finds_the_teacher_cached(kdrun: Run, workdir: Path) -> None:
    recipe = ["schedule=deit", "augment=deit", "augment.cycle=4", "loss=deit_hard", "epochs=4"]
    small = ["student=deit_micro", "student.drop_path=0.1", "batch_size=32", "alone=false"]
    words = [*SHORT, *recipe, *small, "schedule.warmup_epochs=1", "schedule.accumulate=2"]
    for more in ([], [], ["teacher.cache=off"]):
        assert kdrun("distill", *words, *more) == 0
    first, second, off = results(workdir)
    assert first["teacher_cache"][0]["computed"] > 0
    assert second["teacher_cache"][0]["computed"] == 0
    assert second["teacher_cache"][0]["found_percent"] == 100.0
    assert same(weights(first), weights(second))
    assert same(weights(first), weights(off))


@pytest.mark.parametrize(
    "augment", [pytest.param("randaugment", marks=pytest.mark.heavy), "imagenet"]
)
def test_both_networks_receive_the_same_pixels(
    kdrun: Run, workdir: Path, monkeypatch: pytest.MonkeyPatch, augment: str
) -> None:
    """The hashes of the networks' inputs in training, each before its own normalisation."""
    seen: dict[str, list[str]] = {"student": [], "teacher": []}
    forward = FeatureExtractor.forward

    def watched(self: FeatureExtractor, images: torch.Tensor) -> Any:
        trained = any(parameter.requires_grad for parameter in self.parameters())
        if torch.is_grad_enabled() or not trained:
            digest = hashlib.sha256(images.contiguous().numpy().tobytes()).hexdigest()
            seen["student" if trained else "teacher"].append(digest)
        return forward(self, images)

    monkeypatch.setattr(FeatureExtractor, "forward", watched)
    words = [f"augment={augment}", "alone=false", "teacher.cache=off", "epochs=2"]
    assert kdrun("distill", *SHORT, *words) == 0
    steps = 2 * 4  # 200 images in batches of 64
    assert len(set(seen["student"])) >= steps
    assert set(seen["student"][-steps:]) <= set(seen["teacher"])


def test_without_a_cycle_the_run_says_why_nothing_is_cached(
    kdrun: Run, workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word for word in STRONG if word != "ui=quiet"]
    assert kdrun("distill", *words, "ui=plain", "epochs=1", "alone=false") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "teacher outputs are not cached" in said
    assert "augment.cycle=K" in said
