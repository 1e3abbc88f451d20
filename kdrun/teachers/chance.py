"""Whether answers are better than chance, and whether one order of the classes beats another."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

SIGMAS = 3.0  # standard errors that a difference must exceed


@dataclass(frozen=True)
class Answers:
    """How many of `count` images are answered rightly, and how many chance would answer.

    chance: the share of right answers that the same answers would have if they had nothing to do
    with the images: Σ over classes of (share of the answers) · (share of the labels). Of a constant
    answer it is that class's share, with equally frequent classes it is 1/C.
    majority: the share of the most frequent label.
    """

    right: int
    count: int
    chance: float
    majority: float

    @property
    def top1(self) -> float:
        """Percent."""
        return 100.0 * self.right / self.count

    @property
    def limit(self) -> float:
        """So many right answers are still near chance.

        Three standard errors above chance, with few images at most half way from it to all right.
        """
        error = math.sqrt(self.count * self.chance * (1.0 - self.chance))
        halfway = self.count * (1.0 + self.chance) / 2.0
        return min(self.count * self.chance + SIGMAS * error, halfway)

    @property
    def near_chance(self) -> bool:
        """Whether the answers cannot be told from chance."""
        return self.right <= self.limit


def answers(logits: Tensor, targets: Tensor) -> Answers:
    """The statistics of logits `[N, C]` against labels `[N]`."""
    classes = logits.shape[1]
    given = logits.argmax(dim=1)
    label_shares = torch.bincount(targets, minlength=classes).double() / len(targets)
    answer_shares = torch.bincount(given, minlength=classes).double() / len(targets)
    return Answers(
        right=int((given == targets).sum()),
        count=len(targets),
        chance=float((label_shares * answer_shares).sum()),
        majority=float(label_shares.max()),
    )


def clearly_better(one: Tensor, other: Tensor, targets: Tensor) -> bool:
    """Whether logits `one` beat `other` `[N, C]` on the same images, beyond three standard errors.

    McNemar's test: of the images that only one of the two answers rightly, more than chance would
    allow are the first one's: won - lost > 3·√(won + lost), so ten at the least.
    """
    first = one.argmax(dim=1) == targets
    second = other.argmax(dim=1) == targets
    won, lost = int((first & ~second).sum()), int((second & ~first).sum())
    return won - lost > SIGMAS * math.sqrt(won + lost)
