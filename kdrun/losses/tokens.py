"""Base class of losses that can act on the heads of distillation tokens."""

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from kdrun.errors import ConfigError
from kdrun.losses.base import DistillationLoss, LossContext, full_precision
from kdrun.types import Outputs


class TokenLoss(DistillationLoss):
    """A loss on logits that teaches the student through its distillation tokens, if it has any.

    As a criterion: the student's logits, or the list [class head, distillation heads ...].
    Source: Touvron et al. 2021, arXiv 2012.12877, §4, for one token and one teacher.
    """

    soft: ClassVar[bool] = True
    reads_tokens: ClassVar[bool] = True

    def __init__(self) -> None:
        super().__init__()
        self.position = 0

    def arrange(self, tensors: Sequence[Tensor], who: str) -> Outputs:
        """Logits of the class head, then of the distillation heads."""
        logits, *heads = (self.require_logits(tensor, who) for tensor in tensors)
        return Outputs(logits, distillation=tuple(heads))

    def build(self, student: Outputs, teacher: Outputs, context: LossContext) -> None:
        """Store the teacher's number, which selects its token.

        Raises ConfigError for several tokens unless there is one per teacher.
        """
        tokens = len(student.distillation)
        if tokens > 1 and tokens != context.teachers:
            raise ConfigError(
                f"student.distillation_tokens={tokens} does not fit {_teachers(context.teachers)}: "
                f"set student.distillation_tokens={context.teachers}"
                + (" (one for each) or 1 (shared)." if context.teachers > 1 else ".")
            )
        self.position = context.position

    def taught(self, student: Outputs) -> Tensor:
        """The student's logits `[B, C]` that this teacher acts on, in full precision.

        Without distillation tokens those of the class head; with one token its head, whichever
        the teacher; with several the head of the token with the teacher's number.
        """
        heads = student.distillation
        if not heads:
            return full_precision(student.logits)
        return full_precision(heads[self.position if len(heads) > 1 else 0])


def _teachers(count: int) -> str:
    return "one teacher, or one mean of several" if count == 1 else f"{count} teachers"
