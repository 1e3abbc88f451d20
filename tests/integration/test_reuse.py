"""A trained network is reused only while nothing that shaped it has changed."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from support import SMALL, results

from kdrun.deploy.student import load
from kdrun.engine.loop import _Fit

Run = Callable[..., int]

TEACHER = [word for word in SMALL if not word.startswith("epochs")]
NETS = """
import torch
from torch import nn

def pool(x):
    return x.mean((2, 3))

class Mine(nn.Module):
    def __init__(self, num_classes, in_channels):
        super().__init__()
        self.body = nn.Conv2d(in_channels, 6, 3, padding=1)
        self.head = nn.Linear(6, num_classes)

    def forward(self, x):
        return self.head(pool(torch.relu(self.body(x))))
"""
LOSSES = """
from kdrun.losses.kd import SoftTargets

class Mine(SoftTargets):
    pass
"""


@pytest.fixture
def module(workdir: Path, request: pytest.FixtureRequest) -> Path:
    """A module of the user's networks, with a name that no other test has imported."""
    name = "".join(c for c in request.node.name if c.isalnum())
    path = workdir / f"nets_{name}.py"
    path.write_text(NETS)
    return path


def edit(path: Path, old: str = "mean(", new: str = "amax(") -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def network(module: Path, role: str = "student") -> list[str]:
    return [f"{role}=custom", f"{role}._target_={module.stem}.Mine"]


def test_an_edited_student_is_retrained_and_so_is_its_baseline(
    kdrun: Run, workdir: Path, module: Path
) -> None:
    words = ["distill", "-m", *SMALL, *network(module), "T=1,4"]
    assert kdrun(*words) == 0
    assert len(results(workdir)) == 3
    assert kdrun(*words) == 0
    assert len(results(workdir)) == 3  # nothing new
    edit(module, "import torch\n", "import torch  # a comment\n")
    assert kdrun(*words) == 0
    assert len(results(workdir)) == 3
    edit(module)
    assert kdrun(*words) == 0
    assert len(results(workdir)) == 6
    assert {tuple(one["code"]) for one in results(workdir)} == {(f"{module.stem}.Mine",)}
    assert len({one["code"][f"{module.stem}.Mine"] for one in results(workdir)}) == 2
    assert len(list(workdir.glob("outputs/teachers/*/*/teacher.json"))) == 1


def test_an_edited_teacher_is_retrained(kdrun: Run, workdir: Path, module: Path) -> None:
    words = ["train-teacher", *TEACHER, *network(module, "teacher")]
    assert kdrun(*words) == 0
    edit(module)
    assert kdrun(*words) == 0
    first, second = results(workdir, "train-teacher")
    assert [one["teachers"][0]["reused"] for one in (first, second)] == [False, False]


def test_an_edited_loss_leaves_the_baseline(kdrun: Run, workdir: Path, module: Path) -> None:
    module.write_text(LOSSES)
    folder = workdir / "my" / "loss"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text(f"mine:\n  _target_: {module.stem}.Mine\n  weight: 1.0\n")
    words = ["distill", "-m", *SMALL, "--config-dir", "my", "loss=mine", "seed=0,1"]
    assert kdrun(*words) == 0
    assert len(results(workdir)) == 4
    edit(module, "pass", "extra = 1")
    assert kdrun(*words) == 0
    assert len(results(workdir)) == 6
    assert len({str(one["alone"]["run"]) for one in results(workdir) if one["teachers"]}) == 2


