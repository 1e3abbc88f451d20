"""Factor transfer: Kim, Park & Kwak, NeurIPS 2018, arXiv 1802.04977."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdrun.losses.adapters import AdapterNorm
from kdrun.losses.base import (
    DistillationLoss,
    LossContext,
    Pretraining,
    TapRequest,
    require_variant,
)
from kdrun.losses.shapes import map_pairs, require_places, tap_names, to_smaller, unit
from kdrun.ranges import CountOrZero, Positive
from kdrun.types import Batch, Outputs

SLOPE = 0.1  # of the LeakyReLU below zero


class FactorTransfer(DistillationLoss):
    """Absolute difference of normalised factors of the two networks' maps.

    The paraphraser, an auto-encoder of 3×3 convolutions with `rate`·C_t channels in the middle,
    learns before the main phase to reconstruct the teacher's map `[B, C_t, H, W]` (mean squared
    error) and is then frozen. In the main phase a translator (three 3×3 convolutions with
    batch normalisation) maps the student's features to a factor of the same width. Loss: mean of
    |F_s - F_t|, where F is the mean of the squared factor over its channels, divided by its L2
    norm over the places `[B, H·W]`; the larger map is averaged down first. Several tap pairs are
    summed. weight: 200 (the recipe of the tables in Tian et al., arXiv 1910.10699), for images of
    32×32 pixels; maps of fewer places differ more: use 1 to 10 for 8×8 pixels.

    rate: k of the paper, above 0; at least one channel is kept.
    variant: see `variants`.
    pretrain_epochs, pretrain_lr: of the paraphraser; with 0 epochs it stays random. As a criterion:
    minimise `loss.pretrain(student_map, teacher_map)` first, then `loss(student_map, teacher_map)`.
    Raises ConfigError for a rate of 0 or less, for a variant that does not exist, and, unless the
    variant is `paper`, for features without spatial size (fully connected layers).
    """

    id = "ft"
    full_name = "Factor transfer"
    formula = (
        "|F_s - F_t|, F = mean_c factor² divided by its L2 norm over the places; mean over batch "
        "and places. Paraphraser before: (reconstruction - f_t)², mean over all elements"
    )
    source = "Kim, Park & Kwak 2018, NeurIPS, arXiv 1802.04977, §3"
    variants = {  # noqa: RUF012
        "repdistiller": "the squared factor is averaged over its channels before normalising",
        "paper": "the whole flattened factor is divided by its L2 norm; mean over its elements",
        "paraphraser": "the factor, not squared, is averaged over its channels before normalising; "
        "squared differences (p1 = 1, p2 = 2 of the authors' code)",
    }

    def __init__(
        self,
        taps: Sequence[TapRequest] = ("last_stage",),
        rate: Positive = 0.5,
        variant: str = "repdistiller",
        pretrain_epochs: CountOrZero = 30,
        pretrain_lr: Positive | None = 0.01,
    ) -> None:
        super().__init__(taps)
        require_variant(type(self), variant)
        self.rate = rate
        self.variant = variant
        self.pretrain_epochs = pretrain_epochs
        self.pretrain_lr = pretrain_lr
        self.paraphrasers = nn.ModuleList()
        self.translators = nn.ModuleList()

    def build(self, student: Outputs, teacher: Outputs, context: LossContext) -> None:
        pairs = map_pairs(self, student, teacher)
        if self.variant != "paper":
            require_places(self, pairs, "Use loss.ft.variant=paper, or loss=fitnet.")
        widths = [(s.shape[1], t.shape[1], max(1, int(self.rate * t.shape[1]))) for s, t in pairs]
        self.paraphrasers = nn.ModuleList(Paraphraser(t, factor) for _, t, factor in widths)
        self.translators = nn.ModuleList(encoder(s, f, norm=True) for s, _, f in widths)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """Scalar from features of each tap pair; moves the translators, not the paraphrasers."""
        losses = []
        pairs = map_pairs(self, student, teacher)
        layers = zip(self.paraphrasers, self.translators, pairs, strict=True)
        for paraphraser, translator, (s, t) in layers:
            with torch.no_grad():
                factor = paraphraser(t)
            f_s, f_t = (self._normalised(f) for f in to_smaller(translator(s), factor))
            distance = F.mse_loss if self.variant == "paraphraser" else F.l1_loss
            losses.append(distance(f_s, f_t))
        return sum(losses[1:], losses[0])

    def pretraining(self) -> Pretraining | None:
        return Pretraining(self.pretrain_epochs, self.pretrain_lr)

    def pretrain_loss(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """Mean squared error of the teacher's reconstructed maps."""
        losses = []
        pairs = map_pairs(self, student, teacher)
        for paraphraser, (_, t) in zip(self.paraphrasers, pairs, strict=True):
            assert isinstance(paraphraser, Paraphraser)
            losses.append(F.mse_loss(paraphraser.reconstruct(t), t))
        return sum(losses[1:], losses[0])

    def symbol(self) -> str:
        return f"FT({tap_names(self)})"

    def _normalised(self, factor: Tensor) -> Tensor:
        """A factor `[B, C, H, W]` as rows of unit norm."""
        if self.variant == "repdistiller":
            factor = factor.square().mean(dim=1)
        elif self.variant == "paraphraser":
            factor = factor.mean(dim=1)
        return unit(factor.flatten(1), dim=1)


class Paraphraser(nn.Module):
    """Auto-encoder of a teacher's map: `[B, C, H, W]` → factor `[B, factor, H, W]`."""

    def __init__(self, channels: int, factor: int) -> None:
        super().__init__()
        self.encoder = encoder(channels, factor, norm=False)
        self.decoder = nn.Sequential(
            *_layer(nn.ConvTranspose2d(factor, factor, 3, padding=1), norm=False),
            *_layer(nn.ConvTranspose2d(factor, channels, 3, padding=1), norm=False),
            *_layer(nn.ConvTranspose2d(channels, channels, 3, padding=1), norm=False),
        )

    def forward(self, features: Tensor) -> Tensor:
        """The factor."""
        factor: Tensor = self.encoder(features)
        return factor

    def reconstruct(self, features: Tensor) -> Tensor:
        """Reconstruction of a map `[B, C, H, W]` from its factor."""
        reconstruction: Tensor = self.decoder(self.encoder(features))
        return reconstruction


def encoder(channels: int, factor: int, norm: bool) -> nn.Sequential:
    """Three 3×3 convolutions: `[B, channels, H, W]` → `[B, factor, H, W]`."""
    return nn.Sequential(
        *_layer(nn.Conv2d(channels, channels, 3, padding=1), norm),
        *_layer(nn.Conv2d(channels, factor, 3, padding=1), norm),
        *_layer(nn.Conv2d(factor, factor, 3, padding=1), norm),
    )


def _layer(convolution: nn.Conv2d | nn.ConvTranspose2d, norm: bool) -> list[nn.Module]:
    layers: list[nn.Module] = [convolution]
    if norm:
        layers.append(AdapterNorm(convolution.out_channels))
    return [*layers, nn.LeakyReLU(SLOPE)]
