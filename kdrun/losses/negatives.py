"""Sample negatives (images of other classes) as a pure function of seed, step and position.

The sampler is stateless: the random numbers are hashes, identical on every device, so a resumed run
draws the same negatives, and the device is never synchronised.
"""

import torch
from torch import Tensor, nn

from kdrun.errors import ConfigError
from kdrun.seeds import derive, generator

# The finaliser of SplitMix64 (Steele, Lea & Flood 2014), in two's complement.
STRIDE = -7046029254386353131
FACTORS = (-4658895280553007687, -7723592293110705685)
SHIFTS = (30, 27)

# Of so many numbers in a row one shares no factor with a given number below 2^31: such a number
# has at most nine prime factors, and the Jacobsthal function of nine primes is 40.
COPRIME_WITHIN = 40


class NegativeSampler(nn.Module):
    """For each image `count` different images of other classes, all equally likely.

    targets: `[N]` labels of the transfer set. seed: of all draws.
    Where a class leaves fewer than `count` others, they are drawn with replacement.

    A row of n others is walked in steps a from a start b, both random and a without common factor
    with n: position b + a·j mod n for j = 0 .. count - 1. Positions stand for images in one random
    order of the transfer set; the images of the own class among the first n are replaced by the
    others among the last, one by one. That takes two random numbers a row, not `count`. Two images
    are drawn together about as often as any others, except the few whose distance in that order
    has a large factor in common with n.
    """

    order: Tensor
    substitute: Tensor
    targets: Tensor
    class_sizes: Tensor
    class_starts: Tensor
    by_class: Tensor

    def __init__(self, targets: Tensor, num_classes: int, count: int, seed: int) -> None:
        super().__init__()
        targets = targets.cpu().long()
        sizes = torch.bincount(targets, minlength=num_classes)
        if int((sizes > 0).sum()) < 2:
            raise ConfigError("loss=crd needs images of two classes or more in the transfer set.")
        order = torch.randperm(len(targets), generator=generator(seed, "negatives"))
        self.count = count
        self.size = len(targets)
        self.key = derive(seed, "draws")
        self.with_replacement = count > self.size - int(sizes.max())
        by_class = torch.argsort(targets, stable=True)
        for name, tensor in {
            "order": order,
            "substitute": _substitutes(order, targets, sizes),
            "targets": targets,
            "class_sizes": sizes,
            "class_starts": sizes.cumsum(0) - sizes,
            "by_class": by_class,
        }.items():
            self.register_buffer(name, tensor, persistent=False)  # all follow from the seed

    def negatives(self, classes: Tensor, step: Tensor) -> Tensor:
        """Positions in the transfer set, `[B, count]`, for the images' classes `[B]`.

        step: scalar number of this draw.
        """
        others = self.size - self.class_sizes[classes]
        rows = torch.arange(len(classes), device=classes.device)
        places = torch.arange(self.count, device=classes.device)
        walk = self._coprime(others, rows, step)
        start = self._draw(step, 1, rows) % others
        positions = (start[:, None] + walk[:, None] * places) % others[:, None]
        if self.with_replacement:
            cells = rows[:, None] * self.count + places
            scarce = (others < self.count)[:, None]
            positions = torch.where(scarce, self._draw(step, 2, cells) % others[:, None], positions)
        images = self.order[positions]
        same_class = self.targets[images] == classes[:, None]
        return torch.where(same_class, self.substitute[images], images)

    def same_class(self, index: Tensor, classes: Tensor, step: Tensor) -> Tensor:
        """For each image `[B]` one of its class, perhaps itself: positions `[B]`."""
        rows = torch.arange(len(classes), device=classes.device)
        sizes = self.class_sizes[classes]
        place = self._draw(step, 3, rows) % sizes.clamp_min(1)
        images = self.by_class[(self.class_starts[classes] + place).clamp_max(self.size - 1)]
        return torch.where(sizes > 0, images, index)

    def _coprime(self, others: Tensor, rows: Tensor, step: Tensor) -> Tensor:
        """For each row a random number up to `others`, without common factor with it."""
        near = (self._draw(step, 0, rows) % others)[:, None] + torch.arange(
            1, COPRIME_WITHIN + 1, device=others.device
        )
        fits = torch.gcd(near, others[:, None]) == 1
        return near.gather(1, fits.int().argmax(dim=1, keepdim=True))[:, 0]

    def _draw(self, step: Tensor, stream: int, cells: Tensor) -> Tensor:
        """A random number of 62 bits for each cell."""
        key = _mix(step * STRIDE + self.key + stream)
        return _mix(key + cells * STRIDE) & (2**62 - 1)


def _mix(numbers: Tensor) -> Tensor:
    """A hash of 64-bit integers; the shift to the right is of unsigned numbers."""
    for shift, factor in zip(SHIFTS, FACTORS, strict=True):
        numbers = (numbers ^ ((numbers >> shift) & (2 ** (64 - shift) - 1))) * factor
    return numbers ^ ((numbers >> 31) & (2**33 - 1))


def _substitutes(order: Tensor, targets: Tensor, sizes: Tensor) -> Tensor:
    """`[N]`: for an image among the first n of `order`, n the others of its class, another one.

    As many images of a class lie among the first n as others lie among the last N - n.
    """
    place = torch.argsort(order)  # of each image in `order`
    substitutes = torch.zeros_like(order)
    for number, images in enumerate(torch.argsort(targets, stable=True).split(sizes.tolist())):
        first = len(order) - len(images)
        last = order[first:]
        substitutes[images[place[images] < first]] = last[targets[last] != number]
    return substitutes
