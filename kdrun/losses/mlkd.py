"""Multi-level logit distillation: Jin et al., CVPR 2023."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from kdrun.errors import ConfigError
from kdrun.losses.base import DistillationLoss, full_precision, require_variant
from kdrun.losses.label_pairs import label_cross_entropy
from kdrun.losses.logit_parts import divergences, standardise
from kdrun.ranges import NotNegative, Temperature
from kdrun.types import Batch, Outputs

MISREAD = (2.0, 6.0)  # T of the strong view for which the authors' code reads the weak one


class MultiLevelLogits(DistillationLoss):
    """Instance, batch and class level agreement of p = softmax(z / T) `[B, C]`, summed over T.

    Per temperature: instance T² · mean_n KL(p_t ‖ p_s) of the weak and the strong view of the
    batch; batch ‖p_s p_sᵀ - p_t p_tᵀ‖²_F / B and class ‖p_sᵀ p_s - p_tᵀ p_t‖²_F / C of the weak
    view. And CE of the strong view with the labels. weight: alpha, 0.9, the published code's value
    for every level; with 0.1 · CE of the weak view and `strong_ce` 1/9, `variant=code` is that
    code's objective. The published figures took 480 epochs at half the usual learning rate: with
    five T and two views the gradient is about ten times that of `kd`, and a rate that suits `kd`
    makes this student worse.

    The default `halved` is `code` without its two slips. The code multiplies the weak view's means
    by the share of images (classes) up to the median confidence of the teacher: ½ for an even
    number, more for an odd one, such as 3/5 of 5, so a last batch of another size counts
    differently. And its strong view reads the weak one at T 2 and 6.

    As a criterion: `loss([weak, strong], [weak, strong], targets)`, logits `[B, C]` of both views
    of the images; `targets` unless `strong_ce` is 0.

    temperatures: all T. strong_ce: weight of CE on the strong view, within this loss.
    standardise: KL of z-scores (as in `logit_std`), with the levels above it as they are.
    variant: see `variants`.

    Compares the samples of a batch: `batch_size` images, also with `schedule.accumulate`.
    """

    id = "mlkd"
    full_name = "Multi-level logit distillation"
    formula = (
        "Σ_T [½ · T² · KL(weak) + T² · KL(strong) + ½ · ‖p_s p_sᵀ - p_t p_tᵀ‖² / B + "
        "½ · ‖p_sᵀ p_s - p_tᵀ p_t‖² / C] + strong_ce · CE(strong); KL: mean over the batch"
    )
    source = "Jin, Wang, Lin 2023, CVPR; factors ½ from the authors' code"
    compares_samples = True
    variants: ClassVar[Mapping[str, str]] = {
        "halved": "weak view times ½: what the code's mask, put on means, comes to",
        "code": "as the authors' code: weak view times the shares of images and classes up to the "
        "teacher's median confidence; KL of the strong view at T 2 and 6 reads the weak view",
        "masked": "weak view: images and classes up to the teacher's median confidence only",
        "paper": "all levels in full, batch and class level on both views",
    }
    soft = True
    reads_strong_view = True
    label_pairs = "the strong view's CE is the λ-weighted mean of those with either label"

    def __init__(
        self,
        temperatures: Sequence[Temperature] = (2.0, 3.0, 4.0, 5.0, 6.0),
        strong_ce: NotNegative = 1.0 / 9.0,
        standardise: bool = False,
        variant: str = "halved",
    ) -> None:
        super().__init__()
        require_variant(type(self), variant)
        if not temperatures:
            raise ConfigError(
                f"loss.mlkd.temperatures={list(temperatures)} must be numbers above 0, e.g. [2,4]."
            )
        self.temperatures = list(temperatures)
        self.strong_ce = strong_ce
        self.reads_labels = strong_ce != 0
        self.standardise = standardise
        self.variant = variant

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """Scalar from the logits `[B, C]` of both views and labels `[B]`."""
        assert student.strong is not None
        assert teacher.strong is not None
        weak = full_precision(student.logits), full_precision(teacher.logits)
        strong = full_precision(student.strong.logits), full_precision(teacher.strong.logits)
        images, classes = self._counted(weak[1])
        loss = strong[0].new_zeros(())
        if self.reads_labels:
            loss = self.strong_ce * label_cross_entropy(strong[0], batch)
        for temperature in self.temperatures:
            loss = loss + (images * self._divergence(weak, temperature)).mean()
            misread = self.variant == "code" and temperature in MISREAD
            second = weak if misread else strong
            loss = loss + self._divergence(second, temperature).mean()
            loss = loss + _levels(weak, temperature, images, classes)
            if self.variant == "paper":
                loss = loss + _levels(strong, temperature, images, classes)
        return loss

    def _counted(self, teacher: Tensor) -> tuple[Tensor, Tensor]:
        """How much each image `[B]` and each class `[C]` of the weak view counts."""
        confidence = F.softmax(teacher, dim=1)
        images, classes = confidence.amax(dim=1), confidence.sum(dim=0)
        if self.variant in ("masked", "code"):
            masks = _lower_half(images), _lower_half(classes)
            if self.variant == "masked":
                return masks
            return masks[0].mean().expand_as(images), masks[1].mean().expand_as(classes)
        share = 0.5 if self.variant == "halved" else 1.0
        return torch.full_like(images, share), torch.full_like(classes, share)

    def _divergence(self, logits: tuple[Tensor, Tensor], temperature: float) -> Tensor:
        """T² · KL per image, `[B]`."""
        student, teacher = (standardise(z) if self.standardise else z for z in logits)
        return temperature**2 * divergences(student / temperature, teacher / temperature)

    def symbol(self) -> str:
        return "MLKD(T=" + "+".join(f"{t:g}" for t in self.temperatures) + ")"


def _levels(
    logits: tuple[Tensor, Tensor], temperature: float, images: Tensor, classes: Tensor
) -> Tensor:
    """Batch level plus class level; a row of a difference counts as its image or class does."""
    p, q = (F.softmax(z / temperature, dim=1) for z in logits)
    between_images = (p @ p.T - q @ q.T).square().sum(dim=1)
    between_classes = (p.T @ p - q.T @ q).square().sum(dim=1)
    return (images * between_images).mean() + (classes * between_classes).mean()


def _lower_half(values: Tensor) -> Tensor:
    """1 for values up to the median, else 0."""
    return (values <= values.quantile(0.5)).to(values.dtype)
