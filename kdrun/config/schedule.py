"""Schema of the training recipe: length, optimiser, learning rate, precision."""

from dataclasses import dataclass
from typing import Annotated

from kdrun.config.settings import setting
from kdrun.ranges import (
    Choices,
    Count,
    CountOrZero,
    Items,
    NotNegative,
    Positive,
    Range,
    Share,
    Steps,
)
from kdrun.recipes.lr_schedules import LR_SCHEDULES
from kdrun.recipes.optimizers import OPTIMIZERS

Precision = Annotated[str, Choices(("fp32", "tf32", "bf16", "fp16", "auto"))]


@dataclass(frozen=True)
class ScheduleConfig:
    """How a network is trained."""

    epochs: Count = setting(60, "passes over the training images")
    steps: Steps | None = setting(None, "length in optimiser steps instead; replaces epochs")
    batch_size: Count = setting(64, "images per batch")
    accumulate: Count = setting(
        1, "batches whose gradients make one optimiser step; steps then count these", quiet=True
    )
    repeated_augmentation: Annotated[int, Range(low=1, high=1000)] = setting(
        1, "views of each image in an epoch, which then has that share of the images", quiet=True
    )
    eval_batch_size: Count = setting(128, "images per batch when measuring")
    optimizer: Annotated[str, OPTIMIZERS] = setting(
        "sgd", "sgd | adam | adamw | lamb | dot | deepkd"
    )
    lr: Positive = setting(0.1, "peak learning rate")
    momentum: Share = setting(0.9, "of sgd, dot and deepkd")
    nesterov: bool = setting(False, "Nesterov momentum, with sgd")
    dot_delta: Annotated[float, Range(low=0, high=1)] = setting(
        0.075, "dot: momentum is lower by this for CE, higher by this for the distillation losses"
    )
    deepkd_deltas: Annotated[list[Annotated[float, Range(low=-1, high=1)]], Items(3, 3)] = setting(
        lambda: [0.075, -0.075, 0.075],
        "deepkd: added to momentum for CE, the teacher's target class, its other classes",
        quiet=True,
    )
    betas: Annotated[list[Share], Items(2, 2)] = setting(
        lambda: [0.9, 0.999], "decay rates of adam, adamw and lamb"
    )
    weight_decay: NotNegative = setting(5e-4, "L2 penalty; decoupled with adamw")
    decay_norm_bias: bool | None = setting(
        None,
        "weight decay of biases and norms; null: as the optimizer does (sgd, adam: yes; adamw: no)",
        quiet=True,
    )
    layer_decay: Annotated[float, Range(above=0, high=1)] = setting(
        1.0, "lr of each layer, relative to the next one, e.g. 0.75; 1: equal", quiet=True
    )
    backbone_lr_factor: Annotated[float, Range(above=0, high=1)] = setting(
        1.0, "lr of everything but the classifier, relative to lr", quiet=True
    )
    freeze_epochs: CountOrZero = setting(
        0, "epochs at the start in which only the classifier is trained", quiet=True
    )
    freeze_bn_stats: bool = setting(
        False, "keep the running mean and variance of batch normalisation", quiet=True
    )
    curve: Annotated[str, LR_SCHEDULES] = setting(
        "cosine", "learning-rate schedule: constant | step | linear | cosine | onecycle"
    )
    milestones: list[Steps] = setting(
        list, "curve=step: lr is multiplied by gamma after these epochs"
    )
    gamma: Annotated[float, Range(above=0, high=1000)] = setting(0.1, "factor at each milestone")
    warmup_epochs: NotNegative = setting(0.0, "linear warm-up from zero before the curve")
    final_lr: NotNegative = setting(0.0, "share of lr left at the end of linear, cosine, onecycle")
    label_smoothing: Share = setting(0.0, "of the hard-label cross-entropy")
    ce_kind: Annotated[str, Choices(("ce", "bce"))] = setting(
        "ce", "ce | bce: loss of the labels, bce is a binary cross-entropy per class", quiet=True
    )
    ce_threshold: Share | None = setting(
        None, "bce: targets above it become 1, others 0, e.g. 0.2; null: as they are", quiet=True
    )
    ce_sum: bool = setting(False, "bce: sum over the classes instead of their mean", quiet=True)
    grad_clip: NotNegative = setting(0.0, "largest gradient norm; 0: no clipping")
    max_norm: NotNegative = setting(
        0.0, "max-norm of each unit's incoming weights, after every step; 0: no limit", quiet=True
    )
    ema: Share = setting(
        0.0,
        "decay of averaged weights (EMA), measured and saved too, e.g. 0.9998; 0: none",
        quiet=True,
    )
    precision: Precision = setting("fp32", "fp32 | tf32 | bf16 | fp16 | auto: bf16 where faster")
    eval_every: Count = setting(1, "epochs between two evaluations on the validation split")
    early_stopping: CountOrZero = setting(
        0, "stop after this many epochs without improvement on the validation split; 0: never"
    )
    early_stopping_metric: Annotated[str, Choices(("accuracy", "loss"))] = setting(
        "accuracy", "metric of early stopping: accuracy | loss"
    )
