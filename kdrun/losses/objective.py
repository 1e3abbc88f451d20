"""The objective: CE with the hard labels plus the weighted sum of all losses."""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from kdrun.config import build
from kdrun.config.schema import DistillConfig, LossConfig
from kdrun.errors import ConfigError
from kdrun.losses.adapters import chosen_adapter
from kdrun.losses.auto_weight import (
    DIGITS,
    AutoWeight,
    even_ratios,
    initial_weight,
    require_measurable,
)
from kdrun.losses.base import DistillationLoss
from kdrun.losses.call import all_trainable, call_loss, require_gradient, scalar
from kdrun.losses.ce import CrossEntropy, label_loss
from kdrun.losses.ensemble import SOFT_TARGETS, Ensemble, mean_soft_targets
from kdrun.losses.ramps import cosine_fall, linear_fall, linear_rise
from kdrun.types import Batch, Outputs


@dataclass(frozen=True)
class WeightedLoss:
    """A loss, its weight and the schedule of the weight.

    loss, others: the instance for the first teacher, and those for the other teachers.
    warmup_epochs: the weight rises linearly to its full value in this epoch, counted from 1.
    decay_epochs: number of epochs over which the weight falls linearly to zero.
    decay_after: epoch after which the weight follows a cosine to zero at the end of training.
    auto: how the weight is measured; `weight` is a placeholder until then.
    """

    loss: DistillationLoss
    weight: float
    warmup_epochs: int = 0
    decay_epochs: int = 0
    decay_after: int = 0
    others: tuple[DistillationLoss, ...] = ()
    auto: AutoWeight | None = None

    @property
    def instances(self) -> tuple[DistillationLoss, ...]:
        """The loss for each teacher, in order."""
        return (self.loss, *self.others)

    def factor(self, epoch: int, epochs: int) -> float:
        """The share of the weight in epoch number `epoch` (from 0) of `epochs`."""
        return (
            linear_rise(epoch, self.warmup_epochs)
            * linear_fall(epoch, self.decay_epochs)
            * cosine_fall(epoch, epochs, self.decay_after)
        )

    def describe(self, measured: bool = True) -> str:
        """`0.9*16*KL(T=4)`, with the change over the epochs in brackets."""
        notes = [f"full from epoch {self.warmup_epochs}"] if self.warmup_epochs > 1 else []
        notes += [f"to 0 in {self.decay_epochs} epochs"] if self.decay_epochs else []
        notes += [f"cosine decay after epoch {self.decay_after}"] if self.decay_after else []
        weight = f"{self.weight:g}" if measured or self.auto is None else "auto"
        return f"{weight}*{self.loss.symbol()}" + (f" ({', '.join(notes)})" if notes else "")


