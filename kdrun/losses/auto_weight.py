"""`weight: auto`: the weight that gives a loss a stated gradient norm relative to CE.

Imports no torch: `kdrun show` prints the ratios.
"""

import math
from dataclasses import dataclass, replace
from typing import cast

from kdrun.config.schema import LossConfig
from kdrun.errors import ConfigError
from kdrun.ranges import LARGEST_NUMBER

# Loss → the ratio that its published weight gives at the start of training, for the losses with
# published figures of ResNet-56 → ResNet-20 on CIFAR-100: benchmarks/measure_weights.py.
PUBLISHED_RATIOS = {
    "at": 18.0,
    "cc": 0.65,
    "crd": 1.5,
    "dist": 16.0,
    "dkd": 2.0,
    "fitnet": 82.0,
    "kd": 12.0,
    "logit_std": 28.0,
    "nst": 20.0,
    "pkt": 0.77,
    "rkd": 34.0,
    "sp": 22.0,
    "vid": 0.03,
}
DIGITS = 4  # of a measured weight, so that the printed one can be typed
PLACEHOLDER = 0.5  # of a soft loss, while CE weighs 1 - its weight


@dataclass(frozen=True)
class AutoWeight:
    """How a weight is measured.

    ratio: gradient norm of the weighted loss as a multiple of that of the weighted CE.
    batches: number of training batches over which both norms are averaged.
    shares: CE weighs 1 - the weight of this loss.
    """

    ratio: float
    batches: int
    shares: bool = False

    @classmethod
    def of(cls, config: LossConfig, loss_id: str, shares: bool) -> "AutoWeight | None":
        """None for a weight that is a number. loss_id: of the loss's class."""
        if not config.is_auto:
            return None
        ratio = config.auto_ratio or PUBLISHED_RATIOS.get(loss_id, 1.0)
        return cls(ratio, config.auto_batches, shares)

    def placeholder(self) -> float:
        """The weight during the measurement."""
        return PLACEHOLDER if self.shares else 1.0

    def solve(self, name: str, ce_norm: float, norm: float, ce_weight: float) -> float:
        """The weight. ce_norm, norm: unweighted gradient norms of CE and of the loss.

        ce_weight: of CE, unless it follows from this weight.
        Raises ConfigError if the weight is not a usable number.
        """
        setting = f"loss.{name}.weight"
        if not (math.isfinite(ce_norm) and math.isfinite(norm)):
            raise ConfigError(
                f"{setting}=auto cannot be measured: the gradient is not finite in the first "
                f"{self.batches} batches. Set {setting} to a number."
            )
        wanted = self.ratio * ce_norm
        if norm == 0:
            weight = math.inf
        elif self.shares:  # w · norm = ratio · (1 - w) · ce_norm
            weight = wanted / (norm + wanted)
        else:
            weight = ce_weight * wanted / norm
        if not 0 < weight <= LARGEST_NUMBER:
            raise ConfigError(
                f"{setting}=auto cannot be measured: {name} sends a gradient of norm {norm:.3g} "
                f"into the student and CE one of {ce_norm:.3g}. Set {setting} to a number."
            )
        rounded = float(f"{weight:.{DIGITS}g}")
        return min(rounded, 1.0 - 10.0**-DIGITS) if self.shares else rounded  # CE keeps a weight


def even_ratios(losses: dict[str, LossConfig]) -> dict[str, LossConfig]:
    """The losses with a default ratio of 1: the published ones are for frozen teachers."""
    return {
        name: replace(loss, auto_ratio=loss.auto_ratio or 1.0) if loss.is_auto else loss
        for name, loss in losses.items()
    }


def initial_weight(config: LossConfig, auto: AutoWeight | None, alpha: float | None) -> float:
    """The weight of a loss, or a placeholder. alpha: if it is given and this loss is soft."""
    if auto is None:
        require_number(config.id, config)
        return alpha if alpha is not None else cast(float, config.weight)
    if alpha is not None:
        raise ConfigError(
            f"alpha={alpha:g} is the weight of {config.id}, and loss.{config.id}.weight=auto has "
            "it measured: leave out one of the two."
        )
    return auto.placeholder()


def require_measurable(name: str, ce_weight: float, only_pretrains: bool) -> None:
    """Raise ConfigError for a weight that cannot be measured."""
    if ce_weight == 0:
        raise ConfigError(
            f"loss.{name}.weight=auto compares the loss with CE, which has weight 0 here: set "
            f"ce=1, or loss.{name}.weight to a number."
        )
    if only_pretrains:
        raise ConfigError(
            f"loss.{name}.weight=auto: {name} acts before the main phase and has no gradient in "
            f"it. Set loss.{name}.weight to a number."
        )


def require_number(name: str, config: LossConfig) -> None:
    """Raise ConfigError for settings of a measured weight next to a weight that is a number."""
    given = [key for key in ("auto_ratio",) if config.auto_ratio is not None]
    given += ["auto_batches"] if config.auto_batches != LossConfig.auto_batches else []
    if given and not config.is_auto:
        raise ConfigError(
            f"loss.{name}.{given[0]} would change nothing: loss.{name}.weight={config.weight:g} is "
            f"not measured. Set loss.{name}.weight=auto, or leave {given[0]} out."
        )
