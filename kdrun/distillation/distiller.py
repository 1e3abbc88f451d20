"""`kdrun.Distiller`: the objective, taps and adapters of a run around any two modules."""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from types import SimpleNamespace
from typing import Annotated, Any, Self, cast

import torch
from torch import Tensor, nn

from kdrun.config.convert import check_ranges
from kdrun.config.schema import EnsembleConfig, NetworkConfig
from kdrun.deploy.student import LoadedNetwork
from kdrun.distillation.class_embeddings import embeddings_of_batches
from kdrun.distillation.connect import connect
from kdrun.distillation.loss_weights import gradient_norms, set_auto_weights
from kdrun.distillation.networks import Labelled, Member
from kdrun.errors import ConfigError, ShapeError
from kdrun.losses.base import DistillationLoss, Pretraining
from kdrun.losses.ce import CrossEntropy
from kdrun.losses.choice import LossChoice, chosen_losses
from kdrun.losses.ensemble import Ensemble
from kdrun.losses.objective import build_objective, require_label_pairs, without_labels
from kdrun.models.dry_run import logits_once
from kdrun.ranges import Range, ranged
from kdrun.schemes.offline import Offline
from kdrun.schemes.pretrain import pretrain_phases
from kdrun.types import Batch, InputInfo, Mixture, Normalisation

Constants = Normalisation | tuple[Sequence[float] | float, Sequence[float] | float]


@dataclass(frozen=True)
class DistillOutput:
    """What a distiller returns for one batch.

    loss: scalar to minimise. parts: name → detached scalar, unweighted; `ce` is the cross-entropy
    with the labels. weighted: the same times their weights; they add up to the loss.
    logits: `[B, C]` of the student. teacher_logits: `[B, C]`; with several teachers a tuple.
    """

    loss: Tensor
    parts: dict[str, Tensor]
    weighted: dict[str, Tensor]
    logits: Tensor
    teacher_logits: Tensor | tuple[Tensor, ...]


@dataclass(frozen=True)
class ExampleData:
    """Data set properties that `connect` needs, taken from an example batch."""

    info: InputInfo
    normalisation: Normalisation
    train: Labelled


