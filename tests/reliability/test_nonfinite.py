"""Networks that output NaN or infinity: teachers are refused, students have diverged."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from kdrun.cli.main import run
from kdrun.files import sha256_of
from tests.support import results

DATA = [
    "dataset=synthetic",
    "dataset.train_size=48",
    "dataset.test_size=24",
    "dataset.image_size=8",
    "dataset.num_classes=3",
    "threads=1",
    "device=cpu",
    "ui=plain",
]
TEACHER = ["teacher=cnn_tiny", "teacher.schedule.batch_size=16", "teacher.schedule.epochs=1"]
STUDENT = ["student=cnn_tiny", "batch_size=16", "epochs=1", "alone=false"]
Weights = dict[str, Tensor]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a trained teacher in the store."""
    monkeypatch.chdir(tmp_path)
    assert run(["train-teacher", *DATA, *TEACHER]) == 0
    (folder,) = Path("outputs/teachers").glob("*/*/")
    return folder


def first(weights: Weights, part: str) -> Tensor:
    return next(tensor for name, tensor in weights.items() if part in name)


def nan_weight(weights: Weights) -> None:
    first(weights, "weight").view(-1)[0] = float("nan")


def negative_variance(weights: Weights) -> None:
    first(weights, "running_var")[0] = -1.0


def nan_variance(weights: Weights) -> None:
    first(weights, "running_var")[0] = float("nan")


def overflow(weights: Weights) -> None:
    for name, tensor in weights.items():
        if name.endswith("weight"):
            tensor *= 1e18 if tensor.dim() > 1 else 1e14


DAMAGES: dict[str, tuple[Callable[[Weights], None], str]] = {
    "a weight": (nan_weight, r"weight has 1 NaN or infinite values"),
    "a negative variance": (negative_variance, r"running_var has 1 negative variances"),
    "a variance": (nan_variance, r"running_var has 1 NaN"),
    "finite weights": (overflow, r"24 of 24 test images: its weights are finite"),
}


def damage(folder: Path, change: Callable[[Weights], None]) -> Path:
    """Change the teacher of a folder as its trainer might have left it: the card fits."""
    weights = load_file(folder / "teacher.safetensors")
    change(weights)
    save_file(weights, folder / "teacher.safetensors")
    card = json.loads((folder / "teacher.json").read_text())
    card["sha256"] = sha256_of(folder / "teacher.safetensors")
    (folder / "teacher.json").write_text(json.dumps(card))
    (folder / "SHA256SUMS").unlink(missing_ok=True)
    return folder / "teacher.safetensors"


def failure(capsys: pytest.CaptureFixture[str], *words: str, verb: str = "distill") -> str:
    """The sentence of a command that is refused; its run says the same and has failed."""
    capsys.readouterr()
    code = run([verb, *DATA, *words])
    said = capsys.readouterr()
    assert code == 2, said
    assert "Traceback" not in said.err
    (result,) = results(Path("."), verb)
    assert result["status"] == "failed"
    assert " ".join(result["error"].split()) in " ".join(said.err.split())
    assert result.get("student") is None
    return str(result["error"])