class Objective(nn.Module):
    """`ce_weight · CE + Σ weight · loss`; with several teachers each loss is averaged over them.

    Each teacher has its own instance of every loss, because teachers differ in shape.
    labelled: whether batches have labels; without them CE is neither computed nor logged.
    splits_target: whether a step also needs `target_loss` (`schedule.optimizer=deepkd`).
    unmeasured: whether the weight of a loss (`weight: auto`) is still to be measured.
    """

    def __init__(
        self,
        ce: CrossEntropy,
        ce_weight: float,
        losses: dict[str, WeightedLoss],
        ensemble: Ensemble | None = None,
    ) -> None:
        super().__init__()
        self.ce = ce
        self.ce_weight = ce_weight
        self.weighted = losses
        self.ensemble = ensemble or Ensemble()
        self.labelled = True
        self.splits_target = False
        self.checked = False  # whether the losses were seen to have gradients
        # `terms` and `more_terms` are keys of saved state dicts
        self.terms = nn.ModuleDict({name: weighted.loss for name, weighted in losses.items()})
        # teacher 0 is in `terms`: the keys with one teacher do not depend on this dict
        self.more_terms = nn.ModuleDict(
            {
                str(position): nn.ModuleDict(self.losses_of(position))
                for position in range(1, self.ensemble.targets)
            }
        )
        self.weights = {"ce": ce_weight, **{name: w.weight for name, w in losses.items()}}
        self.auto = {name: w.auto for name, w in losses.items() if w.auto is not None}
        self.unmeasured = bool(self.auto)
        if self.auto:
            # per loss: weight, gradient norm of CE, of the loss, unweighted; NaN until measured
            self.auto_weights: Tensor
            self.register_buffer("auto_weights", torch.full((len(self.auto), 3), math.nan))
            self.register_load_state_dict_post_hook(_apply_measured)

    def require_own_ce(self, scheme: str) -> None:
        """Raise ConfigError if the weight of CE follows from one that is measured."""
        for name, auto in self.auto.items():
            if auto.shares:
                raise ConfigError(
                    f"loss.{name}.weight=auto with scheme={scheme} needs a weight of CE: set ce=1."
                )

    def full_weights(self) -> dict[str, float]:
        """The weights of CE and all losses, without their change over the epochs."""
        return {"ce": self.ce_weight, **{name: w.weight for name, w in self.weighted.items()}}

    def set_measured(self, norms: Mapping[str, tuple[float, float]]) -> None:
        """Set the weights that are `auto`.

        norms: loss → (CE's gradient norm, the loss's), both under `full_weights`.
        Raises ConfigError for norms that lead to no usable weight.
        """
        rows, ce_weight = {}, self.ce_weight
        for name, auto in sorted(self.auto.items(), key=lambda item: not item[1].shares):
            ce_norm, norm = norms[name][0] / self.ce_weight, norms[name][1] / auto.placeholder()
            weight = auto.solve(name, ce_norm, norm, ce_weight)
            ce_weight = 1.0 - weight if auto.shares else ce_weight
            rows[name] = [weight, ce_norm, norm]
        self.auto_weights.copy_(torch.tensor([rows[name] for name in self.auto]))
        self.apply_measured()

    def apply_measured(self) -> None:
        """Use the weights in `auto_weights`, if they have been measured."""
        self.unmeasured = bool(self.auto_weights.isnan().any())
        if self.unmeasured:
            return
        for (name, auto), row in zip(self.auto.items(), self.auto_weights.tolist(), strict=True):
            # float32 holds more digits than a measured weight has
            weight = float(f"{row[0]:.{DIGITS}g}")
            self.weighted[name] = replace(self.weighted[name], weight=weight)
            if auto.shares:
                self.ce_weight = round(1.0 - weight, 12)
        self.weights = self.full_weights()

    def auto_entries(self) -> dict[str, dict[str, float]]:
        """`auto_weights` of `result.json`: the measured weights and gradient norms by loss.

        `gradient` and `ce_gradient` are the mean norms of the loss and of CE, unweighted.
        """
        entries = {}
        rows = self.auto_weights.tolist() if self.auto else []
        for (name, auto), (_, ce_norm, norm) in zip(self.auto.items(), rows, strict=True):
            entries[name] = {
                "weight": self.weighted[name].weight,
                "ratio": auto.ratio,
                "batches": auto.batches,
                "gradient": float(f"{norm:.{DIGITS}g}"),
                "ce_gradient": float(f"{ce_norm:.{DIGITS}g}"),
            }
        return entries

    def loss_list(self) -> list[DistillationLoss]:
        """All instances of all losses except CE."""
        return [loss for weighted in self.weighted.values() for loss in weighted.instances]

    def losses_of(self, position: int) -> dict[str, DistillationLoss]:
        """The losses except CE for teacher number `position` (from 0), by name."""
        return {name: weighted.instances[position] for name, weighted in self.weighted.items()}

    @property
    def reads_strong_view(self) -> bool:
        """Whether a loss needs a second, strongly augmented view of the batch."""
        return any(loss.reads_strong_view for loss in self.loss_list())

    def start_epoch(self, epoch: int, epochs: int) -> None:
        """Set the weights of epoch number `epoch` (from 0) of `epochs`."""
        for name, weighted in self.weighted.items():
            self.weights[name] = weighted.weight * weighted.factor(epoch, epochs)
            for loss in weighted.instances:
                loss.start_epoch(epoch, epochs)

    def forward(
        self, student: Outputs, teachers: Sequence[Outputs], batch: Batch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """(scalar loss, its unweighted parts by name, with gradient)."""
        # losses subtract nearly equal numbers, so they run in float32, outside autocast
        with torch.autocast(student.logits.device.type, enabled=False):
            parts = {"ce": self.ce(student, student, batch)} if self.labelled else {}
            for name in self.weighted:
                parts[name] = self._loss(name, student, teachers, batch)
            if not self.checked and all_trainable(student):  # not while layers are frozen
                self._require_gradients(parts)
            weighted_parts = self.weigh(parts)
            total = torch.stack(list(weighted_parts.values())).sum()
        return total, parts

    def _require_gradients(self, parts: Mapping[str, Tensor]) -> None:
        """Raise ConfigError for a loss with a weight that cannot train the student."""
        for name, weighted in self.weighted.items():
            if weighted.weight and not weighted.loss.only_pretrains:
                require_gradient(parts[name], weighted.loss, name)
        self.checked = True

    def pretrain_loss(
        self, name: str, student: Outputs, teachers: Sequence[Outputs], batch: Batch
    ) -> Tensor:
        """The scalar that the pre-training phase of the loss `name` minimises."""
        with torch.autocast(student.logits.device.type, enabled=False):
            instances = self.weighted[name].instances
            return self.ensemble.mean(
                [
                    scalar(loss.pretrain_loss(student, teacher, batch), loss, name)
                    for loss, teacher in zip(instances, teachers, strict=True)
                ]
            )

    def require_target_part(self) -> None:
        """Raise ConfigError unless a loss keeps the label's class apart from the others."""
        label = torch.zeros(1, dtype=torch.int64)
        outputs, batch = Outputs(torch.zeros(1, 2)), Batch(label, label, label)
        parts = [loss.target_part(outputs, outputs, batch) for loss in self.loss_list()]
        if all(part is None for part in parts) or self.ensemble.average == SOFT_TARGETS:
            raise ConfigError(
                "schedule.optimizer=deepkd keeps the label's class apart from the other classes, "
                "which takes loss=kd or loss=dkd without regions, each teacher by itself: choose "
                "one of these, or optimizer=dot."
            )
        self.splits_target = True

    def target_loss(self, student: Outputs, teachers: Sequence[Outputs], batch: Batch) -> Tensor:
        """The weighted part of the losses that compares the label's probability alone."""
        total = torch.zeros((), device=student.logits.device)
        with torch.autocast(student.logits.device.type, enabled=False):
            for name, weighted in self.weighted.items():
                parts = [
                    loss.target_part(student, teacher, batch)
                    for loss, teacher in zip(weighted.instances, teachers, strict=True)
                ]
                present = [part for part in parts if part is not None]
                if present:
                    total = total + self.weights[name] * self.ensemble.mean(present)
        return total

    def _loss(
        self, name: str, student: Outputs, teachers: Sequence[Outputs], batch: Batch
    ) -> Tensor:
        """The unweighted loss `name`, averaged over teachers or with averaged soft targets."""
        instances = self.weighted[name].instances
        if len(teachers) > 1 and self.ensemble.average == SOFT_TARGETS:
            (loss,) = instances
            temperature = loss.target_temperature()
            assert temperature is not None
            logits = [teacher.logits for teacher in teachers]
            mean = Outputs(mean_soft_targets(logits, self.ensemble.shares, temperature))
            return call_loss(loss, name, student, mean, batch)
        return self.ensemble.mean(
            [
                call_loss(loss, name, student, teacher, batch)
                for loss, teacher in zip(instances, teachers, strict=True)
            ]
        )

    def weigh(self, parts: dict[str, Tensor]) -> dict[str, Tensor]:
        """Multiply each part by its weight in the current epoch."""
        return {name: self.weights[name] * value for name, value in parts.items()}

    def describe(self) -> str:
        """The objective as text: `0.1*CE + 0.9*16*KL(T=4)`."""
        measured = not self.unmeasured
        pieces = [f"{self.ce_weight:g}*{self.ce.symbol()}"] if self.ce_weight else []
        if not measured and any(auto.shares for auto in self.auto.values()):
            pieces = [f"(1 - auto)*{self.ce.symbol()}"]
        pieces += [w.describe(measured) for w in self.weighted.values() if w.weight]
        return " + ".join(pieces) + (self.ensemble.describe() if self.weighted else "")

    @property
    def temperature(self) -> float | None:
        """T of the first loss that has one."""
        values = [getattr(loss, "temperature", None) for loss in self.loss_list()]
        return next((float(value) for value in values if value is not None), None)

    @property
    def alpha(self) -> float | None:
        """The weight of the soft loss, if there is exactly one."""
        soft = [w.weight for w in self.weighted.values() if w.loss.soft]
        return soft[0] if len(soft) == 1 and not self.unmeasured else None


def _apply_measured(objective: Objective, _: object) -> None:
    """Hook of `load_state_dict`: use the weights of the checkpoint."""
    objective.apply_measured()


def objective_of(config: DistillConfig) -> Objective:
    """Build the objective of a distillation config."""
    ensemble = Ensemble.of(config.ensemble, len(config.teachers))
    losses = config.loss if config.scheme.uses_teacher is True else even_ratios(config.loss)
    objective = build_objective(
        losses, config.T, config.alpha, config.ce, label_loss(config.schedule), ensemble
    )
    if config.augment.mixes:
        require_label_pairs(objective)
    if config.schedule.optimizer == "deepkd" and objective.weighted:
        objective.require_target_part()
    return objective if config.transfer.labelled else without_labels(objective)


def without_labels(
    objective: Objective,
    missing: str = "The transfer set has no labels (transfer.labels=false or transfer.folder)",
) -> Objective:
    """The objective for a transfer set without labels. missing: what has none, for messages.

    Raises ConfigError when CE has a weight or a loss reads labels.
    """
    if objective.ce_weight:
        fix = "alpha=1 (soft targets alone) or ce=0"
        if not objective.weighted:
            fix = "a loss that needs only the teacher, e.g. loss=kd alpha=1"
        raise ConfigError(
            f"{missing}, but the objective {objective.describe()} includes CE: set {fix}."
        )
    for name, weighted in objective.weighted.items():
        if weighted.loss.reads_labels:
            raise ConfigError(
                f"{missing}, but loss={name} needs them: use a loss that does not, e.g. kd."
            )
    objective.labelled = False
    return objective


def require_label_pairs(objective: Objective) -> None:
    """Raise ConfigError for losses that take no mixed images (mixup, CutMix)."""
    for name, weighted in objective.weighted.items():
        reason = weighted.loss.mixing_refusal()
        if reason is not None:
            raise ConfigError(
                f"loss={name} {reason}: leave out augment.mixup and augment.cutmix, or use a loss "
                "that takes two labels or none, such as kd or dkd."
            )


def build_objective(
    loss: dict[str, LossConfig],
    T: float | None,
    alpha: float | None,
    ce: float | None,
    labels: CrossEntropy | None = None,
    ensemble: Ensemble | None = None,
    instances: Mapping[str, DistillationLoss] | None = None,
) -> Objective:
    """Build the objective from loss configs and the global settings T, alpha and ce.

    `T` replaces the temperature of every loss that has one. `alpha` is the weight of the soft loss;
    CE gets `1 - alpha` unless `ce` is set. labels: the loss of the labels; None: plain CE.
    ensemble: None for one teacher.
    instances: existing loss modules by name; they keep their temperature.
    Raises ConfigError for settings without effect and for an objective whose weights are all 0.
    """
    ensemble = ensemble or Ensemble()
    if "ce" in loss and (loss["ce"].kwargs or loss["ce"].weight != 1.0):
        raise ConfigError(
            "loss.ce takes no settings: its weight is ce=..., its kind ce.kind=..., its smoothing "
            "schedule.label_smoothing=..."
        )
    instances = instances or {}
    classes = {
        name: type(instances[name]) if name in instances else _loss_class(config)
        for name, config in loss.items()
        if name != "ce"
    }
    soft = [name for name, cls in classes.items() if cls.soft]
    _check_alpha(loss, soft, alpha, ce)
    losses: dict[str, WeightedLoss] = {}
    takes_temperature = False
    for name in classes:
        kwargs = dict(loss[name].kwargs)
        if "temperature" in kwargs:
            takes_temperature = True
            if T is not None:
                kwargs["temperature"] = T
            _check_temperature(name, kwargs["temperature"])
        if loss[name].adapter is not None:
            kwargs["adapter"] = chosen_adapter(loss[name], classes[name])
        auto = AutoWeight.of(loss[name], classes[name].id, shares=name in soft and ce is None)
        weight = initial_weight(loss[name], auto, alpha if name in soft else None)
        first, *more = _instances(loss[name], kwargs, instances.get(name), ensemble.targets)
        epochs = loss[name].warmup_epochs, loss[name].decay_epochs, loss[name].decay_after
        losses[name] = WeightedLoss(first, weight, *epochs, tuple(more), auto)
    _check_average(losses, ensemble)
    if T is not None and not takes_temperature:
        raise ConfigError(
            f"T={T:g} would change nothing: none of {_names(loss)} has a temperature. "
            "Add a loss that has one, e.g. 'loss=[kd,...]'."
        )
    ce_weight = _ce_weight(ce, losses)
    _check_weights(losses, ce_weight)
    return Objective(labels or CrossEntropy(), ce_weight, losses, ensemble)


def _check_weights(losses: dict[str, WeightedLoss], ce_weight: float) -> None:
    """Raise ConfigError if all weights are 0, or if one cannot be measured."""
    if ce_weight == 0 and all(weighted.weight == 0 for weighted in losses.values()):
        raise ConfigError(
            "Every weight of the objective is 0, so nothing would be trained: set ce=... or "
            "loss.ID.weight=..."
        )
    for name, weighted in losses.items():
        if weighted.auto is not None:
            require_measurable(name, ce_weight, weighted.loss.only_pretrains)


def _instances(
    config: LossConfig, kwargs: dict[str, Any], given: DistillationLoss | None, count: int
) -> list[DistillationLoss]:
    """One instance per teacher. given: an existing module, which is the first."""
    if given is not None:
        return [given, *(copy.deepcopy(given) for _ in range(1, count))]
    return [build.call(config.target, kwargs, f"loss.{config.id}") for _ in range(count)]


def _loss_class(config: LossConfig) -> type[DistillationLoss]:
    where = f"loss.{config.id}"
    cls = build.locate(config.target, where)
    if not (isinstance(cls, type) and issubclass(cls, DistillationLoss)):
        raise ConfigError(
            f"{where}._target_={config.target} is not a subclass of "
            "kdrun.losses.base.DistillationLoss."
        )
    return cls


def _check_alpha(
    loss: dict[str, LossConfig], soft: list[str], alpha: float | None, ce: float | None
) -> None:
    if alpha is not None and not soft:
        raise ConfigError(
            f"alpha={alpha:g} would change nothing: none of {_names(loss)} is a soft-target loss. "
            f"Add one, e.g. 'loss=[kd,{','.join(loss)}]', or set loss.ID.weight."
        )
    if len(soft) > 1 and (alpha is not None or ce is None):
        raise ConfigError(
            f"With several soft-target losses ({', '.join(soft)}) alpha is ambiguous: set "
            "ce=... and " + ", ".join(f"loss.{name}.weight=..." for name in soft) + "."
        )


def _check_average(losses: dict[str, WeightedLoss], ensemble: Ensemble) -> None:
    if ensemble.average != SOFT_TARGETS:
        return
    for name, weighted in losses.items():
        if weighted.loss.target_temperature() is None:
            raise ConfigError(
                "teacher.average=soft_targets averages the teachers' probabilities, but "
                f"loss={name} reads more than those: use teacher.average=terms, or a loss such as "
                "kd, dkd, dist, deit_soft, deit_hard."
            )


def _check_temperature(name: str, value: float) -> None:
    if not value > 0:
        raise ConfigError(f"loss.{name}.temperature={value:g} must be above 0 (usual: 1 to 20).")


def _ce_weight(ce: float | None, losses: dict[str, WeightedLoss]) -> float:
    """`ce` if set, else 1 - alpha with a soft loss, else the `ce_weight` of the losses' recipes."""
    if ce is not None:
        return ce
    soft = [weighted.weight for weighted in losses.values() if weighted.loss.soft]
    if not soft:
        return min((weighted.loss.ce_weight for weighted in losses.values()), default=1.0)
    alpha = sum(soft)
    if alpha > 1:
        raise ConfigError(
            f"The soft-target loss has weight {alpha:g}, which leaves none for CE: set ce=..."
        )
    return round(1.0 - alpha, 12)


def _names(loss: dict[str, LossConfig]) -> str:
    return "[" + ", ".join(loss) + "]"
