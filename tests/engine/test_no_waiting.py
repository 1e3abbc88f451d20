"""Within an epoch nothing reads a number back, which a GPU would have to be waited for."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from kdrun.config.schema import AugmentConfig, LossConfig, ScheduleConfig
from kdrun.data.images import Split
from kdrun.data.loaders.loaders import TrainLoader
from kdrun.engine.checkpoint import CheckpointFolder
from kdrun.engine.interrupt import StopRequest
from kdrun.engine.loop import Training
from kdrun.engine.measured_loop import MeasuredLoop, Repeated
from kdrun.engine.optim import build_optimizer
from kdrun.errors import Interrupted
from kdrun.losses.objective import build_objective
from kdrun.models.cnn import ConvNet
from kdrun.models.features.taps import FeatureExtractor
from kdrun.schemes.offline import Offline
from kdrun.types import Batch, Normalisation

# What copies a number, or the size of a result, from the device to the host.
WAITING = ("_local_scalar_dense", "nonzero", "equal", "item", "masked_select", "unique")


class Reads(TorchDispatchMode):
    """Notes every operation for which a GPU would be waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name = func.overloadpacket.__name__
        if name in WAITING:
            self.found.append(name)
        if name == "index" and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        ):
            self.found.append("index by a mask")
        return func(*args, **(kwargs or {}))


class Watcher:
    """An observer that keeps nothing."""

    def training_started(self, *_: object) -> None: ...
    def step_done(self, *_: object) -> None: ...
    def epoch_done(self, *_: object) -> None: ...
    def warn(self, text: str) -> None: ...


KD = LossConfig("kd", "kdrun.losses.kd.SoftTargets", 0.9, {"temperature": 4.0})


def loop(checkpoints: CheckpointFolder | None = None, **schedule: Any) -> MeasuredLoop:
    torch.manual_seed(0)
    student, teacher = (ConvNet(num_classes=5, in_channels=3, widths=[w]) for w in (4, 8))
    objective = build_objective({"kd": KD}, None, None, None, None)
    pixels = torch.randint(256, (64, 3, 8, 8)).to(torch.uint8)
    loader = TrainLoader(
        Split(pixels, torch.arange(64) % 5),
        Normalisation((0.5,) * 3, (0.2,) * 3),
        16,
        AugmentConfig(2, True),
        0,
        "cpu",
        resident=True,
    )
    training = Training(
        train=Repeated(loader, 4, 4),
        val=None,
        schedule=ScheduleConfig(**schedule),
        seed=0,
        device=torch.device("cpu"),
        checkpoints=checkpoints,
        checkpoint_seconds=float("inf"),
        observer=Watcher(),
        stop=StopRequest(),
        identity="",
    )
    return MeasuredLoop(
        Offline(FeatureExtractor(student), [FeatureExtractor(teacher)], objective), training
    )


@pytest.mark.parametrize(
    "schedule", [{}, {"precision": "bf16"}, {"grad_clip": 1.0}, {"max_norm": 0.5}]
)
def test_an_epochs_steps_read_nothing_back(schedule: dict[str, Any]) -> None:
    measured = loop(**schedule)
    measured.block()
    with Reads() as reads:
        measured.block()
    assert reads.found == []


def test_a_measured_loop_that_is_stopped_saves_nothing(tmp_path: Path) -> None:
    measured = loop(CheckpointFolder(tmp_path / "checkpoints"))
    measured.block()
    measured._fit.training.stop.requested = True
    with pytest.raises(Interrupted):
        measured.block()
    assert list(tmp_path.iterdir()) == []


def test_closing_repeated_batches_ends_their_loader() -> None:
    ended = []

    class Source:
        batches_per_epoch = 2

        def epoch(self, epoch: int, first_batch: int = 0) -> Iterator[Batch]:
            try:
                while True:
                    yield Batch(torch.zeros(1, 1), torch.zeros(1), torch.zeros(1))
            finally:
                ended.append(epoch)

    batches = Repeated(Source(), 2, 1)
    next(batches.epoch(0))
    assert ended == []
    batches.close()
    assert ended == [0]


def test_the_watcher_would_notice() -> None:
    with Reads() as reads:
        float(torch.zeros(1).sum())
        torch.arange(3)[torch.tensor([True, False, True])]
    assert reads.found == ["_local_scalar_dense", "index by a mask"]


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_on_a_gpu_the_optimiser_is_one_kernel(name: str) -> None:
    from torch._subclasses import FakeTensorMode

    schedule = ScheduleConfig(optimizer=name)
    with FakeTensorMode():  # tensors of a GPU that need not be there
        on_gpu = [torch.nn.Parameter(torch.empty(2, 2, device="cuda"))]
        assert build_optimizer(on_gpu, schedule).defaults["fused"] is True
    on_cpu = [torch.nn.Parameter(torch.empty(2, 2))]
    assert build_optimizer(on_cpu, schedule).defaults["fused"] is None
