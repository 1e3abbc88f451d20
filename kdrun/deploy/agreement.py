"""Whether an exported file answers as the network it came from."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kdrun.engine.metrics import Metrics, measure
from kdrun.errors import KdrunError

# Two orders of the same float32 sums differ by about 1e-6 of the logits; more is another network.
TOLERATED_RELATIVE_DIFFERENCE = 1e-3
REQUIRED_AGREEMENT = 99.9  # percent: the integer file of an int8-aware student
# Logits of most of its images differ by less than this share of the largest logit: a step of the
# last activation now and then is fine, another network that answers alike is not.
TOLERATED_TYPICAL_DIFFERENCE = 0.02


class ExportError(KdrunError):
    """An exported file does not reproduce the network; it has been removed."""


@dataclass(frozen=True)
class Agreement:
    """An exported file compared with its network on the same test images.

    max_difference: largest absolute difference of two logits; typical_difference: the median over
    the images of each one's largest; largest_logit: of the network.
    agreement: percent of images for which both predict the same class.
    """

    images: int
    max_difference: float
    typical_difference: float
    largest_logit: float
    agreement: float
    original: Metrics
    exported: Metrics

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "images": self.images,
            "max_difference": self.max_difference,
            "typical_difference": self.typical_difference,
            "largest_logit": self.largest_logit,
            "agreement": self.agreement,
            "original": self.original.as_dict(),
            "exported": self.exported.as_dict(),
        }


def compare(original: Tensor, exported: Tensor, targets: Tensor) -> Agreement:
    """Compare two sets of logits `[N, C]` for the same images; targets: labels `[N]`."""
    if not bool(torch.isfinite(exported).all()):
        raise ExportError("The exported file's answers are not finite; it has been removed.")
    differences = (original.double() - exported.double()).abs().amax(dim=1)
    same = (original.argmax(dim=1) == exported.argmax(dim=1)).double().mean()
    return Agreement(
        images=len(targets),
        max_difference=float(differences.max()),
        typical_difference=float(differences.median()),
        largest_logit=float(original.abs().max()),
        agreement=100.0 * float(same),
        original=measure(original, targets),
        exported=measure(exported, targets),
    )


def require_equal(result: Agreement, what: str) -> None:
    """Raise ExportError unless the logits are equal up to the order of float32 sums."""
    allowed = TOLERATED_RELATIVE_DIFFERENCE * max(1.0, result.largest_logit)
    if result.max_difference > allowed:
        raise ExportError(
            f"{what} does not agree with the network: on {result.images:,} test images its logits "
            f"differ by up to {result.max_difference:.3g} (allowed: {allowed:.3g}), "
            f"{result.agreement:.2f} % of the answers are the same, top-1 is "
            f"{result.exported.top1:.2f} % instead of {result.original.top1:.2f} %. "
            "It has been removed."
        )


def gives_same_answers(result: Agreement) -> bool:
    """Whether at least 99.9 % of the classes are the same, and most logits."""
    allowed = TOLERATED_TYPICAL_DIFFERENCE * result.largest_logit
    return result.agreement >= REQUIRED_AGREEMENT and result.typical_difference <= allowed


def require_same_answers(result: Agreement, what: str) -> None:
    """Raise ExportError unless the file of an int8-aware student `gives_same_answers`."""
    if not gives_same_answers(result):
        allowed = TOLERATED_TYPICAL_DIFFERENCE * result.largest_logit
        other = "" if what.endswith(".pt2") else ": format=pt2 computes what PyTorch does"
        raise ExportError(
            f"{what} does not agree with the int8-aware student: on {result.images:,} test images "
            f"{result.agreement:.2f} % of the answers are the same (required: "
            f"{REQUIRED_AGREEMENT:g} %), its logits typically differ by "
            f"{result.typical_difference:.3g} (allowed: {allowed:.3g}), at most by "
            f"{result.max_difference:.3g}. It has been removed{other}."
        )


def require_accurate(result: Agreement, tolerance: float, what: str) -> None:
    """Raise ExportError when more than `tolerance` points of top-1 are lost."""
    lost = result.original.top1 - result.exported.top1
    if lost > tolerance:
        raise ExportError(
            f"{what} loses {lost:.2f} points of top-1 on {result.images:,} test images "
            f"({result.exported.top1:.2f} % instead of {result.original.top1:.2f} %; the answers "
            f"agree on {result.agreement:.2f} %); {tolerance:g} are allowed. It has been removed: "
            "set calibration_images higher, train for it (student.quantize), keep full precision, "
            f"or accept it with tolerance={math.ceil(10 * lost) / 10:g}."
        )


def answers(run: Callable[[Tensor], Tensor], batches: Iterable[Tensor]) -> Tensor:
    """The logits `[N, C]` of all batches of raw images."""
    return torch.cat([run(images.contiguous()).float() for images in batches])
