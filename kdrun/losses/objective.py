"""The objective: CE with the hard labels and the weighted sum of all terms."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kdrun.config import build
from kdrun.config.schema import DistillConfig, LossConfig
from kdrun.errors import ConfigError
from kdrun.losses.base import DistillationLoss
from kdrun.losses.ce import CrossEntropy
from kdrun.losses.ensemble import SOFT_TARGETS, Ensemble, mean_soft_targets
from kdrun.losses.ramps import cosine_fall, linear_fall, linear_rise
from kdrun.types import Batch, Outputs


@dataclass(frozen=True)
class WeightedLoss:
    """A loss and its weight.

    loss, others: the instance for the first teacher, and those for the other teachers.
    warmup_epochs: the weight rises linearly to its full value in this epoch, counted from 1.
    decay_epochs: the weight falls linearly to zero over so many epochs.
    decay_after: from this epoch on the weight falls by a cosine to zero at the end.
    """

    loss: DistillationLoss
    weight: float
    warmup_epochs: int = 0
    decay_epochs: int = 0
    decay_after: int = 0
    others: tuple[DistillationLoss, ...] = ()

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

    def describe(self) -> str:
        """`0.9*16*KL(T=4)`, with the change over the epochs in brackets."""
        notes = [f"full from epoch {self.warmup_epochs}"] if self.warmup_epochs > 1 else []
        notes += [f"to 0 in {self.decay_epochs} epochs"] if self.decay_epochs else []
        notes += [f"cosine decay after epoch {self.decay_after}"] if self.decay_after else []
        return f"{self.weight:g}*{self.loss.symbol()}" + (f" ({', '.join(notes)})" if notes else "")


class Objective(nn.Module):
    """`ce_weight · CE + Σ weight · term`; with several teachers a term is averaged over them.

    Each teacher has its own instance of every term, because teachers differ in shape.
    labelled: the batches have labels; without them CE is neither computed nor logged.
    """

    def __init__(
        self,
        ce: CrossEntropy,
        ce_weight: float,
        terms: dict[str, WeightedLoss],
        ensemble: Ensemble | None = None,
    ) -> None:
        super().__init__()
        self.ce = ce
        self.ce_weight = ce_weight
        self.weighted = terms
        self.ensemble = ensemble or Ensemble()
        self.labelled = True
        self.terms = nn.ModuleDict({name: weighted.loss for name, weighted in terms.items()})
        # named by the teacher's number, so that the names for one teacher are those of the terms
        self.more_terms = nn.ModuleDict(
            {
                str(position): nn.ModuleDict(self.losses_of(position))
                for position in range(1, self.ensemble.targets)
            }
        )
        self.weights = {"ce": ce_weight, **{name: w.weight for name, w in terms.items()}}

    def loss_list(self) -> list[DistillationLoss]:
        """The terms besides CE, each with all its instances."""
        return [term for weighted in self.weighted.values() for term in weighted.instances]

    def losses_of(self, position: int) -> dict[str, DistillationLoss]:
        """The terms besides CE that learn from teacher number `position` (from 0), by name."""
        return {name: weighted.instances[position] for name, weighted in self.weighted.items()}

    @property
    def reads_strong_view(self) -> bool:
        """Whether a term needs a second, strongly augmented view of the batch."""
        return any(term.reads_strong_view for term in self.loss_list())

    def start_epoch(self, epoch: int, epochs: int) -> None:
        """Set the weights of epoch number `epoch` (from 0) of `epochs`."""
        for name, weighted in self.weighted.items():
            self.weights[name] = weighted.weight * weighted.factor(epoch, epochs)
            for term in weighted.instances:
                term.start_epoch(epoch, epochs)

    def forward(
        self, student: Outputs, teachers: Sequence[Outputs], batch: Batch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """(scalar loss, its parts in the graph: unweighted, by name)."""
        # losses are differences of near-equal numbers: they leave autocast and use float32
        with torch.autocast(student.logits.device.type, enabled=False):
            parts = {"ce": self.ce(student, student, batch)} if self.labelled else {}
            for name in self.weighted:
                parts[name] = self._term(name, student, teachers, batch)
            weighed = self.weigh(parts)
            total = torch.stack(list(weighed.values())).sum()
        return total, parts

    def pretrain_loss(
        self, name: str, student: Outputs, teachers: Sequence[Outputs], batch: Batch
    ) -> Tensor:
        """The scalar that the pre-training phase of the term `name` minimises."""
        with torch.autocast(student.logits.device.type, enabled=False):
            instances = self.weighted[name].instances
            return self.ensemble.mean(
                [
                    scalar(term.pretrain_loss(student, teacher, batch), term, name)
                    for term, teacher in zip(instances, teachers, strict=True)
                ]
            )

    def _term(
        self, name: str, student: Outputs, teachers: Sequence[Outputs], batch: Batch
    ) -> Tensor:
        """The unweighted term: averaged over the teachers, or of their averaged soft targets."""
        instances = self.weighted[name].instances
        if len(teachers) > 1 and self.ensemble.average == SOFT_TARGETS:
            (term,) = instances
            temperature = term.target_temperature()
            assert temperature is not None
            logits = [teacher.logits for teacher in teachers]
            mean = Outputs(mean_soft_targets(logits, self.ensemble.shares, temperature))
            return scalar(term(student, mean, batch), term, name)
        return self.ensemble.mean(
            [
                scalar(term(student, teacher, batch), term, name)
                for term, teacher in zip(instances, teachers, strict=True)
            ]
        )

    def weigh(self, parts: dict[str, Tensor]) -> dict[str, Tensor]:
        """Each part times its weight in this epoch."""
        return {name: self.weights[name] * value for name, value in parts.items()}

    def describe(self) -> str:
        """The objective with its numbers: `0.1*CE + 0.9*16*KL(T=4)`."""
        pieces = [f"{self.ce_weight:g}*CE"] if self.ce_weight else []
        pieces += [weighted.describe() for weighted in self.weighted.values() if weighted.weight]
        return " + ".join(pieces) + (self.ensemble.describe() if self.weighted else "")

    @property
    def temperature(self) -> float | None:
        """T of the first term that has one."""
        values = [getattr(term, "temperature", None) for term in self.loss_list()]
        return next((float(value) for value in values if value is not None), None)

    @property
    def alpha(self) -> float | None:
        """The weight of the soft term, if there is exactly one."""
        soft = [w.weight for w in self.weighted.values() if w.loss.soft]
        return soft[0] if len(soft) == 1 else None


def scalar(value: object, term: DistillationLoss, name: str) -> Tensor:
    """What a term returned. Raises ConfigError unless it is one number in a tensor."""
    if isinstance(value, Tensor) and value.dim() == 0:
        return value
    found = (
        f"a tensor of the shape {list(value.shape)}"
        if isinstance(value, Tensor)
        else f"a {type(value).__name__}"
    )
    raise ConfigError(
        f"loss.{name}: {type(term).__name__} returned {found}: return the loss as a tensor with "
        "one number, averaged over the batch (.mean())."
    )


def objective_of(config: DistillConfig) -> Objective:
    """The objective of a whole configuration."""
    smoothing = config.schedule.label_smoothing
    ensemble = Ensemble.of(config.ensemble, len(config.teachers))
    objective = build_objective(config.loss, config.T, config.alpha, config.ce, smoothing, ensemble)
    return objective if config.transfer.labelled else without_labels(objective)


def without_labels(objective: Objective) -> Objective:
    """The objective for a transfer set without labels.

    Raises ConfigError when CE has a weight or a term reads labels.
    """
    missing = "The transfer set has no labels (transfer.labels=false or transfer.folder)"
    if objective.ce_weight:
        fix = "alpha=1 (soft targets alone) or ce=0"
        if not objective.weighted:
            fix = "a loss that learns from the teacher alone, e.g. loss=kd alpha=1"
        raise ConfigError(
            f"{missing}, and the objective {objective.describe()} weighs CE with labels: set {fix}."
        )
    for name, weighted in objective.weighted.items():
        if weighted.loss.reads_labels:
            raise ConfigError(
                f"{missing}, and loss={name} reads them: choose one that does not, e.g. kd."
            )
    objective.labelled = False
    return objective


def build_objective(
    loss: dict[str, LossConfig],
    T: float | None,
    alpha: float | None,
    ce: float | None,
    label_smoothing: float,
    ensemble: Ensemble | None = None,
    instances: Mapping[str, DistillationLoss] | None = None,
) -> Objective:
    """The objective a configuration describes.

    `T` replaces the temperature of every term that has one; `alpha` is the weight of the soft term
    and leaves `1 - alpha` to CE unless `ce` is set. ensemble: None for one teacher.
    instances: losses that exist already, by name; they keep their own temperature.
    Raises ConfigError for settings that nothing would use and for an objective without weight.
    """
    ensemble = ensemble or Ensemble()
    if "ce" in loss and (loss["ce"].kwargs or loss["ce"].weight != 1.0):
        raise ConfigError(
            "loss.ce takes no settings: its weight is ce=..., its smoothing "
            "schedule.label_smoothing=..."
        )
    ready = instances or {}
    classes = {
        name: type(ready[name]) if name in ready else _loss_class(term)
        for name, term in loss.items()
        if name != "ce"
    }
    soft = [name for name, cls in classes.items() if cls.soft]
    _check_alpha(loss, soft, alpha, ce)
    terms: dict[str, WeightedLoss] = {}
    takes_temperature = False
    for name in classes:
        kwargs = dict(loss[name].kwargs)
        if "temperature" in kwargs:
            takes_temperature = True
            if T is not None:
                kwargs["temperature"] = T
            _check_temperature(name, kwargs["temperature"])
        weight = alpha if alpha is not None and name in soft else loss[name].weight
        if name in ready:
            copies = [copy.deepcopy(ready[name]) for _ in range(1, ensemble.targets)]
            term, *others = (ready[name], *copies)
        else:
            term, *others = (
                build.call(loss[name].target, kwargs, f"loss.{name}")
                for _ in range(ensemble.targets)
            )
        epochs = loss[name].warmup_epochs, loss[name].decay_epochs, loss[name].decay_after
        terms[name] = WeightedLoss(term, weight, *epochs, tuple(others))
    _check_average(terms, ensemble)
    if T is not None and not takes_temperature:
        raise ConfigError(
            f"T={T:g} would change nothing: none of {_names(loss)} has a temperature. "
            "Add a term that has one, e.g. 'loss=[kd,...]'."
        )
    ce_weight = _ce_weight(ce, terms)
    if ce_weight == 0 and all(weighted.weight == 0 for weighted in terms.values()):
        raise ConfigError("Every weight of the objective is 0: nothing would be learnt.")
    return Objective(CrossEntropy(label_smoothing), ce_weight, terms, ensemble)


def _loss_class(term: LossConfig) -> type[DistillationLoss]:
    where = f"loss.{term.id}"
    found = build.locate(term.target, where)
    if not (isinstance(found, type) and issubclass(found, DistillationLoss)):
        raise ConfigError(
            f"{where}._target_={term.target} is not a kdrun.losses.base.DistillationLoss."
        )
    return found


def _check_alpha(
    loss: dict[str, LossConfig], soft: list[str], alpha: float | None, ce: float | None
) -> None:
    if alpha is not None and not soft:
        raise ConfigError(
            f"alpha={alpha:g} would change nothing: none of {_names(loss)} is a soft-target term. "
            f"Add one, e.g. 'loss=[kd,{','.join(loss)}]', or set loss.<term>.weight."
        )
    if len(soft) > 1 and (alpha is not None or ce is None):
        raise ConfigError(
            f"With several soft-target terms ({', '.join(soft)}) alpha has no one meaning: set "
            "ce=... and " + ", ".join(f"loss.{name}.weight=..." for name in soft) + "."
        )


def _check_average(terms: dict[str, WeightedLoss], ensemble: Ensemble) -> None:
    if ensemble.average != SOFT_TARGETS:
        return
    for name, weighted in terms.items():
        if weighted.loss.target_temperature() is None:
            raise ConfigError(
                f"teacher.average=soft_targets gives a term the mean of the teachers' "
                f"probabilities, and loss={name} reads more of a teacher than those: take "
                "teacher.average=terms, or a loss such as kd, dkd, dist, deit_soft, deit_hard."
            )


def _check_temperature(name: str, value: float) -> None:
    if not value > 0:
        raise ConfigError(f"loss.{name}.temperature={value:g} must be above 0 (usual: 1 to 20).")


def _ce_weight(ce: float | None, terms: dict[str, WeightedLoss]) -> float:
    """`ce` if given, else what alpha leaves, else what the terms' own recipes give to CE."""
    if ce is not None:
        return ce
    soft = [weighted.weight for weighted in terms.values() if weighted.loss.soft]
    if not soft:
        return min((weighted.loss.ce_weight for weighted in terms.values()), default=1.0)
    alpha = sum(soft)
    if alpha > 1:
        raise ConfigError(
            f"The soft term weighs {alpha:g}, which leaves no weight for the labels: set ce=..."
        )
    return round(1.0 - alpha, 12)


def _names(loss: dict[str, LossConfig]) -> str:
    return "[" + ", ".join(loss) + "]"
