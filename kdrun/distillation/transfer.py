"""The transfer set of a run, and metrics of the classes it omits."""

from typing import Any

import torch
from torch import Tensor, nn

from kdrun.config.schema import (
    ALL_TRAINING_IMAGES,
    DistillConfig,
    TrainTeacherConfig,
    TransferConfig,
)
from kdrun.data.dataset import Dataset
from kdrun.data.images import Split
from kdrun.data.transfer import TransferSet, transfer_set
from kdrun.distillation.session import Session, eval_loader
from kdrun.engine.bias import error_curve, matching_shift, shifted
from kdrun.engine.metrics import collect_logits, errors_per_class, evaluation
from kdrun.errors import ConfigError


def open_transfer(config: DistillConfig, dataset: Dataset, session: Session) -> TransferSet:
    """Open the transfer set of a run, with progress on the screen."""
    cache = session.output_root / "cache"
    return session.once(
        ("transfer", config.transfer, config.dataset, config.val_fraction),
        lambda: transfer_set(
            dataset,
            config.transfer,
            cache,
            session.reporter.progress,
            config.dataset.duplicates,
        ),
    )


def transfer_to_dict(
    config: TransferConfig, whole: Dataset, transfer: TransferSet
) -> dict[str, Any] | None:
    """`transfer` in `result.json`; None for all training images with their labels."""
    if config == ALL_TRAINING_IMAGES:
        return None
    return {
        "size": len(transfer.dataset.train),
        "train_size": len(whole.train),
        "classes_left_out": [whole.classes[number] for number in transfer.left_out],
        "fraction": config.fraction,
        "seed": config.seed,
        "labels": transfer.labelled,
        "folder": config.folder,
        **({} if config.folder is None else {"fingerprint": transfer.dataset.fingerprint}),
    }


def data_fingerprints(
    config: DistillConfig | TrainTeacherConfig, dataset: Dataset, session: Session
) -> list[str]:
    """Fingerprints of the data set and, where it holds other images, of the transfer set."""
    if isinstance(config, TrainTeacherConfig) or config.transfer.folder is None:
        return [dataset.fingerprint]
    return [dataset.fingerprint, open_transfer(config, dataset, session).dataset.fingerprint]


def refuse_other_images(
    config: DistillConfig, before: dict[str, Any], dataset: Dataset, transfer: TransferSet
) -> None:
    """Raise ConfigError if images have changed since the run began.

    before: the run's `result.json`; empty for a new run.
    """
    known = {key: (before.get(key) or {}).get("fingerprint") for key in ("dataset", "transfer")}
    what = None
    if known["dataset"] not in (None, dataset.fingerprint):
        what = f"The images or labels of dataset {dataset.name}"
    elif known["transfer"] not in (None, transfer.dataset.fingerprint):
        what = f"The images of transfer.folder={config.transfer.folder}"
    if what is not None:
        raise ConfigError(
            f"{what} have changed since this run began: restore them, or start a new run."
        )


def left_out_metrics(
    measured: nn.Module,
    predictions: Tensor,
    config: DistillConfig,
    whole: Dataset,
    transfer: TransferSet,
    session: Session,
) -> dict[str, Any]:
    """Errors per class on the test split, and the bias-corrected metrics if configured.

    measured: the trained student, for the loader's images. predictions: `[N]`, its classes
    on the test split. Nothing when no class is left out.
    """
    if not transfer.left_out:
        return {}
    plain = errors_per_class(predictions, whole.test.targets, whole.classes)
    found: dict[str, Any] = {"errors_per_class": plain}
    if config.transfer.bias != "none":
        found |= _corrected(measured, config, whole, transfer, session)
    return found


def _corrected(
    measured: nn.Module,
    config: DistillConfig,
    whole: Dataset,
    transfer: TransferSet,
    session: Session,
) -> dict[str, Any]:
    """Metrics after adding a constant to the logits of the left-out classes.

    A given one, or the one by which they are predicted as often, on the validation split (on the
    training images where there is none), as they are in the training images. Also the errors over a
    range of shifts, for a figure: they choose nothing.
    """

    def logits_of(split: Split) -> Tensor:
        schedule = config.schedule
        batches = eval_loader(
            session, split, whole.normalisation, config.dataset, schedule.eval_batch_size
        )
        return collect_logits(measured, batches, session.device, schedule.precision)[0]

    left_out = torch.tensor(transfer.left_out)
    shift, counted_on = config.transfer.bias, None
    if isinstance(shift, str):
        counted_on = "validation" if whole.val is not None else "training"
        share = float(torch.isin(whole.train.targets, left_out).double().mean())
        shift = matching_shift(logits_of(whole.val or whole.train), left_out, share)
    logits, targets = logits_of(whole.test), whole.test.targets
    metrics = evaluation(shifted(logits, left_out, shift), targets, whole.test.extra_metrics)
    return {
        "bias_corrected": {
            "shift": shift,
            "classes": [whole.classes[number] for number in transfer.left_out],
            "counted_on": counted_on,
            **metrics.to_dict(),
            "errors_per_class": errors_per_class(metrics.predictions, targets, whole.classes),
        },
        "bias_curve": error_curve(logits, targets, left_out),
    }
