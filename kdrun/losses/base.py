"""The base class of all losses.

A loss implements one distillation method in one file. It works on tensors, not on networks: it
names the taps it reads, builds its trainable adapters from the shapes of a dry batch and returns
one unweighted scalar in float32. The objective applies the weight.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from types import CodeType, FunctionType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from kdrun.config.schema import NetworkConfig
from kdrun.errors import ConfigError, did_you_mean
from kdrun.losses.context import LossContext, NetworkView, Pretraining, TapRequest
from kdrun.losses.criterion import Criterion
from kdrun.ranges import ranged
from kdrun.types import Batch, InputInfo, Outputs

__all__ = [
    "PER_LABEL",
    "DistillationLoss",
    "LossContext",
    "NetworkView",
    "Pretraining",
    "TapRequest",
    "Term",
    "TermContext",
    "feature_pairs",
    "full_precision",
    "require_variant",
]

# `label_pairs` of losses that are means over images (see `kdrun.losses.label_pairs`).
PER_LABEL = "the λ-weighted mean of the loss with either label"


class DistillationLoss(Criterion):
    """Base class of all losses: called with `Outputs` by an objective, or with plain tensors.

    As a criterion, `loss(student, teacher, targets, indices)` takes logits `[B, C]`, or features
    (tensors or lists of them); see `kdrun.losses.criterion`. Both ways run the same `forward`.

    id: its file, its configuration and its name in the objective. full_name: as in its paper.
    formula: one or two lines of plain text, with the reduction. source: authors, venue, arXiv.
    variants: name → what it does differently, the default first; empty where there is one form.
    soft: True for a loss on the teacher's soft targets; `alpha` is the weight of such a loss.
    ce_weight: weight of CE used with this loss when neither `ce` nor a soft loss sets it.
    reads_labels: True when it needs `Batch.targets` or `LossContext.targets`.
    label_pairs: of a loss that reads labels, what it makes of a mixed image's two; empty: mixup and
        CutMix are refused.
    reads_embedding: True when it needs `Outputs.embedding`.
    reads_indices: True when it needs `Batch.index`.
    reads_strong_view: True when it needs `Outputs.strong`.
    reads_tokens: True when it acts on the head of a distillation token where the student has one.
    compares_samples: True when it compares the samples of a batch, so that it is no mean over them.
    replaces_student: True when `final_network` returns another network than the plain student.
    only_pretrains: True when it is 0 in the main phase.
    python_only: constructor arguments that a configuration does not have (modules, tensors).
    pairs: the (student tap, teacher tap) names that the objective resolved from `taps`.
    student_taps: taps of the student alone, without a counterpart in the teacher; `request_taps`
        resolves them.
    """

    id: ClassVar[str]
    full_name: ClassVar[str]
    formula: ClassVar[str] = ""
    source: ClassVar[str] = ""
    variants: ClassVar[Mapping[str, str]] = {}
    soft: ClassVar[bool] = False
    ce_weight: ClassVar[float] = 1.0
    reads_labels: bool = False
    label_pairs: ClassVar[str] = ""
    reads_embedding: bool = False
    reads_indices: ClassVar[bool] = False
    reads_strong_view: ClassVar[bool] = False
    reads_tokens: ClassVar[bool] = False
    compares_samples: ClassVar[bool] = False
    replaces_student: ClassVar[bool] = False
    only_pretrains: bool = False
    python_only: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Arguments outside their declared range (see `kdrun.ranges`) raise ConfigError."""
        super().__init_subclass__(**kwargs)
        if "__init__" in cls.__dict__:
            cls.__init__ = ranged(cls.__init__)  # type: ignore[method-assign]
        if "build" in cls.__dict__:
            cls.build = _noting_build(cls.build)  # type: ignore[method-assign]

    def __init__(self, taps: Sequence[TapRequest] = ()) -> None:
        super().__init__()
        self.taps: list[TapRequest] = list(taps)
        self.pairs: list[tuple[str, str]] = []
        self.student_taps: list[str] = []

    def request_taps(self, student: NetworkView, teacher: NetworkView, info: InputInfo) -> None:
        """Set `taps` where they depend on the networks; called before any feature is read.

        info: the images of the data set. Raises ConfigError for networks without such a place.
        """

    def build(self, student: Outputs, teacher: Outputs, context: LossContext) -> None:
        """Create adapters for a dry batch's outputs; raises ConfigError for unusable shapes."""

    def start_epoch(self, epoch: int, epochs: int) -> None:
        """Called before epoch number `epoch` (from 0) of `epochs`."""

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """The unweighted scalar."""
        raise TypeError(f"{type(self).__name__} has no forward")

    def target_part(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor | None:
        """The part of the loss that compares the probability of the label alone, a scalar.

        None for losses without such a part. `schedule.optimizer=deepkd` keeps it apart.
        """
        return None

    def after_step(self) -> None:
        """Called after each batch, and after the optimiser step that it completes."""

    def pretraining(self) -> Pretraining | None:
        """The phase that this loss needs before the main one, if any."""
        return None

    def pretrain_loss(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """The scalar minimised in that phase; it may move adapters and the student."""
        raise TypeError(f"{type(self).__name__} has no pre-training")

    def final_network(
        self, student: "NetworkView", config: NetworkConfig, teacher: "NetworkView", info: InputInfo
    ) -> tuple[nn.Module, NetworkConfig]:
        """The network that is trained instead of the plain student, and its configuration.

        Called first, and only where `replaces_student` is set, so that taps, metrics and card are
        those of the network that is saved.
        """
        raise TypeError(f"{type(self).__name__} keeps the plain student")

    def target_temperature(self) -> float | None:
        """T, if softmax(z / T) is all that the loss reads of a teacher; else None.

        Such a loss can learn from the mean of several teachers' probabilities.
        """
        return None

    def mixing_refusal(self) -> str | None:
        """Why the loss takes no mixed images (mixup, CutMix), as a clause; None if it takes them.

        By default it takes them unless it reads labels without `label_pairs`, or indices. Code
        outside kdrun that mentions `targets` counts as reading labels, declared or not.
        """
        if self.reads_indices:
            return "stores something for each training image, and a mixed image is two of them"
        reads_labels = self.reads_labels or _mentions_targets(type(self))
        if reads_labels and not self.label_pairs:
            return "reads one label per image, and a mixed image has two"
        return None

    def notes(self) -> list[str]:
        """Sentences for the start of a run, once the loss is built; its memory use, for example."""
        return []

    def symbol(self) -> str:
        """The loss in the printed objective, after its weight: `16*KL(T=4)`."""
        return self.id.upper()


def require_variant(cls: type[DistillationLoss], variant: str) -> None:
    """Raise ConfigError unless `variant` is one of the class's."""
    if variant not in cls.variants:
        hint = did_you_mean(variant, cls.variants) or f" There are: {', '.join(cls.variants)}."
        raise ConfigError(f"loss.{cls.id}.variant={variant} does not exist.{hint}")


def _mentions_targets(cls: type[DistillationLoss]) -> bool:
    """Whether a method of the class that is not kdrun's reads an attribute `targets`."""
    functions = (
        function
        for each in cls.__mro__
        if not each.__module__.startswith(("kdrun.", "torch."))
        for function in vars(each).values()
        if isinstance(function, FunctionType)
    )
    return any(_reads_attribute(function.__code__, "targets") for function in functions)


def _reads_attribute(code: CodeType, name: str) -> bool:
    """Whether code, or a function defined within it, mentions an attribute or global `name`."""
    inner = (constant for constant in code.co_consts if isinstance(constant, CodeType))
    return name in code.co_names or any(_reads_attribute(each, name) for each in inner)


def _noting_build(build: Callable[..., None]) -> Callable[..., None]:
    """Wrap `build` to mark the loss as built."""

    @wraps(build)
    def wrapper(self: DistillationLoss, *args: Any, **kwargs: Any) -> None:
        build(self, *args, **kwargs)
        self._built = True

    return wrapper


def full_precision(tensor: Tensor) -> Tensor:
    """`tensor` in at least float32: half types are converted, float64 stays."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def feature_pairs(
    loss: DistillationLoss, student: Outputs, teacher: Outputs
) -> list[tuple[Tensor, Tensor]]:
    """The (student, teacher) features at the taps of a loss, in full precision."""
    return [
        (full_precision(student.features[s]), full_precision(teacher.features[t]))
        for s, t in loss.pairs
    ]


# Former names; loss files written for earlier versions import them.
Term = DistillationLoss
TermContext = LossContext
