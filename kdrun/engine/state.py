"""Everything of a training that must survive a crash, in one place."""

from dataclasses import dataclass, field, fields
from typing import Any

from torch import Tensor

PART = "part/"  # what the names of the objective's parts begin with among an epoch's sums


@dataclass
class TrainState:
    """Where a training stands. What is not here is rebuilt from the configuration.

    phase: name of the phase in hand; earlier phases are finished.
    epoch: epochs finished. batch: batches done in the epoch after them. step: optimiser steps done.
    sums: running sums of the epoch in hand (see `EpochSums`).
    history: one row per finished epoch, names with split and unit.
    best: {"epoch", "val_top1"} of the epoch best on the validation split, and its weights.
    watched: {"epoch", "value"} of the best validation figure that early stopping has seen.
    stopped_early: it has run out of patience; training is over.
    seconds, data_seconds: spent training, and waiting for data within that.
    images: training images seen; epoch_seconds, epoch_images: those of the epoch in hand.
    """

    phase: str = "main"
    epoch: int = 0
    batch: int = 0
    step: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, Any] | None = None
    best_weights: dict[str, Tensor] | None = None
    watched: dict[str, Any] | None = None
    stopped_early: bool = False
    seconds: float = 0.0
    data_seconds: float = 0.0
    images: int = 0
    epoch_seconds: float = 0.0
    epoch_images: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Plain containers and tensors, loadable without pickle's code."""
        return {item.name: getattr(self, item.name) for item in fields(self)}

    def row(self, totals: dict[str, float], lr: float, labelled: bool) -> dict[str, Any]:
        """The line of the epoch in hand, which has just seen its last batch.

        totals: sums over its images. lr: of its last step. labelled: its images have labels.
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
