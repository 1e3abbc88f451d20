"""Averaged weights (`schedule.ema`) on disk: `<stem>_ema.safetensors` with their own card."""

from dataclasses import replace
from pathlib import Path

from kdrun.distillation.train import Trained
from kdrun.models.card import NetworkCard, save_weights
from kdrun.teachers.formats import averaged_stem


def save_averaged(folder: Path, stem: str, trained: Trained, card: NetworkCard) -> None:
    """Write the averaged weights of a training, if it has any.

    card: of the raw weights; metrics that were only measured for these are left out.
    """
    weights, ema = trained.state.averaged, trained.ema
    if weights is None or ema is None:
        return
    measured = {name: value for name, value in ema.items() if name.startswith("test")}
    raw_only = ("ema", "best_val", "errors_per_class")
    extra = {name: value for name, value in card.extra.items() if name not in raw_only}
    extra |= measured | {"ema_decay": ema["decay"]}
    save_weights(folder, averaged_stem(stem), weights, replace(card, extra=extra))
