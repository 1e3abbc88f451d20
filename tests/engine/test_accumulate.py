"""Gradient accumulation: equal to one larger batch, and safe to stop anywhere."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from engine.test_loop import SCHEDULE, Plain, Watcher, run, same_weights, training, without_times
from torch import Tensor, nn
from torch.nn import functional as F

from kdrun.config.schema import ScheduleConfig
from kdrun.engine.loop import fit
from kdrun.engine.speed import images_seen
from kdrun.errors import Interrupted, TrainingError
from kdrun.recipes.lr_schedules import training_length
from kdrun.seeds import generator
from kdrun.types import Batch, StepOutput

BATCHES = replace(SCHEDULE, batch_size=4, accumulate=3)


class Clouds:
    """38 images in batches of `size`: with 4 the last batch has two images."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.batches_per_epoch = -(-38 // size)

    def epoch(self, epoch: int, first_batch: int = 0) -> Iterator[Batch]:
        draw = generator(0, "clouds", epoch)
        targets = torch.randint(2, (38,), generator=draw)
        images = torch.randn(38, 3, generator=draw) + 2.0 * targets[:, None] - 1.0
        for index in torch.arange(38).split(self.size)[first_batch:]:
            yield Batch(images[index], targets[index], index)


class NoStatistics(Plain):
    """A network whose samples do not meet, with two losses that are means over samples."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 2))
        self.after = 0

    def start_step(self, done: float) -> None:
        pass

    def after_step(self) -> None:
        self.after += 1

    def forward(self, batch: Batch) -> StepOutput:
        logits = self.net(batch.images)
        task = F.cross_entropy(logits, batch.targets)
        distill = logits.square().sum(1).mean()
        groups = {"task": task, "distill": distill}
        return StepOutput(task + distill, logits, {"ce": task.detach()}, groups)


def trained(
    folder: Path, schedule: ScheduleConfig, size: int, scheme: Plain | None = None
) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    scheme = scheme or NoStatistics()
    state = fit(scheme, training(folder, Watcher(), train=Clouds(size), schedule=schedule))
    return scheme.state_dict(), without_times(state.history)


@pytest.mark.parametrize(
    "changes",
    [{}, {"grad_clip": 0.1}, {"optimizer": "dot"}, {"optimizer": "adamw", "ema": 0.5}],
    ids=lambda changes: "-".join(map(str, changes.values())) or "sgd",
)
def test_it_equals_one_larger_batch(tmp_path: Path, changes: dict[str, Any]) -> None:
    """Ten batches of 4 (the last of 2) in steps of 12, 12, 12 and 2 images."""
    weights, rows = trained(tmp_path / "a", replace(BATCHES, **changes), 4)
    whole = replace(SCHEDULE, batch_size=12, **changes)
    expected, expected_rows = trained(tmp_path / "b", whole, 12)
    assert [row["step"] for row in rows] == [4, 8, 12, 16]
    for name, tensor in weights.items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-4, atol=1e-5)
    for row, other in zip(rows, expected_rows, strict=True):
        row.pop("phase")
        assert row == pytest.approx({name: other[name] for name in row}, rel=1e-4)


def test_half_precision_is_scaled_once_per_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the default scale overflows at first, and then skips steps
    scaler = partial(torch.amp.GradScaler, init_scale=16.0)
    monkeypatch.setattr("torch.amp.GradScaler", scaler)
    half = {"precision": "fp16", "grad_clip": 1.0}
    weights, _ = trained(tmp_path / "a", replace(BATCHES, **half), 4)
    expected, _ = trained(tmp_path / "b", replace(SCHEDULE, batch_size=12, **half), 12)
    for name, tensor in weights.items():
        torch.testing.assert_close(tensor, expected[name], rtol=0.05, atol=0.02)


def test_losses_are_told_after_every_batch(tmp_path: Path) -> None:
    scheme = NoStatistics()
    trained(tmp_path, BATCHES, 4, scheme)
    assert scheme.after == 4 * 10


def test_lengths_count_optimiser_steps() -> None:
    assert training_length(BATCHES, 10).steps == 16
    assert training_length(replace(BATCHES, steps=5), 10).epochs == 2
    assert training_length(replace(BATCHES, accumulate=50), 10).steps_per_epoch == 1
    assert images_seen(replace(BATCHES, steps=5), 38) == 60


@pytest.mark.parametrize("stop_at", [1, 2, 3])
def test_stopped_and_resumed_equals_uninterrupted(tmp_path: Path, stop_at: int) -> None:
    """Five batches per epoch in steps of 2, 2 and 1, with dropout and batch norm."""
    two = replace(SCHEDULE, accumulate=2, ema=0.9)
    expected, whole, _ = run(tmp_path / "whole", schedule=two)
    with pytest.raises(Interrupted):
        fit(Plain(), training(tmp_path / "part", Watcher(stop_at=stop_at), schedule=two))
    torch.rand(17)
    weights, state, _ = run(tmp_path / "part", schedule=two)
    assert same_weights(weights, expected)
    assert without_times(state.history) == without_times(whole.history)
    assert whole.step == 12


@pytest.mark.parametrize("killed_at", [2, 4, 9])
def test_killed_within_a_step_it_resumes_before_that_step(tmp_path: Path, killed_at: int) -> None:
    class KilledError(Exception):
        pass

    class Killed(Plain):
        batches = 0

        def forward(self, batch: Batch) -> StepOutput:
            self.batches += 1
            if self.batches == killed_at:
                raise KilledError
            return super().forward(batch)

    two = replace(SCHEDULE, accumulate=2)
    expected, _, _ = run(tmp_path / "whole", schedule=two)
    part = training(tmp_path / "part", Watcher(), schedule=two, checkpoint_seconds=-1.0)
    with pytest.raises(KilledError):
        fit(Killed(), part)
    weights, _, _ = run(tmp_path / "part", schedule=two)
    assert same_weights(weights, expected)


def test_a_loss_that_is_not_finite_names_the_step(tmp_path: Path) -> None:
    class Breaking(NoStatistics):
        batches = 0

        def forward(self, batch: Batch) -> StepOutput:
            self.batches += 1
            output = super().forward(batch)
            if self.batches < 5:  # the second batch of step 2
                return output
            bad = output.loss * float("nan")
            return StepOutput(bad, output.logits, {"ce": bad.detach()})

    with pytest.raises(TrainingError, match="epoch 1, step 2 of 16"):
        trained(tmp_path, BATCHES, 4, Breaking())
