"""Pieces of logits that several losses use: z-scores, the target's logit, all the others."""

import torch
from torch import Tensor
from torch.nn import functional as F

from kdrun.losses.label_pairs import weighted_mean

# Added to the deviation that z-scores are divided by, as the method's published code does.
DEVIATION_FLOOR = 1e-7


def standardise(logits: Tensor) -> Tensor:
    """Each row of logits `[B, C]` less its mean, divided by its (unbiased) standard deviation.

    Sun et al. 2024 (arXiv 2403.01427). A row without spread has no
    z-scores: it becomes zeros that pass no gradient, where the plain formula would give NaN.
    """
    centred = logits - logits.mean(dim=1, keepdim=True)
    variance = centred.square().sum(dim=1, keepdim=True) / (logits.shape[1] - 1)
    spread = variance > DEVIATION_FLOOR**2
    deviation = torch.where(spread, variance, torch.ones_like(variance)).sqrt()
    return torch.where(spread, centred / (deviation + DEVIATION_FLOOR), torch.zeros_like(centred))


def target_logit(logits: Tensor, targets: Tensor) -> Tensor:
    """The logit `[B, 1]` of each image's true class."""
    return logits.gather(1, targets[:, None])


def target_cross_entropy(student: Tensor, teacher: Tensor, targets: Tensor) -> Tensor:
    """-p_t,y · log p_s,y per image, `[B]`, p the softmax of logits `[B, C]`."""
    log_p = target_logit(F.log_softmax(student, dim=1), targets)
    return -(target_logit(F.softmax(teacher, dim=1), targets) * log_p)[:, 0]


def other_logits(logits: Tensor, targets: Tensor) -> Tensor:
    """The logits `[B, C - 1]` of all other classes, in order."""
    columns = torch.arange(logits.shape[1] - 1, device=logits.device)[None, :]
    return logits.gather(1, columns + (columns >= targets[:, None]))


def binary_logits(logits: Tensor, classes: Tensor) -> Tensor:
    """Logits `[B, 2]` whose softmax is (p, 1 - p) for the class `[B]` of each row.

    1 - p is not computed explicitly: it would lose all precision where p is close to 1.
    """
    others = torch.logsumexp(other_logits(logits, classes), dim=1, keepdim=True)
    return torch.cat((target_logit(logits, classes), others), dim=1)


def divergences(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(softmax(teacher) ‖ softmax(student)) of logits `[B, C]` per row, `[B]`."""
    log_p, log_q = F.log_softmax(student, dim=1), F.log_softmax(teacher, dim=1)
    return F.kl_div(log_p, log_q, reduction="none", log_target=True).sum(dim=1)


def mean_divergence(student: Tensor, teacher: Tensor, weights: Tensor | None = None) -> Tensor:
    """KL(softmax(teacher) ‖ softmax(student)) of logits `[B, C]`, averaged over rows.

    weights: `[B]`, multiplied with the rows' divergences before the mean.
    """
    if weights is not None:
        return weighted_mean(divergences(student, teacher), weights)
    log_p, log_q = F.log_softmax(student, dim=1), F.log_softmax(teacher, dim=1)
    return F.kl_div(log_p, log_q, reduction="batchmean", log_target=True)
