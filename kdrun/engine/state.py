"""Training progress that is saved in checkpoints."""

from dataclasses import dataclass, field, fields
from typing import Any

from torch import Tensor

PART = "part/"  # prefix of the objective's parts in an epoch's sums


@dataclass
class TrainState:
    """Progress of a training. Everything else is rebuilt from the configuration.

    phase: name of the current phase; earlier phases are finished.
    epoch: finished epochs. batch: finished batches of the current epoch. step: optimiser steps.
    sums: running sums of the current epoch (see `EpochSums`).
    history: one row of metrics per finished epoch; names contain split and unit.
    best: {"epoch", "val_top1"} of the best validation epoch; best_weights: its weights.
    averaged: the moving average of the network's weights, with `schedule.ema`.
    watched: {"epoch", "value"} of the best validation metric seen by early stopping.
    stopped_early: early stopping has ended the training.
    seconds: training time; data_seconds: the part of it spent waiting for data.
    images: training images processed. epoch_seconds, epoch_images: of the current epoch.
    """

    phase: str = "main"
    epoch: int = 0
    batch: int = 0
    step: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, Any] | None = None
    best_weights: dict[str, Tensor] | None = None
    averaged: dict[str, Tensor] | None = None
    watched: dict[str, Any] | None = None
    stopped_early: bool = False
    seconds: float = 0.0
    data_seconds: float = 0.0
    images: int = 0
    epoch_seconds: float = 0.0
    epoch_images: int = 0

    def as_dict(self) -> dict[str, Any]:
        """The fields by name: plain containers and tensors, loadable with `weights_only=True`."""
        return {item.name: getattr(self, item.name) for item in fields(self)}

    def row(self, totals: dict[str, float], lr: float, labelled: bool) -> dict[str, Any]:
        """Metrics row of the current epoch, after its last batch.

        totals: sums over its images. lr: of its last step. labelled: whether images have labels.
        """
        images = self.epoch_images
        row: dict[str, Any] = {
            "phase": self.phase,
            "epoch": self.epoch + 1,
            "step": self.step,
            "lr": lr,
            "train/loss": totals["loss"] / images,
        }
        if labelled:
            row["train/top1_percent"] = 100.0 * totals["correct"] / images
        for name, total in totals.items():
            if name.startswith(PART):
                row[f"train/{name.removeprefix(PART)}"] = total / images
        row["epoch_seconds"] = round(self.epoch_seconds, 3)
        row["images_per_second"] = round(images / max(self.epoch_seconds, 1e-9), 1)
        return row

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "TrainState":
        """The inverse of `as_dict`."""
        return cls(**values)
