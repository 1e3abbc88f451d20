"""Bias correction for classes that are missing from the transfer set.

Hinton, Vinyals and Dean 2015 (arXiv 1503.02531, section 3): a student that never saw a 3
misclassifies most threes because its learned bias for 3 is much too low; with a higher bias it
classifies most of them correctly. Adding b to the missing classes is equivalent to subtracting b
from all others.
"""

import torch
from torch import Tensor


def shifted(logits: Tensor, classes: Tensor, shift: float) -> Tensor:
    """A copy of logits `[N, C]` with `shift` added to the columns `classes`."""
    result = logits.clone()
    result[:, classes] += shift
    return result


# Shifts of the error curve: 0 to 10 in steps of 0.1. The paper uses 3.5 and 7.6.
SHIFTS = tuple(tenth / 10 for tenth in range(101))


def error_curve(logits: Tensor, targets: Tensor, classes: Tensor) -> dict[str, list[float]]:
    """Errors of logits `[N, C]` against targets `[N]` for each shift of the columns `classes`.

    `errors` counts all images, `errors_left_out` only the images of `classes`.
    """
    left_out = torch.isin(targets, classes)
    wrong = [shifted(logits, classes, shift).argmax(dim=1) != targets for shift in SHIFTS]
    return {
        "shift": list(SHIFTS),
        "errors": [int(errors.sum()) for errors in wrong],
        "errors_left_out": [int(errors[left_out].sum()) for errors in wrong],
    }


def matching_shift(logits: Tensor, classes: Tensor, share: float) -> float:
    """The shift with which `classes` are predicted for `share` of the images of logits `[N, C]`.

    An image is predicted as one of `classes` when the shift exceeds its margin: the largest logit
    of the other classes minus the largest of `classes`. The shift is the midpoint between the
    margins on both sides of the requested count, which is rounded and lies between 1 and N - 1.
    """
    others = torch.ones(logits.shape[1], dtype=torch.bool)
    others[classes] = False
    values = logits.double()
    margins = values[:, others].amax(dim=1) - values[:, classes].amax(dim=1)
    wanted = min(max(round(share * len(margins)), 1), len(margins) - 1)
    ranked = margins.sort().values
    return float((ranked[wanted - 1] + ranked[wanted]) / 2)