class Distiller(nn.Module):
    """A student, its frozen teachers and an objective: as in `kdrun distill`, for your loop.

    student: trained. teacher: one module, or several that are averaged; it is set to eval mode,
    its parameters stop requiring gradients, and it is in no state dict and no `parameters()`.
    Both return logits `[B, C]`, or an object with `.logits`; `kdrun.load(...)` networks too.
    loss: a name (`kdrun ls loss`), a loss instance, a mapping of settings, or a list of these:
    `["kd", {"sp": {"weight": 3000}}, RKD()]`. A name takes the settings of its YAML.
    T: softmax temperature of every named loss that has one. alpha: weight of the soft loss; CE
    weighs `1 - alpha` unless `ce` is set. ce_kind: ce, or bce for a binary cross-entropy per class.
    `{"sp": {"weight": "auto"}}`: see `measure_weights`.
    example: images `[B, ...]` as the loop passes them; two of them find taps and shapes.
    labels: `[N]` int64 class numbers of the training set, for losses with a memory of it (crd).
    train: the training set in batches (images as for `example`, labels), not augmented, for losses
    on statistics of the teacher's embeddings (nd, wkd_l variant cka); it is read once, if at all.
    normalisation: (mean, std) per channel with which your images come; None: both networks take
    them as they are. student_normalisation, teacher_normalisation: what each was trained with,
    None: its attribute `normalisation`, else that of the images.
    student_taps, teacher_taps: tap name → module path, in addition to the detected taps.
    teacher_weights: one per teacher, of any sum. batch_size: of the training, for semckd.
    seed: of the adapters' initial weights.

    `parameters()` are those of the student and the adapters: make the optimiser from them.
    `student` is the plain network to save; between two calls no hooks are on it. Losses that
    replace the student (simkd) make `student` another network.
    Raises ConfigError for unknown losses, settings and taps, and for incompatible shapes.
    """

    @ranged
    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module | Sequence[nn.Module],
        loss: LossChoice | Sequence[LossChoice] = "kd",
        *,
        example: Tensor,
        T: float | None = None,
        alpha: Annotated[float, Range(low=0, high=1)] | None = None,
        ce: Annotated[float, Range(low=0)] | None = None,
        label_smoothing: float = 0.0,
        ce_kind: str = "ce",
        labels: Tensor | None = None,
        train: Iterable[tuple[Tensor, Tensor]] | None = None,
        normalisation: Constants | None = None,
        student_normalisation: Constants | None = None,
        teacher_normalisation: Constants | None = None,
        student_taps: Mapping[str, str] | None = None,
        teacher_taps: Mapping[str, str] | None = None,
        teacher_weights: Sequence[float] | None = None,
        batch_size: Annotated[int, Range(low=1)] | None = None,
        seed: Annotated[int, Range(low=0)] = 0,
    ) -> None:
        super().__init__()
        teachers = [teacher] if isinstance(teacher, nn.Module) else list(teacher)
        _check_networks(student, teachers, example)
        _check_numbers(T=T, alpha=alpha, ce=ce)
        configs, instances = chosen_losses(loss)
        for name, config in configs.items():
            check_ranges(config, f"loss.{name}")
        weights = EnsembleConfig(weights=[float(weight) for weight in teacher_weights or []])
        check_ranges(weights, "teacher")
        ensemble = Ensemble.of(weights, len(teachers))
        label_loss = CrossEntropy(label_smoothing, ce_kind)
        objective = build_objective(configs, T, alpha, ce, label_loss, ensemble, instances)
        device = _device(student)
        networks = _Networks(normalisation, example)
        with torch.random.fork_rng(devices=[]):
            for network in (student, *teachers):
                network.cpu()
            member = networks.member(student, "student", student_normalisation, student_taps)
            members = [
                networks.member(teacher, "teacher", teacher_normalisation, teacher_taps)
                for teacher in teachers
            ]
            for one in members:
                if one.image_size is None:
                    _logits(one.network, "teacher", networks.example)
            data = networks.data(member, labels)
            self._classes = data.info.num_classes
            size = batch_size or len(example)
            source = None if train is None else embeddings_of_batches(train, device)
            connected = connect(objective, member, members, data, size, seed, source)
        for extractor in (connected.student, *connected.teachers):
            extractor.hook_while_running()
        self.scheme = Offline(connected.student, connected.teachers, objective)
        self._step_pending = False
        self._not_pretrained = set(self.pretraining)
        self.to(device)

    @property
    def student(self) -> nn.Module:
        """The plain student; its state dict has the keys of the original module."""
        return self.scheme.network

    @property
    def pretraining(self) -> dict[str, Pretraining]:
        """Loss → the phase it needs before the main one: `distiller(..., pretrain=name)`."""
        return {name: plan for _, name, plan in pretrain_phases(self.scheme)}

    def describe(self) -> str:
        """The objective with its weights: `0.1*CE + 0.9*16*KL(T=4)`."""
        return self.scheme.describe()

    def start_epoch(self, epoch: int, epochs: int) -> None:
        """Update epoch-dependent values (`warmup_epochs`, ctkd's λ) for `epoch` (from 0).

        Without this call weights are full from the start.
        """
        self.scheme.start_epoch(epoch, epochs)

    def measure_weights(self, batches: Iterable[Sequence[Tensor]]) -> dict[str, float]:
        """Set the weights given as `auto` from training batches; returns the weight of each loss.

        batches: (images, targets) or (images, targets, indices), as `forward` takes them; the first
        `auto_batches` (8) of them count. Nothing changes but the weights. Call it once, before the
        first step; a state dict holds the result. Raises ConfigError for batches without labels.
        """
        count = max((a.batches for a in self.scheme.objective.auto.values()), default=0)
        if count:
            first = (self._batch(*batch) for batch in islice(batches, count))
            norms = gradient_norms(self.scheme, first, _device(self.student))
            if not norms:
                raise ConfigError("measure_weights needs batches of (images, targets).")
            set_auto_weights(self.scheme, norms)
        return self.scheme.objective.full_weights()

    def forward(
        self,
        images: Tensor,
        targets: Tensor | None = None,
        indices: Tensor | None = None,
        pretrain: str | None = None,
        mixture: tuple[Tensor, Tensor] | None = None,
    ) -> DistillOutput:
        """One batch: images `[B, ...]`, labels `[B]` int64, or None if no loss reads them.

        indices: `[B]` int64 positions in the training set, for losses with a memory (crd).
        mixture: of mixed images (mixup, CutMix): labels `[B]` of the images mixed in, and the share
            `[B]` of each image itself, from 0 to 1.
        pretrain: the loss whose pre-training loss is returned alone.
        What follows an optimiser step (crd's memory) is done before the next training batch.
        Raises ConfigError for missing labels or indices, and for losses that take no mixed images.
        """
        if self.scheme.objective.unmeasured:
            raise ConfigError(
                "A loss has the weight auto: call distiller.measure_weights(batches) with training "
                "batches (images, targets) first."
            )
        batch = self._batch(images, targets, indices)
        if mixture is not None:
            batch.mixture = self._mixture(mixture, batch)
        if self._step_pending:
            self.scheme.after_step()
        student, teachers = self.scheme.forward_networks(batch)
        answers = tuple(teacher.logits for teacher in teachers)
        teacher_logits = answers[0] if len(answers) == 1 else answers
        if pretrain is not None:
            return self._pretrain(pretrain, student, teachers, batch, teacher_logits)
        self._warn_of_phases()
        step = self.scheme.step(student, teachers, batch)
        self._step_pending = self.training and torch.is_grad_enabled()
        weighted = {
            name.removesuffix("_weighted"): value
            for name, value in step.parts.items()
            if name.endswith("_weighted")
        }
        parts = {name: step.parts[name] for name in weighted}
        return DistillOutput(step.loss, parts, weighted, step.logits, teacher_logits)

    def _pretrain(
        self, name: str, student: Any, teachers: Any, batch: Batch, teacher_logits: Any
    ) -> DistillOutput:
        if name not in self.pretraining:
            known = ", ".join(self.pretraining) or "none of these losses"
            raise ConfigError(f"pretrain={name!r}: {known} has a phase before the main one.")
        self._not_pretrained.discard(name)
        loss = self.scheme.objective.pretrain_loss(name, student, teachers, batch)
        parts = {name: loss.detach()}
        return DistillOutput(loss, parts, parts, student.logits, teacher_logits)

    def _warn_of_phases(self) -> None:
        """Warn once if a loss that needs a pre-training phase was not pre-trained."""
        for name in sorted(self._not_pretrained):
            plan = self.pretraining[name]
            warnings.warn(
                f"{name} trains for {plan.epochs} epochs before the main phase: minimise "
                f"distiller(images, targets, pretrain={name!r}).loss first, or set "
                f"{{{name!r}: {{'pretrain_epochs': 0}}}}.",
                stacklevel=3,
            )
        self._not_pretrained = set()

    def _batch(
        self, images: Tensor, targets: Tensor | None = None, indices: Tensor | None = None
    ) -> Batch:
        objective = self.scheme.objective
        size = len(images)
        losses = objective.loss_list()
        if targets is None:
            without_labels(objective, "distiller(images) has no targets")
            targets = torch.full((size,), -1, device=images.device)
        else:
            objective.labelled = True
            self._check_targets(targets, size)
        reader = next((loss.id for loss in losses if loss.reads_indices), None)
        if indices is None and reader is not None:
            raise ConfigError(
                f"loss={reader} remembers every training image: call distiller(images, targets, "
                f"indices) with their positions in `labels`, int64 [{size}]."
            )
        if indices is None:
            indices = torch.full((size,), -1, device=images.device)
        return Batch(images, targets.long(), indices.long())

    def _check_targets(self, targets: Tensor, size: int) -> None:
        """Raise ShapeError for anything but class numbers; their range is looked at on the CPU."""
        if not isinstance(targets, Tensor):
            raise ShapeError(f"targets are a {type(targets).__name__}: give a tensor [{size}].")
        kind = targets.dtype
        if targets.shape != (size,) or kind.is_floating_point or kind == torch.bool:
            raise ShapeError(
                f"targets must be class numbers, int64 [{size}], and are {list(targets.shape)} of "
                f"type {str(kind).removeprefix('torch.')}."
            )
        if targets.device.type == "cpu" and size:  # elsewhere a look would wait for the device
            low, high = int(targets.min()), int(targets.max())
            if low < 0 or high >= self._classes:
                raise ShapeError(
                    f"targets must be class numbers from 0 to {self._classes - 1}, and are from "
                    f"{low} to {high}: leave out images without a label, or pass no targets."
                )

    def _mixture(self, given: tuple[Tensor, Tensor], batch: Batch) -> Mixture:
        require_label_pairs(self.scheme.objective)
        targets, share = given
        size = len(batch)
        if targets.shape != (size,) or targets.is_floating_point() or share.shape != (size,):
            raise ShapeError(
                f"mixture must be (labels, shares), int64 [{size}] and float [{size}], and is of "
                f"shapes {list(targets.shape)} and {list(share.shape)}."
            )
        return Mixture(targets.long(), share)

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        """Also move or convert the teachers, which are not submodules."""
        super()._apply(fn, recurse)
        for teacher in self.scheme.frozen_teachers:
            teacher._apply(fn, recurse)
        return self