def test_weights_of_edited_code_are_used_with_a_warning(
    kdrun: Run, workdir: Path, module: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert kdrun("distill", *SMALL, *network(module), "alone=false") == 0
    (run,) = results(workdir)
    words = ["evaluate", f"run={run['folder']}", "ui=plain", "threads=1"]
    told = f"The code of {module.stem}.Mine has been edited since these weights were trained."
    capsys.readouterr()
    assert kdrun(*words) == 0
    assert told not in capsys.readouterr().out
    edit(module)
    assert kdrun(*words) == 0
    assert told in " ".join(capsys.readouterr().out.split())
    image = workdir / "a.png"
    Image.new("RGB", (8, 8)).save(image)
    assert kdrun("predict", f"run={run['folder']}", str(image)) == 0
    assert told in " ".join(capsys.readouterr().err.split())
    teacher = [f"teacher.checkpoint={run['folder']}", "ui=plain", "alone=false", "epochs=1"]
    assert kdrun("distill", *SMALL, *teacher) == 0
    assert told in " ".join(capsys.readouterr().out.split())
    with pytest.warns(UserWarning, match="has been edited"):
        load(run["folder"])


def test_a_run_of_edited_code_continues_with_a_warning(
    kdrun: Run,
    workdir: Path,
    module: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    step, steps = _Fit._step, [0]

    def interrupt(self: Any, batch: Any) -> Any:
        steps[0] += 1
        if steps[0] > 3:
            raise KeyboardInterrupt
        return step(self, batch)

    words = [*SMALL, *network(module), "alone=false", "checkpoint_steps=1", "ui=plain"]
    assert kdrun("train-teacher", *TEACHER) == 0
    monkeypatch.setattr(_Fit, "_step", interrupt)
    assert kdrun("distill", *words) == 130
    monkeypatch.setattr(_Fit, "_step", step)
    edit(module)
    capsys.readouterr()
    (run,) = results(workdir)
    assert kdrun("resume", str(run["folder"])) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert f"The code of {module.stem}.Mine has been edited since this run began." in said
    assert "ignored" not in said  # its checkpoint was read
    assert "resum" in said


def photos(folder: Path, count: int, bright: bool = False) -> None:
    """Two classes of grey images that differ in brightness."""
    shutil.rmtree(folder, ignore_errors=True)
    draw = np.random.default_rng(count)
    for split, size in (("train", count), ("test", 10)):
        for label in (0, 1):
            place = folder / split / f"class{label}"
            place.mkdir(parents=True)
            for number in range(size):
                values = draw.integers(100 * label, 100 * label + 100, (8, 8)) // (1 + bright)
                Image.fromarray(values.astype(np.uint8)).save(place / f"{number}.png")


FOLDER = [
    "dataset=imagefolder",
    "dataset.root=photos",
    "val_fraction=0",
    "epochs=1",
    "teacher.schedule.epochs=1",
    "alone=false",
    "ui=quiet",
    "threads=1",
]


def test_labels_with_a_small_weight_are_no_baseline(kdrun: Run, workdir: Path) -> None:
    assert kdrun("distill", *SMALL, "loss=ce", "ce=0.1") == 0
    assert kdrun("distill", *SMALL) == 0
    weights = {str(one["ce"]) for one in results(workdir) if one["loss"] == ["ce"]}
    assert weights == {"0.1", "1.0"}


@pytest.mark.heavy
def test_generations_are_retrained_on_other_images(kdrun: Run, workdir: Path) -> None:
    words = ["distill", *FOLDER, "scheme=born_again", "scheme.generations=2"]
    photos(workdir / "photos", 12)
    assert kdrun(*words) == 0
    assert kdrun(*words) == 0

    def first_generations() -> list[str]:
        whole = [one for one in results(workdir) if one.get("generations")]
        return [one["generations"][0]["run"] for one in whole]

    one, again = first_generations()
    assert one == again
    photos(workdir / "photos", 20)
    assert kdrun(*words) == 0
    other = first_generations()[-1]
    assert other != one
    assert json.loads((Path(other) / "result.json").read_text())["dataset"]["train_size"] == 40


@pytest.mark.parametrize("changed", ["photos", "more"])
def test_an_interrupted_run_does_not_resume_with_other_images(
    kdrun: Run,
    workdir: Path,
    changed: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    photos(workdir / "photos", 12)
    photos(workdir / "more", 10)
    assert kdrun("train-teacher", *FOLDER[:3], *FOLDER[4:5], "ui=quiet") == 0

    def interrupt(self: Any, batch: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(_Fit, "_step", interrupt)
        assert kdrun("distill", *FOLDER, "transfer.folder=more", "alpha=1") == 130
    kept = shutil.copytree(workdir / changed, workdir / "kept")
    photos(workdir / changed, 12, bright=True)
    (run,) = results(workdir)
    capsys.readouterr()
    assert kdrun("resume", str(run["folder"])) == 2
    said = capsys.readouterr().err
    assert "have changed since this run began" in said
    assert ("transfer.folder=more" if changed == "more" else "photos") in said
    shutil.rmtree(workdir / changed)
    shutil.copytree(kept, workdir / changed)
    assert kdrun("resume", str(run["folder"])) == 0


@pytest.mark.heavy
def test_jobs_are_retrained_on_other_transfer_images(kdrun: Run, workdir: Path) -> None:
    photos(workdir / "photos", 12)
    photos(workdir / "more", 10)
    words = ["distill", "-m", *FOLDER, "transfer.folder=more", "alpha=1", "T=1,4"]
    assert kdrun(*words) == 0
    assert kdrun(*words) == 0
    assert len(results(workdir)) == 2
    photos(workdir / "more", 10, bright=True)
    assert kdrun(*words) == 0
    assert len(results(workdir)) == 4
    fingerprints = [one["transfer"]["fingerprint"] for one in results(workdir)]
    assert len(set(fingerprints)) == 2


def test_a_pruned_student_takes_the_teachers_classes_in_the_order_of_the_data(
    kdrun: Run, workdir: Path
) -> None:
    pytest.importorskip("torch_pruning")
    photos(workdir / "photos", 12)
    words = ["distill", *FOLDER, "student=pruned", "schedule.lr=1e-12"]
    assert kdrun("train-teacher", *FOLDER[:3], *FOLDER[4:5], "teacher=resnet8", "ui=quiet") == 0
    (trained,) = results(workdir, "train-teacher")
    plain = workdir / "plain.safetensors"  # without its card
    shutil.copy(trained["teachers"][0]["checkpoint"], plain)
    read = ["teacher=resnet8", f"teacher.checkpoint={plain}", "teacher.mean=[0]", "teacher.std=[1]"]
    read += ["teacher.check_accuracy=false"]
    assert kdrun(*words, *read, "teacher.classes=[0,1]") == 0
    assert kdrun(*words, *read, "teacher.classes=[1,0]") == 0
    same, swapped = (load_file(r["pruned_from"]["weights"]) for r in results(workdir))
    torch.testing.assert_close(swapped["fc.bias"], same["fc.bias"].flip(0))
    torch.testing.assert_close(swapped["fc.weight"], same["fc.weight"].flip(0))


def test_another_file_of_the_same_name_is_another_teacher(
    kdrun: Run, workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, name in enumerate(("one", "two")):
        assert kdrun("train-teacher", *TEACHER, f"teacher.seed={number}") == 0
        trained = results(workdir, "train-teacher")[-1]["teachers"][0]["checkpoint"]
        shutil.copytree(Path(trained).parent, workdir / name)
    best = workdir / "best"
    shutil.copytree(workdir / "one", best)
    words = [*SMALL, "teacher.checkpoint=best", "alone=false"]
    assert kdrun("distill", "-m", *words, "T=1,4") == 0
    assert kdrun("distill", "-m", *words, "T=1,4") == 0
    assert len(results(workdir)) == 2
    shutil.rmtree(best)
    shutil.copytree(workdir / "two", best)
    assert kdrun("distill", "-m", *words, "T=1,4") == 0
    assert len(results(workdir)) == 4
    assert len({one["teacher_files"]["teacher.checkpoint"] for one in results(workdir)}) == 2
    one = results(workdir)[0]
    (one["folder"] / "result.json").write_text(
        json.dumps({**{k: v for k, v in one.items() if k != "folder"}, "status": "interrupted"})
    )
    (one["folder"] / "SHA256SUMS").unlink()
    capsys.readouterr()
    assert kdrun("resume", str(one["folder"])) == 2
    assert "teacher.checkpoint names have changed since this run began" in capsys.readouterr().err


def test_evaluation_warns_that_a_drawn_test_split_may_hold_training_images(
    kdrun: Run, workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos(workdir / "photos", 12)
    shutil.rmtree(workdir / "photos" / "test")
    assert kdrun("distill", *FOLDER, "loss=ce") == 0
    (run,) = results(workdir)
    words = ["evaluate", f"run={run['folder']}", "threads=1"]
    capsys.readouterr()
    assert kdrun(*words) == 0
    assert "it may have been trained on" not in " ".join(capsys.readouterr().out.split())
    more = np.random.default_rng(1).integers(0, 255, (8, 8))
    Image.fromarray(more.astype(np.uint8)).save(workdir / "photos/train/class0/more.png")
    assert kdrun(*words) == 0
    assert "it may have been trained on" in " ".join(capsys.readouterr().out.split())


def test_evaluation_warns_of_another_image_size(
    kdrun: Run, workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos(workdir / "photos", 12)
    assert kdrun("distill", *FOLDER, "loss=ce") == 0
    (run,) = results(workdir)
    words = ["evaluate", f"run={run['folder']}", *FOLDER[:2], "threads=1"]
    capsys.readouterr()
    assert kdrun(*words) == 0
    assert "was trained on images of" not in " ".join(capsys.readouterr().out.split())
    assert kdrun(*words, "dataset.image_size=16") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "was trained on images of 8×8 pixels and photos has 16×16: dataset.image_size=8 " in said


def test_evaluation_reads_images_as_in_training(kdrun: Run, workdir: Path) -> None:
    """The size and the range of deep pixels are chosen from all images, which may change."""
    draw = np.random.default_rng(0)

    def save(place: str, size: int, largest: int) -> None:
        path = workdir / "photos" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        values = draw.integers(largest // 2, largest, (size, size))
        Image.fromarray(values.astype(np.uint16)).save(path)

    for split, count in (("train", 12), ("test", 6)):
        for number in range(count):
            for label in (0, 1):
                save(f"{split}/class{label}/{number}.png", 8, (2000, 4000)[label])
    assert kdrun("distill", *FOLDER, "loss=ce") == 0
    (run,) = results(workdir)
    for number in range(60):
        save(f"train/class1/large{number}.png", 16, 65_000)
    assert kdrun("evaluate", f"run={run['folder']}", "threads=1") == 0
    (again,) = results(workdir, "evaluate")
    assert again["student"]["test"]["loss"] == pytest.approx(run["student"]["test"]["loss"])
