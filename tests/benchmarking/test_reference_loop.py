"""The usual loop does the same mathematics as the tool's own."""

import copy
import importlib.util
import sys
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn

from benchmarks.reference.images import PilImages, are_files, usual_batches
from benchmarks.reference.loop import UsualLoop
from benchmarks.reference.variant import loader_workers, usual_forward
from kdrun.config.augment import MixConfig
from kdrun.config.schema import AugmentConfig, LossConfig, ScheduleConfig
from kdrun.data.decoding.image import DecodedImages, Form
from kdrun.data.images import Split
from kdrun.data.loaders.loaders import Normaliser
from kdrun.engine.interrupt import StopRequest
from kdrun.engine.loop import Training
from kdrun.engine.measured_loop import MeasuredLoop, Repeated
from kdrun.engine.optim import build_optimizer
from kdrun.engine.timing import PhaseClock
from kdrun.errors import ConfigError
from kdrun.losses.base import DistillationLoss, LossContext, NetworkView
from kdrun.losses.ce import CrossEntropy
from kdrun.losses.objective import build_objective
from kdrun.models.cnn import ConvNet
from kdrun.models.features.taps import FeatureExtractor
from kdrun.schemes.offline import Offline
from kdrun.types import Batch, Mixture, Normalisation

KD = LossConfig("kd", "kdrun.losses.kd.SoftTargets", 0.9, {"temperature": 4.0})
CRD = LossConfig("crd", "kdrun.losses.crd.ContrastiveDistillation", 0.8, {"negatives": 40})
SP = LossConfig("sp", "kdrun.losses.sp.SimilarityPreserving", 10.0, {"taps": ["stage1"]})
CPU = torch.device("cpu")
SCHEDULE = ScheduleConfig(lr=0.1, curve="constant")


class Batches:
    """Five seeded batches, the same in every epoch."""

    batches_per_epoch = 5

    def epoch(self, epoch: int, first_batch: int = 0):  # type: ignore[no-untyped-def]
        draw = torch.Generator().manual_seed(0)
        for number in range(self.batches_per_epoch):
            images = torch.randn(16, 1, 8, 8, generator=draw)
            targets = torch.randint(5, (16,), generator=draw)
            yield Batch(images, targets, torch.arange(16) + 16 * number)


class Watcher:
    """An observer that keeps nothing."""

    def training_started(self, *_: object) -> None: ...
    def step_done(self, *_: object) -> None: ...
    def epoch_done(self, *_: object) -> None: ...
    def warn(self, text: str) -> None: ...


def scheme(loss: dict[str, LossConfig]) -> Offline:
    torch.manual_seed(0)
    student: nn.Module = ConvNet(num_classes=5, in_channels=1, widths=[4])
    teacher: nn.Module = ConvNet(num_classes=5, in_channels=1, widths=[8])
    objective = build_objective(loss, None, None, None, None)
    names = ["stage1"] if "sp" in loss else []
    embedding = "crd" in loss
    if embedding:
        build_crd(objective.loss_list()[0], student, teacher)
    for term in objective.loss_list():
        term.pairs = [("stage1", "stage1")]
    extractor = [
        FeatureExtractor(network, names, embedding=embedding) for network in (student, teacher)
    ]
    return Offline(extractor[0], [extractor[1]], objective)


def build_crd(term: DistillationLoss, student: nn.Module, teacher: nn.Module) -> None:
    dry = [
        FeatureExtractor(network, embedding=True)(torch.zeros(2, 1, 8, 8))
        for network in (student, teacher)
    ]
    views = [NetworkView(network, {}) for network in (student, teacher)]
    term.build(*dry, LossContext(5, 80, torch.arange(80) % 5, 16, 0, *views))