class _Networks:
    """The normalisation of the images and what each network expects."""

    def __init__(self, normalisation: Constants | None, example: Tensor) -> None:
        self.example = example[:2].detach().cpu()
        channels = example.shape[1]
        self.known = normalisation is not None
        plain = ((0.0,) * channels, (1.0,) * channels)
        self.normalisation = _constants(normalisation or plain, "normalisation", channels)

    def member(
        self,
        network: nn.Module,
        who: str,
        normalisation: Constants | None,
        taps: Mapping[str, str] | None,
    ) -> Member:
        """Wrap a network. Raises ConfigError if its normalisation cannot be applied."""
        size, outputs = None, None
        constants: Constants | None = normalisation
        if isinstance(network, LoadedNetwork):
            card = network.card
            constants = constants or card.normalisation
            size, outputs = card.resized, card.outputs
            network = network.network
        attribute = getattr(network, "normalisation", None)
        if constants is None and self.known and isinstance(attribute, Normalisation):
            constants = attribute
        if constants is not None and not self.known:
            raise ConfigError(
                f"The {who} expects images normalised with its own constants: say how yours "
                "come, normalisation=(mean, std), or ((0.0,), (1.0,)) for values from 0 to 1."
            )
        expected = (
            self.normalisation
            if constants is None
            else _constants(constants, f"{who}_normalisation")
        )
        config = NetworkConfig(
            type(network).__name__,
            f"{type(network).__module__}.{type(network).__qualname__}",
            taps=dict(taps or {}),
        )
        as_given = size is None and expected == self.normalisation and self.example.dim() != 4
        example = torch.zeros_like(self.example) if as_given else None
        return Member(network, config, expected, size, outputs, example)

    def data(self, student: Member, labels: Tensor | None) -> ExampleData:
        """Infer the data properties from the student's logits and the labels."""
        classes = _logits(student.network, "student", self.example).shape[1]
        channels, *size = self.example.shape[1:]
        info = InputInfo(classes, channels, cast("tuple[int, int]", tuple(size)))
        targets = torch.zeros(0, dtype=torch.int64) if labels is None else labels.cpu().long()
        return ExampleData(info, self.normalisation, SimpleNamespace(targets=targets))


