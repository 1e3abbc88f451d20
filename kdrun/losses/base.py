"""What every loss of the objective is: a term.

A term is one method of distillation in one file. It knows tensors, not networks: it names the taps
it reads, builds its trainable adapters from the shapes that a dry batch shows, and returns one
unweighted scalar in float32. The objective weighs it; the loop never hears of it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from kdrun.config.schema import NetworkConfig
from kdrun.errors import ConfigError, did_you_mean
from kdrun.ranges import ranged
from kdrun.types import Batch, InputInfo, Outputs

# A requested tap: a name for both networks, or [student's, teacher's].
TapRequest = str | Sequence[str]


@dataclass(frozen=True)
class NetworkView:
    """A network for the few methods that need one of its modules (its classifier, a BatchNorm).

    paths: tap name → module path, optionally with `:in`.
    outputs: those of its outputs that are the classes, in their order; None: all.
    info: the images it takes; None: those of the data set.
    """

    network: nn.Module
    paths: Mapping[str, str]
    outputs: Sequence[int] | None = None
    info: InputInfo | None = None

    def answers(self, outputs: Outputs) -> Outputs:
        """What the bare network said, with the logits of the classes alone."""
        if self.outputs is None:
            return outputs
        index = torch.tensor(list(self.outputs), device=outputs.logits.device)
        return replace(outputs, logits=outputs.logits.index_select(1, index))

    def module(self, tap: str) -> nn.Module:
        """The module at a tap; for `embedding` the classifier."""
        return self.network.get_submodule(self.paths.get(tap, tap).removesuffix(":in"))


@dataclass(frozen=True)
class LossContext:
    """What a term may know besides shapes when it builds its adapters.

    transfer_size: images in the transfer set; their labels `[transfer_size]` are `targets`.
    batch_size: of the training. seed: for the term's own random numbers.
    position, teachers: number of the teacher (from 0) that this instance learns from, of how many;
    each teacher has an instance of the term.
    """

    num_classes: int
    transfer_size: int
    targets: Tensor
    batch_size: int
    seed: int
    student: NetworkView
    teacher: NetworkView
    position: int = 0
    teachers: int = 1


@dataclass(frozen=True)
class Pretraining:
    """A phase before the main one in which only a term's `pretrain_loss` is minimised.

    optimizer: sgd | adam | adamw; the other settings are the student's own.
    lr: None takes the student's.
    """

    epochs: int
    lr: float | None = None
    optimizer: str = "sgd"


class DistillationLoss(nn.Module):
    """Base of all losses.

    id: its file, its configuration and its name in the objective. full_name: as the field has it.
    formula: one or two lines of plain text, with the reduction. source: authors, venue, arXiv.
    variants: name → what it does differently, the default first; empty where there is one form.
    soft: True for a term on the teacher's soft targets; `alpha` is the weight of such a term.
    ce_weight: what CE weighs beside this term when neither `ce` nor a soft term says it.
    reads_labels: True when it needs `Batch.targets` or `LossContext.targets`.
    reads_embedding: True when it needs `Outputs.embedding`.
    reads_strong_view: True when it needs `Outputs.strong`.
    reads_tokens: True when it acts on the head of a distillation token where the student has one.
    replaces_student: True when `final_network` returns another network than the plain student.
    pairs: the (student tap, teacher tap) names that the objective resolved from `taps`.
    """

    id: ClassVar[str]
    full_name: ClassVar[str]
    formula: ClassVar[str] = ""
    source: ClassVar[str] = ""
    variants: ClassVar[Mapping[str, str]] = {}
    soft: ClassVar[bool] = False
    ce_weight: ClassVar[float] = 1.0
    reads_labels: bool = False
    reads_embedding: ClassVar[bool] = False
    reads_strong_view: ClassVar[bool] = False
    reads_tokens: ClassVar[bool] = False
    replaces_student: ClassVar[bool] = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Arguments outside their declared range (see `kdrun.ranges`) raise ConfigError."""
        super().__init_subclass__(**kwargs)
        if "__init__" in cls.__dict__:
            cls.__init__ = ranged(cls.__init__)  # type: ignore[method-assign]

    def __init__(self, taps: Sequence[TapRequest] = ()) -> None:
        super().__init__()
        self.taps: list[TapRequest] = list(taps)
        self.pairs: list[tuple[str, str]] = []

    def build(self, student: Outputs, teacher: Outputs, context: LossContext) -> None:
        """Make adapters from the outputs of a dry batch, or refuse shapes that cannot be used."""

    def start_epoch(self, epoch: int, epochs: int) -> None:
        """Called before epoch number `epoch` (from 0) of `epochs`."""

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """The unweighted scalar."""
        raise TypeError(f"{type(self).__name__} has no forward")

    def after_step(self) -> None:
        """Called when the optimiser has used the last forward's gradients (memory updates)."""

    def pretraining(self) -> Pretraining | None:
        """The phase this term wants before the main one, if any."""
        return None

    def pretrain_loss(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """The scalar minimised in that phase; it may move adapters and the student."""
        raise TypeError(f"{type(self).__name__} has no pre-training")

    def final_network(
        self, student: "NetworkView", config: NetworkConfig, teacher: "NetworkView", info: InputInfo
    ) -> tuple[nn.Module, NetworkConfig]:
        """The network that is trained instead of the plain student, and what builds it again.

        Only asked where `replaces_student` is set, and before anything else, so that taps, figures
        and the card are those of the network that is kept.
        """
        raise TypeError(f"{type(self).__name__} keeps the plain student")

    def target_temperature(self) -> float | None:
        """The one T at which softmax(z / T) is all that the term reads of a teacher.

        Such a term can learn from the mean of several teachers' probabilities. None: it reads more.
        """
        return None

    def notes(self) -> list[str]:
        """Sentences for the head of a run, when the term is built; what it costs, for instance."""
        return []

    def symbol(self) -> str:
        """The term as it stands in the printed objective, after its weight: `16*KL(T=4)`."""
        return self.id.upper()


def require_variant(cls: type[DistillationLoss], variant: str) -> None:
    """Raise ConfigError unless `variant` is one of the class's."""
    if variant not in cls.variants:
        hint = did_you_mean(variant, cls.variants) or f" There are: {', '.join(cls.variants)}."
        raise ConfigError(f"loss.{cls.id}.variant={variant} does not exist.{hint}")


def full_precision(tensor: Tensor) -> Tensor:
    """`tensor` in at least float32: half types are converted, float64 stays."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def feature_pairs(
    term: DistillationLoss, student: Outputs, teacher: Outputs
) -> list[tuple[Tensor, Tensor]]:
    """The (student, teacher) features of the term's taps, in full precision."""
    return [
        (full_precision(student.features[s]), full_precision(teacher.features[t]))
        for s, t in term.pairs
    ]


# Former names; loss files written for earlier versions import them.
Term = DistillationLoss
TermContext = LossContext
