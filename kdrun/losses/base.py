"""What every loss of the objective is: a term.

A term is one method of distillation in one file. It knows tensors, not networks: it names the taps
it reads, builds its trainable adapters from the shapes that a dry batch shows, and returns one
unweighted scalar in float32. The objective weighs it; the loop never hears of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from kdrun.types import Batch, Outputs

# A requested tap: a name for both networks, or [student's, teacher's].
TapRequest = str | Sequence[str]


@dataclass(frozen=True)
class TermContext:
    """What a term may know besides shapes when it builds its adapters.

    transfer_size: images in the transfer set. seed: for the term's own random numbers.
    """

    num_classes: int
    transfer_size: int
    seed: int


class Term(nn.Module):
    """Base of all losses.

    soft: True for a term on the teacher's soft targets; `alpha` is the weight of such a term.
    reads_embedding: True when it needs `Outputs.embedding`.
    pairs: the (student tap, teacher tap) names that the objective resolved from `taps`.
    """

    id: ClassVar[str]
    full_name: ClassVar[str]
    soft: ClassVar[bool] = False
    reads_embedding: ClassVar[bool] = False

    def __init__(self, taps: Sequence[TapRequest] = ()) -> None:
        super().__init__()
        self.taps: list[TapRequest] = list(taps)
        self.pairs: list[tuple[str, str]] = []

    def build(self, student: Outputs, teacher: Outputs, context: TermContext) -> None:
        """Make adapters from the outputs of a dry batch, or refuse shapes that cannot be used."""

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """The unweighted scalar."""
        raise TypeError(f"{type(self).__name__} has no forward")

    def symbol(self) -> str:
        """The term as it stands in the printed objective, after its weight: `16*KL(T=4)`."""
        return self.id.upper()


def feature_pairs(term: Term, student: Outputs, teacher: Outputs) -> list[tuple[Tensor, Tensor]]:
    """The (student, teacher) features of the term's taps, in float32."""
    return [(student.features[s].float(), teacher.features[t].float()) for s, t in term.pairs]
