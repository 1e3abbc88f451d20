"""A run that is stopped within an epoch and resumed ends bit for bit as one that was not.

Under every augmentation policy, with every kind of mixing and every setting that draws random
numbers for images.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file
from support import SMALL
from torch import Tensor

import kdrun
from kdrun.cli.main import run
from kdrun.config.augment import AugmentConfig, CropFlipConfig, fill_in
from kdrun.config.convert import from_plain
from kdrun.config.schema import LossConfig, ScheduleConfig
from kdrun.data.images import Split
from kdrun.data.loaders.loaders import TrainLoader
from kdrun.data.loaders.repeated import RepeatedLoader
from kdrun.engine.checkpoint import CheckpointFolder, read_checkpoint
from kdrun.engine.interrupt import StopRequest
from kdrun.engine.loop import Training, fit
from kdrun.engine.state import TrainState
from kdrun.errors import Interrupted
from kdrun.losses.objective import build_objective
from kdrun.models.cnn import ConvNet
from kdrun.models.features.taps import FeatureExtractor
from kdrun.schemes.offline import Offline
from kdrun.types import Normalisation

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
KD = LossConfig("kd", "kdrun.losses.kd.SoftTargets", 0.9, {"temperature": 4.0})
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


def assert_equal(ended: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert ended.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(ended[name], tensor), name


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
        assert_equal(load_file(stopped / name), load_file(whole / name))


@pytest.mark.heavy
@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("policy", POLICIES)
def test_a_resumed_run_ends_alike(folder: Path, policy: str, recipe: str) -> None:
    check(folder, policy, recipe)


class Watcher:
    """An observer that asks the loop to stop after a number of steps."""

    def __init__(self, steps: int | None) -> None:
        self.steps = steps
        self.stop = StopRequest()

    def training_started(self, length: object, state: TrainState) -> None: ...

    def step_done(self, *_: object) -> None:
        if self.steps is not None:
            self.steps -= 1
            self.stop.requested = self.steps == 0

    def epoch_done(self, *_: object) -> None: ...
    def warn(self, text: str) -> None: ...


def augmentation(policy: str, settings: dict[str, Any]) -> AugmentConfig:
    """The augmentation of `augment=policy` with some of its settings."""
    node = OmegaConf.load(Path(kdrun.__file__).parents[1] / f"configs/augment/{policy}.yaml")
    for name, value in settings.items():
        OmegaConf.update(node, name, value)
    plain = OmegaConf.to_container(node)
    assert isinstance(plain, dict)
    plain.pop("defaults")
    return from_plain(AugmentConfig, fill_in(plain, CropFlipConfig(1, True)), "augment")


def trained(policy: str, recipe: str, folder: Path, stop_after: int | None = None) -> TrainState:
    """Train, or resume in `folder`, two epochs of three batches; the state at the end."""
    settings, others = RECIPES[recipe]
    repeats = 3 if REPEATED in others else 1
    schedule = ScheduleConfig(
        epochs=2,
        batch_size=8,
        ema=0.9 if EMA in others else None,
        accumulate=2 if ACCUMULATED in others else 1,
    )
    torch.manual_seed(0)
    pixels = torch.randint(256, (24, 3, 8, 8)).to(torch.uint8)
    split = Split(pixels, torch.arange(24) % 5)
    loader: Any = TrainLoader(
        split,
        Normalisation((0.5,) * 3, (0.2,) * 3),
        8,
        augmentation(policy, settings),
        3,
        "cpu",
        resident=str(STREAMED not in others),
    )
    student, teacher = (ConvNet(num_classes=5, in_channels=3, widths=[w]) for w in (4, 8))
    objective = build_objective({"kd": KD}, 0.1, None, None, None)
    scheme = Offline(
        FeatureExtractor(student), [FeatureExtractor(teacher.requires_grad_(False))], objective
    )
    watcher = Watcher(stop_after)
    return fit(
        scheme,
        Training(
            train=RepeatedLoader(loader, repeats) if repeats > 1 else loader,
            val=None,
            schedule=schedule,
            seed=1,
            device=torch.device("cpu"),
            checkpoints=CheckpointFolder(folder),
            checkpoint_seconds=1e9,
            observer=watcher,
            stop=watcher.stop,
            identity="test",
        ),
    )


@pytest.mark.parametrize(
    ("policy", "recipe"),
    [
        *((policy, "everything") for policy in POLICIES),
        *(("deit", recipe) for recipe in ("both", "fixed")),
    ],
)
def test_a_resumed_loop_ends_alike(tmp_path: Path, policy: str, recipe: str) -> None:
    steps = 3 if ACCUMULATED in RECIPES[recipe][1] else 4  # in the second epoch
    whole = trained(policy, recipe, tmp_path / "whole")
    with pytest.raises(Interrupted):
        trained(policy, recipe, tmp_path / "cut", steps)
    state = read_checkpoint(tmp_path / "cut" / "last.pt")["state"]
    assert (state["epoch"], state["step"]) == (1, steps)
    assert 0 < state["batch"] < 3
    resumed = trained(policy, recipe, tmp_path / "cut")
    expected, ended = (read_checkpoint(tmp_path / name / "last.pt") for name in ("whole", "cut"))
    assert whole.step == resumed.step
    assert_equal(ended["scheme"], expected["scheme"])
    assert (whole.averaged is not None) == (EMA in RECIPES[recipe][1])
    assert_equal(ended["state"]["averaged"] or {}, expected["state"]["averaged"] or {})
