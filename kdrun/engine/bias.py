"""Bias correction for classes that the transfer set did not show.

Hinton, Vinyals and Dean 2015 (arXiv 1503.02531, section 3): a student that never saw a 3 makes most
of its errors there because the bias it learnt for 3 is much too low; with the bias raised it knows
most threes. Adding b to the left-out classes and taking b from all others are the same.
"""

import torch
from torch import Tensor


def shifted(logits: Tensor, classes: Tensor, shift: float) -> Tensor:
    """A copy of logits `[N, C]` with `shift` added to the columns `classes`."""
    result = logits.clone()
    result[:, classes] += shift
    return result


# Where a curve of errors is taken: 0 to 10 in tenths, beyond the shifts of the paper (3.5 and 7.6).
SHIFTS = tuple(tenth / 10 for tenth in range(101))


def error_curve(logits: Tensor, targets: Tensor, classes: Tensor) -> dict[str, list[float]]:
    """Errors of logits `[N, C]` against targets `[N]` over `SHIFTS` of the columns `classes`.

    `errors` are those of all images, `errors_left_out` those of the images of `classes`.
    """
    of_them = torch.isin(targets, classes)
    wrong = [shifted(logits, classes, shift).argmax(dim=1) != targets for shift in SHIFTS]
    return {
        "shift": list(SHIFTS),
        "errors": [int(one.sum()) for one in wrong],
        "errors_left_out": [int(one[of_them].sum()) for one in wrong],
    }


def matching_shift(logits: Tensor, classes: Tensor, share: float) -> float:
    """The shift by which `classes` are predicted for `share` of the images of logits `[N, C]`.

    An image is predicted as one of them when the shift exceeds its margin, its best other logit
    less its best one among them. So the shift lies half-way between the margin of the last image
    wanted and that of the next; the number of images is rounded, at least one, and not all.
    """
    others = torch.ones(logits.shape[1], dtype=torch.bool)
    others[classes] = False
    values = logits.double()
    margins = values[:, others].amax(dim=1) - values[:, classes].amax(dim=1)
    wanted = min(max(round(share * len(margins)), 1), len(margins) - 1)
    ranked = margins.sort().values
    return float((ranked[wanted - 1] + ranked[wanted]) / 2)