@pytest.mark.parametrize(
    "loss",
    [{"kd": KD}, {"crd": CRD}, {"sp": SP}],
    ids=["soft targets written out", "crd with all rows gathered", "through the terms"],
)
def test_it_reaches_the_loss_of_the_tools_loop_on_the_same_batches(
    loss: dict[str, LossConfig],
) -> None:
    tool = scheme(loss)
    other = copy.deepcopy(tool)
    training = Training(
        train=Repeated(Batches(), 5, 5),
        val=None,
        schedule=SCHEDULE,
        seed=0,
        device=CPU,
        checkpoints=None,
        checkpoint_seconds=float("inf"),
        observer=Watcher(),
        stop=StopRequest(),
        identity="",
    )
    loop = MeasuredLoop(tool, training)
    other.train()
    optimizer = build_optimizer(other.parameters(), SCHEDULE)
    clock = PhaseClock(CPU)
    usual = UsualLoop(usual_forward(other, clock), optimizer, CPU, clock)
    for _ in range(4):  # twenty steps
        loop.block()
        for batch in Batches().epoch(0):
            usual.step(batch)
    assert usual.loss_sum == pytest.approx(loop.loss_sum(), rel=1e-4)
    first = scheme(loss)
    assert not torch.equal(first.network.fc.weight, tool.network.fc.weight)
    for own, found in zip(tool.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(own, found, rtol=1e-3, atol=1e-5)


def test_images_in_memory_have_workers_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = torch.device("cuda")
    for cpus, workers in ((1, 0), (4, 3), (64, 8)):
        monkeypatch.setattr("os.cpu_count", lambda cpus=cpus: cpus)
        assert loader_workers(gpu, 2, from_files=False) == workers
    assert loader_workers(CPU, 2, from_files=False) == 0
    assert loader_workers(gpu, 2, from_files=True) == 2


def test_its_images_are_those_of_the_tool() -> None:
    pixels = torch.randint(256, (6, 3, 8, 8), generator=torch.Generator().manual_seed(0))
    split = Split(pixels.to(torch.uint8), torch.arange(6))
    normalisation = Normalisation((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    (batch,) = (next(usual_batches(split, AugmentConfig(), normalisation, 6)),)
    own = Normaliser(normalisation, torch.uint8, CPU, torch.contiguous_format)(split.images)
    torch.testing.assert_close(batch.images, own[batch.index], rtol=1e-6, atol=1e-6)
    assert batch.targets.tolist() == batch.index.tolist()
    assert sorted(batch.index.tolist()) == list(range(6))


def test_values_that_are_no_photographs_are_refused() -> None:
    split = Split(torch.zeros(2, 1, 4, 4), torch.arange(2))
    with pytest.raises(ConfigError, match="leave 'usual' out"):
        PilImages(split, AugmentConfig(), Normalisation((0.0,), (1.0,)))


GREY = Normalisation((0.0,) * 3, (1.0,) * 3)
POLICIES = ("randaugment", "trivialaugment", "autoaugment_cifar10", "three_augment")


@pytest.mark.parametrize("policy", [*POLICIES, "timm_randaugment"])
def test_the_usual_loop_draws_the_libraries_policies(policy: str) -> None:
    if policy == "timm_randaugment":
        pytest.importorskip("timm")
    pixels = torch.randint(256, (6, 3, 16, 16), dtype=torch.uint8)
    split = Split(pixels, torch.zeros(6, dtype=torch.int64))
    augment = AugmentConfig(crop="resized", flip=True, policy=policy)
    images = next(usual_batches(split, augment, GREY, 6)).images
    assert images.shape == (6, 3, 16, 16)
    plain = next(usual_batches(split, AugmentConfig(), GREY, 6)).images
    assert not torch.equal(images, plain)


def test_timms_policy_needs_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    split = Split(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64))
    monkeypatch.setitem(sys.modules, "timm", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="leave 'usual' out of compare"):
        PilImages(split, AugmentConfig(policy="timm_randaugment"), GREY)


@pytest.mark.parametrize(
    "mixing",
    [
        {"mixup": MixConfig(0.8)},
        {"cutmix": MixConfig(1.0)},
        {"mixup": MixConfig(0.8), "cutmix": MixConfig(1.0), "switch_prob": 0.0},
    ],
    ids=["mixup", "cutmix", "both"],
)
def test_batches_are_mixed_as_torchvision_does(mixing: dict[str, Any]) -> None:
    levels = torch.arange(1, 7, dtype=torch.uint8) * 40  # one grey level per image and class
    split = Split(levels.view(6, 1, 1, 1).repeat(1, 3, 16, 16), torch.arange(6))
    augment = AugmentConfig(**mixing)
    batches = usual_batches(split, augment, GREY, 6, num_classes=6)
    for batch, _ in zip(batches, range(3), strict=False):
        assert batch.mixture is not None
        assert torch.equal(batch.mixture.targets, batch.targets.roll(1))
        share = batch.mixture.share
        own, partner = (levels[t] / 255 for t in (batch.targets, batch.mixture.targets))
        # the mean pixel has the labels' shares, of a mixture and of a pasted box
        mean = batch.images.mean(dim=(1, 2, 3))
        torch.testing.assert_close(mean, share * own + (1 - share) * partner)
    unmixed = replace(augment, mixup=MixConfig(), cutmix=MixConfig(1.0, prob=1e-9))
    assert next(usual_batches(split, unmixed, GREY, 6, num_classes=6)).mixture is None


def test_mixed_batches_reach_the_loss_of_the_tool() -> None:
    own = scheme({"kd": KD})
    (batch,) = islice(Batches().epoch(0), 1)
    mixed = replace(batch, mixture=Mixture(batch.targets.roll(1), torch.full((16,), 0.3)))
    loss, _ = usual_forward(copy.deepcopy(own).train(), PhaseClock(CPU))(mixed)
    assert loss.item() == pytest.approx(own.train()(mixed).loss.item(), rel=1e-5)


def test_bce_is_not_taken_for_ce() -> None:
    own = scheme({"kd": KD})
    own.objective.ce = CrossEntropy(kind="bce")
    (batch,) = islice(Batches().epoch(0), 1)
    loss, _ = usual_forward(copy.deepcopy(own).train(), PhaseClock(CPU))(batch)
    assert loss.item() == pytest.approx(own.train()(batch).loss.item(), rel=1e-5)


def test_streamed_files_are_decoded_by_the_usual_loop(tmp_path: Path) -> None:
    levels = (40, 80, 120, 160)
    for number, level in enumerate(levels):
        Image.new("RGB", (20, 12), (level,) * 3).save(tmp_path / f"{number}.png")
    names = [tmp_path / f"{number}.png" for number in range(4)]
    split = Split(DecodedImages(names, Form((8, 8), 3)), torch.arange(4))
    assert are_files(split)
    assert not are_files(Split(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), torch.zeros(1)))
    for augment in (AugmentConfig(1, True), AugmentConfig(crop="resized", interpolation="random")):
        batch = next(usual_batches(split, augment, GREY, 4, from_files=True))
        assert batch.images.shape == (4, 3, 8, 8)
        middle = batch.images[:, :, 4, 4] * 255
        expected = torch.tensor(levels).float()[batch.targets].view(-1, 1).expand(-1, 3)
        torch.testing.assert_close(middle, expected, atol=0.01, rtol=0)
