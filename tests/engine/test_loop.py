"""The loop: what it optimises, what it keeps, and that stopping it anywhere changes nothing."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdrun.config.schema import ScheduleConfig
from kdrun.engine.checkpoint import CheckpointFolder
from kdrun.engine.interrupt import StopRequest
from kdrun.engine.loop import Training, fit
from kdrun.engine.metrics import EpochSums
from kdrun.engine.state import TrainState
from kdrun.errors import Interrupted, TrainingError
from kdrun.recipes.lr_schedules import TrainingLength
from kdrun.seeds import generator
from kdrun.types import Batch, StepOutput

CPU = torch.device("cpu")
SCHEDULE = ScheduleConfig(epochs=4, batch_size=8, lr=0.1, curve="cosine")


class Blobs:
    """Batches of two separable clouds; a pure function of the epoch."""

    batches_per_epoch = 5

    def epoch(self, epoch: int, first_batch: int = 0) -> Iterator[Batch]:
        for number in range(first_batch, self.batches_per_epoch):
            draw = generator(0, "blobs", epoch, number)
            targets = torch.randint(2, (8,), generator=draw)
            images = torch.randn(8, 3, generator=draw) + 2.0 * targets[:, None] - 1.0
            yield Batch(images, targets, torch.arange(8))


class Plain(nn.Module):
    """A network with dropout and batch norm, so that every kind of state matters."""

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.net = nn.Sequential(
            nn.Linear(3, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 2)
        )
        self.factor = factor
        self.epochs: list[tuple[int, int]] = []

    @property
    def network(self) -> nn.Module:
        return self.net

    @property
    def measured(self) -> nn.Module:
        return self.net

    def start_epoch(self, epoch: int, epochs: int) -> None:
        self.epochs.append((epoch, epochs))

    def start_step(self, done: float) -> None:
        pass

    def after_step(self) -> None:
        pass

    def forward(self, batch: Batch) -> StepOutput:
        logits = self.net(batch.images)
        loss = self.factor * F.cross_entropy(logits, batch.targets)
        return StepOutput(loss, logits, {"ce": loss.detach()})


@dataclass
class Watcher:
    """Remembers what the loop says; may ask it to stop at a step."""

    stop: StopRequest = field(default_factory=StopRequest)
    stop_at: int | None = None
    steps: int = 0
    rows: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def training_started(self, length: TrainingLength, state: TrainState) -> None:
        self.steps = state.step

    def step_done(self, batches: int, sums: EpochSums, images: int) -> None:
        self.steps += 1
        if self.steps == self.stop_at:
            self.stop.requested = True

    def epoch_done(self, row: dict[str, Any], length: TrainingLength) -> None:
        self.rows.append(row)

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def training(folder: Path, watcher: Watcher, **changes: Any) -> Training:
    base = Training(
        train=Blobs(),
        val=list(Blobs().epoch(99)),
        schedule=SCHEDULE,
        seed=1,
        device=CPU,
        checkpoints=CheckpointFolder(folder),
        checkpoint_seconds=1e9,
        observer=watcher,
        stop=watcher.stop,
        identity="test",
    )
    return replace(base, **changes)


def run(folder: Path, **changes: Any) -> tuple[dict[str, Tensor], TrainState, Watcher]:
    scheme, watcher = Plain(), Watcher()
    state = fit(scheme, training(folder, watcher, **changes))
    return scheme.state_dict(), state, watcher


def same_weights(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def without_times(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    times = ("epoch_seconds", "images_per_second")
    return [{name: row[name] for name in row if name not in times} for row in rows]


def test_it_learns_and_counts(tmp_path: Path) -> None:
    _, state, watcher = run(tmp_path)
    assert (state.step, state.epoch, state.images) == (20, 4, 160)
    assert [row["epoch"] for row in watcher.rows] == [1, 2, 3, 4]
    assert watcher.rows[-1]["train/loss"] < watcher.rows[0]["train/loss"]
    assert watcher.rows[-1]["val/top1_percent"] > 80
    assert state.best is not None
    assert state.best["val_top1"] == max(row["val/top1_percent"] for row in watcher.rows)


def test_it_equals_a_loop_written_out(tmp_path: Path) -> None:
    weights, _, _ = run(tmp_path, val=None)
    from kdrun.recipes.lr_schedules import learning_rates, training_length
    from kdrun.seeds import derive

    scheme = Plain()
    rates = learning_rates(SCHEDULE, training_length(SCHEDULE, 5))
    optimizer = torch.optim.SGD(scheme.parameters(), lr=1, momentum=0.9, weight_decay=5e-4)
    for epoch in range(4):
        torch.manual_seed(derive(1, "dropout", epoch))
        for number, batch in enumerate(Blobs().epoch(epoch)):
            optimizer.param_groups[0]["lr"] = rates[5 * epoch + number]
            optimizer.zero_grad()
            scheme(batch).loss.backward()
            optimizer.step()
    assert same_weights(weights, scheme.state_dict())


@pytest.mark.parametrize("stop_at", [1, 4, 5, 7, 10, 19])
def test_stopped_and_continued_equals_uninterrupted(tmp_path: Path, stop_at: int) -> None:
    expected, whole, _ = run(tmp_path / "whole")
    watcher = Watcher(stop_at=stop_at)
    with pytest.raises(Interrupted):
        fit(Plain(), training(tmp_path / "part", watcher))
    torch.rand(17)  # whatever the process does in between
    found, state, _ = run(tmp_path / "part")
    assert same_weights(found, expected)
    assert without_times(state.history) == without_times(whole.history)
    assert state.best == whole.best


def test_continued_from_a_state_saved_after_the_last_batch_of_an_epoch(tmp_path: Path) -> None:
    """With a save after every step, the newest state may hold a full epoch that is not closed."""
    expected, _, _ = run(tmp_path / "whole")

    class KilledError(Exception):
        pass

    class Killing(Watcher):
        def epoch_done(self, row: dict[str, Any], length: TrainingLength) -> None:
            if row["epoch"] == 2:
                raise KilledError

    killer = Killing()
    with pytest.raises(KilledError):
        fit(Plain(), training(tmp_path / "part", killer, checkpoint_seconds=-1.0))
    found, _, _ = run(tmp_path / "part")
    assert same_weights(found, expected)


def test_a_state_of_another_configuration_is_not_used(tmp_path: Path) -> None:
    run(tmp_path, identity="first")
    _, state, watcher = run(tmp_path, identity="second")
    assert "another configuration" in watcher.warnings[0]
    assert len(state.history) == 4


def test_steps_may_end_within_an_epoch(tmp_path: Path) -> None:
    _, state, watcher = run(tmp_path, schedule=replace(SCHEDULE, steps=7))
    assert (state.step, state.epoch) == (7, 2)
    assert watcher.rows[-1]["train/top1_percent"] <= 100.0


def test_a_loss_that_is_not_finite_stops_and_names_the_part(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"epoch 1.*ce"):
        fit(Plain(factor=float("nan")), training(tmp_path, Watcher()))
    assert not (tmp_path / "last.pt").exists()


def test_gradients_are_clipped(tmp_path: Path) -> None:
    plain, _, _ = run(tmp_path / "a")
    clipped, _, _ = run(tmp_path / "b", schedule=replace(SCHEDULE, grad_clip=1e-3))
    assert not same_weights(plain, clipped)


def test_validation_follows_eval_every(tmp_path: Path) -> None:
    _, _, watcher = run(tmp_path, schedule=replace(SCHEDULE, eval_every=3))
    assert ["val/loss" in row for row in watcher.rows] == [False, False, True, True]


def test_phases_share_one_state_and_finished_ones_are_skipped(tmp_path: Path) -> None:
    phases = ("first", "main")

    def both(stop_at: int | None, folder: Path) -> dict[str, Tensor]:
        scheme, watcher = Plain(), Watcher()
        rows = fit(scheme, training(folder, watcher, phase="first", phases=phases, seed=5)).history
        last = Watcher(stop_at=stop_at)
        state = fit(scheme, training(folder, last, phases=phases, earlier=tuple(rows)))
        assert [row["phase"] for row in state.history] == ["first"] * 4 + ["main"] * 4
        return scheme.state_dict()

    expected = both(None, tmp_path / "whole")
    with pytest.raises(Interrupted):
        both(8, tmp_path / "part")
    assert same_weights(both(None, tmp_path / "part"), expected)