@pytest.mark.parametrize("what", DAMAGES)
def test_a_teacher_of_the_store_is_refused(
    store: Path, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    change, words = DAMAGES[what]
    damage(store, change)
    error = failure(capsys, *TEACHER, *STUDENT)
    assert re.search(words, error), error
    assert str(store) in error
    assert not list(Path(".").glob("outputs/distill/*/*/*/metrics.jsonl"))


def test_a_teacher_from_a_bare_file_and_one_of_several(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = Path("mine.safetensors")
    bare.write_bytes(damage(store, nan_variance).read_bytes())
    words = ["teacher1=cnn_tiny", "teacher2=cnn_tiny", "teacher2.seed=1"]
    words += ["teacher.schedule.epochs=1", "teacher2.checkpoint=mine.safetensors"]
    error = failure(capsys, *words, *STUDENT, "output_root=outputs")
    assert "mine.safetensors" in error or str(store) in error
    assert "running_var" in error


@pytest.mark.parametrize("deployed", ["teacher.precision=fp16", "teacher.cache_dtype=float16"])
def test_a_teacher_that_overflows_only_as_it_teaches(
    store: Path, capsys: pytest.CaptureFixture[str], deployed: str
) -> None:
    def large(weights: Weights) -> None:
        names = [name for name, tensor in weights.items() if tensor.dim() == 2]
        weights[names[-1]] *= 1e6

    damage(store, large)
    words = [*TEACHER, *STUDENT, "teacher.check_accuracy=false", deployed]
    if "cache" in deployed:
        words.append("teacher.cache=logits")
    error = failure(capsys, *words)
    assert "NaN or infini" in error


def test_a_teacher_that_fails_on_a_training_image_is_named(
    store: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from kdrun.models.cnn import ConvNet

    forward = ConvNet.forward

    def sometimes(self: Any, images: Tensor) -> Any:
        logits = forward(self, images)
        if self.training or not hasattr(self, "is_teacher"):
            return logits
        bright = images.flatten(1).mean(dim=1) > monkeypatched["limit"]
        return torch.where(bright[:, None], float("nan"), logits)

    monkeypatched = {"limit": 1e9}
    monkeypatch.setattr(ConvNet, "forward", sometimes)
    from kdrun.distillation import build

    original = build.prepare_teachers

    def prepare(*args: Any) -> Any:
        prepared = original(*args)
        for one in args[4]:
            one.network.is_teacher = True
        monkeypatched["limit"] = 0.0
        return prepared

    monkeypatch.setattr(build, "prepare_teachers", prepare)
    error = failure(capsys, *TEACHER, *STUDENT, "teacher.cache=off")
    assert "teacher.safetensors" in error
    assert "training images" in error


def diverged(capsys: pytest.CaptureFixture[str], *words: str, verb: str = "distill") -> str:
    capsys.readouterr()
    code = run([verb, *DATA, *words])
    said = capsys.readouterr()
    assert code == 1, said
    assert "Traceback" not in said.err
    found = results(Path("."), verb)
    assert {one["status"] for one in found} == {"failed"}
    return str(found[-1]["error"])


def test_a_student_that_is_not_finite_on_images_has_diverged(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Batch normalisation keeps the training loss finite; the validation images are not."""
    words = [*TEACHER, "student=torchvision", "student.architecture=resnet18", "batch_size=16"]
    words += ["schedule.steps=3", "lr=1e3", "alone=false"]
    error = diverged(capsys, *words)
    assert error.startswith("Diverged: the student outputs NaN or infinity for")
    assert "lower lr, schedule.grad_clip=1, or more epochs or steps" in error
    (metrics,) = Path(".").glob("outputs/distill/*/*/*/metrics.jsonl")
    assert json.loads(metrics.read_text())["train/loss"] > 0
    error = diverged(capsys, *words, "val_fraction=0", "output_root=outputs")
    assert "test images" in error


def test_a_baseline_and_a_teacher_in_training_that_diverge_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["teacher=torchvision", "teacher.architecture=resnet18", "teacher.schedule.steps=3"]
    words += ["teacher.schedule.lr=1e3", "teacher.schedule.batch_size=16"]
    error = diverged(capsys, *words, verb="train-teacher")
    assert "teacher.schedule.lr" in error
    assert "the teacher in training" in error


def test_a_batch_of_one_image_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["teacher=torchvision", "teacher.architecture=resnet18", "teacher.schedule.steps=3"]
    assert run(["train-teacher", *DATA, *words, "teacher.schedule.batch_size=1"]) == 2
    assert "teacher.schedule.batch_size=2" in " ".join(capsys.readouterr().err.split())


def test_a_finished_network_that_is_not_finite_is_refused(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    damage(store, nan_weight)
    capsys.readouterr()
    Image.new("RGB", (8, 8)).save("x.png")
    for verb, words in (
        ("evaluate", ("ui=quiet",)),
        ("export", ("format=safetensors", "latency=false", "ui=quiet")),
        ("predict", ("x.png",)),
    ):
        assert run([verb, f"run={store}", *words]) == 2, verb
        said = capsys.readouterr().err
        assert "weight has 1 NaN" in " ".join(said.split()), said
        assert "Traceback" not in said
    assert not (store / "export").exists()