def _logits(network: nn.Module, who: str, example: Tensor) -> Tensor:
    try:
        return logits_once(network, example)
    except ConfigError as error:
        raise ConfigError(f"The {who} cannot be used: {error}") from None


def _constants(value: Constants, name: str, channels: int | None = None) -> Normalisation:
    if isinstance(value, Normalisation):
        return value
    mean, std = (tuple(v) if isinstance(v, Sequence) else (float(v),) for v in value)
    if channels is not None and len(mean) == len(std) == 1:
        mean, std = mean * channels, std * channels
    if len(mean) != len(std) or not all(deviation > 0 for deviation in std):
        raise ConfigError(f"{name} must be (mean, std), a number per channel each, std above 0.")
    return Normalisation(mean, std)


def _check_numbers(**given: Any) -> None:
    for name, value in given.items():
        if value is not None and not isinstance(value, int | float):
            raise ConfigError(f"{name}={value!r} is not a number.")


def _check_networks(student: nn.Module, teachers: Sequence[nn.Module], example: Tensor) -> None:
    if not teachers:
        raise ConfigError("teacher is empty: give a module, or a list of them.")
    if not isinstance(example, Tensor) or example.dim() < 2 or not len(example):
        raise ConfigError("example must be a batch of images, [batch, ...], as your loop has them.")
    if any(p.dtype == torch.float64 for one in (student, *teachers) for p in one.parameters()):
        raise ConfigError(
            "A network has float64 parameters, and losses are computed in float32: convert it, "
            "network.float()."
        )
    trained = {id(parameter) for parameter in student.parameters()}
    if any(id(parameter) in trained for t in teachers for parameter in t.parameters()):
        raise ConfigError(
            "student and teacher share parameters, and a teacher does not change: give copies, "
            "copy.deepcopy(network)."
        )


def _device(network: nn.Module) -> torch.device:
    parameter = next(network.parameters(), None)
    return torch.device("cpu") if parameter is None else parameter.device


__all__ = ["DistillOutput", "DistillationLoss", "Distiller"]
