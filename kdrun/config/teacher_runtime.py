"""How a frozen teacher is run while it teaches."""

from dataclasses import dataclass
from typing import Annotated

from kdrun.config.kinds import Precision
from kdrun.ranges import Choices, Positive


@dataclass(frozen=True)
class TeacherRuntimeConfig:
    """How a frozen teacher is run while it teaches; the defaults change no result.

    precision: fp32 | bf16 | fp16; None is the student's.
    fold: batch normalisation folded into the convolutions before it; on a processor these
        compute the sums and ReLUs after them as well, and the teacher is not compiled then.
    compile: None is as the command's `compile`.
    cache: auto | off | logits | embedding: remember its outputs per image and view.
    cache_gb: largest size of that file, in 10^9 bytes.
    cache_dtype: float16 halves the file and rounds; None keeps what was computed.
    check_accuracy: refuse it when it does not reach the accuracy on its card; False says so.
    """

    precision: Precision | None = None
    fold: bool = False
    compile: bool | None = None
    cache: Annotated[str, Choices(("auto", "off", "logits", "embedding"))] = "auto"
    cache_gb: Positive = 4.0
    cache_dtype: Annotated[str, Choices(("float16",))] | None = None
    check_accuracy: bool = True


AS_IT_IS = TeacherRuntimeConfig()
