"""A run that is stopped within an epoch and resumed ends bit for bit as one that was not.

Under every augmentation policy, with every kind of mixing and every setting that draws random
numbers for images.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support import SMALL

from kdrun.cli.main import run
from kdrun.engine.checkpoint import CheckpointFolder, read_checkpoint

WORDS = [
    *(word for word in SMALL if not word.startswith(("epochs", "teacher.", "dataset.train_size"))),
    "dataset.train_size=112",  # seven batches of 16
    "val_fraction=0",
    "batch_size=16",
    "epochs=2",
    "alone=false",
    "student.widths=[4,8]",
    "teacher.schedule.epochs=1",
    "checkpoint_steps=5",
]
POLICIES = ("none", "crop_flip", "imagenet", "randaugment", "autoaugment", "trivialaugment")
POLICIES += ("three_augment", "deit", "timm_a2", "timm_a3")
UNMIXED = {"mixup.alpha": 0, "cutmix.alpha": 0, "switch_prob": 0.5}
MIXUP = {"mixup.alpha": 0.4, "cutmix.alpha": 0, "switch_prob": 0.5}
CUTMIX = {"mixup.alpha": 0, "cutmix.alpha": 1, "cutmix.prob": 0.5, "switch_prob": 0.5}
BOTH = {"mixup.alpha": 0.8, "cutmix.alpha": 1}
REPEATED, ACCUMULATED = "schedule.repeated_augmentation=3", "schedule.accumulate=2"
EMA, STREAMED = "schedule.ema=0.9", "dataset.resident=false"
# (settings of `augment`, other settings)
RECIPES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "as it is": ({}, []),
    "mixup": ({**MIXUP, "erasing.prob": 0.5, "erasing.mode": "const"}, [EMA]),
    "cutmix": (
        {**CUTMIX, "erasing.prob": 0.5, "erasing.mode": "rand", "cycle": 2},
        [ACCUMULATED],
    ),
    "both": (
        {**BOTH, "erasing.prob": 0.5, "erasing.mode": "pixel", "teacher_view": "weak"},
        [REPEATED, STREAMED],
    ),
    "fixed": ({**UNMIXED, "teacher_view": "fixed"}, [EMA, ACCUMULATED, REPEATED]),
    "independent": ({**UNMIXED, "teacher_view": "independent", "cycle": 2}, [STREAMED]),
    "everything": ({**BOTH, "erasing.prob": 0.5, "cycle": 3}, [EMA, ACCUMULATED, REPEATED]),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A current folder for all cases, so that the teacher is trained once."""
    with pytest.MonkeyPatch.context() as patch:
        path = tmp_path_factory.mktemp("runs")
        patch.chdir(path)
        yield path


def new_run(folder: Path, *words: str) -> tuple[int, Path]:
    """(exit code, folder) of a run."""
    before = set(folder.glob("outputs/distill/*/*/*"))
    code = run(["distill", *words])
    (path,) = set(folder.glob("outputs/distill/*/*/*")) - before
    return code, path


def stopped_run(folder: Path, saves: int, *words: str) -> Path:
    """The folder of a run that is interrupted in its second epoch, after some of its saves."""
    save, counted = CheckpointFolder.save, []

    def stop(self: CheckpointFolder, payload: dict[str, Any]) -> None:
        save(self, payload)
        counted.append(self.folder)
        if len(counted) == saves:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CheckpointFolder, "save", stop)
        code, path = new_run(folder, *words)
    assert code == 130
    state = read_checkpoint(counted[-1] / "last.pt")["state"]
    assert state["epoch"] == 1
    assert 0 < state["batch"] < 7
    return path


def check(folder: Path, policy: str, recipe: str) -> None:
    settings, others = RECIPES[recipe]
    words = [*WORDS, *others, f"augment={policy}"]
    words += [f"augment.{name}={value}" for name, value in settings.items()]
    code, whole = new_run(folder, *words)
    assert code == 0
    # saved after step 1 and every fifth; an epoch has seven steps, or four with `accumulate`
    stopped = stopped_run(folder, 2 if ACCUMULATED in others else 3, *words)
    assert run(["resume", str(stopped)]) == 0
    files = sorted(path.name for path in whole.glob("student*.safetensors"))
    assert len(files) == (2 if EMA in others else 1)
    for name in files:
        expected, resumed = load_file(whole / name), load_file(stopped / name)
        assert expected.keys() == resumed.keys()
        for key, tensor in expected.items():
            assert torch.equal(resumed[key], tensor), (name, key)


def test_a_resumed_run_of_deits_recipe_ends_alike(folder: Path) -> None:
    check(folder, "deit", "everything")


@pytest.mark.heavy
@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("policy", POLICIES)
def test_a_resumed_run_ends_alike(folder: Path, policy: str, recipe: str) -> None:
    check(folder, policy, recipe)
