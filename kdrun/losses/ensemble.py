"""Several teachers: their weights and the mean of their soft targets."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from kdrun.config.schema import EnsembleConfig
from kdrun.errors import ConfigError
from kdrun.losses.base import full_precision

TERMS, SOFT_TARGETS = "terms", "soft_targets"


@dataclass(frozen=True)
class Ensemble:
    """How the teachers of one student are combined.

    shares: one per teacher, above 0, summing to 1.
    average: `terms`: each loss is computed per teacher and averaged, `Σ share_i · loss_i`.
    `soft_targets`: the teachers' probabilities are averaged and each loss is computed once.
    """

    shares: tuple[float, ...] = (1.0,)
    average: str = TERMS

    @classmethod
    def of(cls, config: EnsembleConfig, teachers: int) -> "Ensemble":
        """Ensemble of `teachers` teachers. Raises ConfigError for another number of weights."""
        count = max(teachers, 1)
        weights = config.weights or [1.0] * count
        if len(weights) != count:
            plural = "s" if len(weights) != 1 else ""
            raise ConfigError(
                f"teacher.weights={weights} has {len(weights)} value{plural} for {count} "
                f"teacher{'s' if count != 1 else ''}: give one per teacher."
            )
        total = sum(weights)
        return cls(tuple(weight / total for weight in weights), config.average)

    @property
    def targets(self) -> int:
        """Number of targets per loss: one per teacher, or 1 when soft targets are averaged."""
        return len(self.shares) if self.average == TERMS else 1

    @property
    def even(self) -> bool:
        """Whether all teachers have the same share."""
        return len(set(self.shares)) == 1

    def mean(self, values: Sequence[Tensor]) -> Tensor:
        """`Σ share_i · value_i` of one scalar per teacher."""
        if len(values) == 1:
            return values[0]
        if self.even:
            return torch.stack(list(values)).mean()
        return torch.stack(
            [share * value for share, value in zip(self.shares, values, strict=True)]
        ).sum()

    def describe(self) -> str:
        """Suffix of the printed objective; empty for one teacher."""
        if len(self.shares) == 1:
            return ""
        what = "each term averaged" if self.average == TERMS else "soft targets averaged"
        weights = "" if self.even else f" weighing {', '.join(f'{s:.3g}' for s in self.shares)}"
        return f"; {what} over {len(self.shares)} teachers{weights}"


def mean_soft_targets(
    logits: Sequence[Tensor], shares: Sequence[float], temperature: float
) -> Tensor:
    """Logits `[B, C]` whose softmax at `temperature` is the mean of the teachers'.

    `T · log Σ share_i · softmax(z_i / T)`: Hinton et al. 2015, arXiv 1503.02531, §2 (an arithmetic
    mean of the predictive distributions). logits: one `[B, C]` per teacher.
    """
    logs = [
        F.log_softmax(full_precision(z) / temperature, dim=1) + math.log(share)
        for z, share in zip(logits, shares, strict=True)
    ]
    return temperature * torch.logsumexp(torch.stack(logs), dim=0)
