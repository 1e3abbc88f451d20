"""Random numbers as a pure function of (seed, image): any subset of images in any order.

A counter-based generator (splitmix64, Steele et al. 2014) instead of a stream: the numbers of one
image do not depend on which other images are drawn, so a batch costs only its own draws.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from kdrun.seeds import derive

STEP = np.uint64(0x9E3779B97F4A7C15)


def uniform(seed: int, names: tuple[str | int, ...], index: Tensor, count: int) -> Tensor:
    """`[B, count]` float64 in [0, 1) for the images at `index` `[B]` (on the CPU).

    names: of the stream, e.g. ("policy", epoch).
    """
    start = np.uint64(derive(seed, *names))
    images = index.numpy().astype(np.uint64)
    with np.errstate(over="ignore"):  # arithmetic modulo 2⁶⁴
        keys = _mixed(start + (images + np.uint64(1)) * STEP)
        counters = np.arange(1, count + 1, dtype=np.uint64) * STEP
        bits = _mixed(_mixed(keys[:, None] + counters[None, :]))
    return torch.from_numpy((bits >> np.uint64(11)).astype(np.float64) * 2.0**-53)


def normal(seed: int, names: tuple[str | int, ...], index: Tensor, count: int) -> Tensor:
    """`[B, count]` float64, standard normal (Box–Muller), as `uniform`."""
    draws = uniform(seed, names, index, 2 * count)
    radius = (-2 * torch.log1p(-draws[:, :count])).sqrt()
    return radius * torch.cos(2 * torch.pi * draws[:, count:])


def _mixed(bits: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: npt.NDArray[np.uint64] = bits ^ (bits >> np.uint64(31))
    return mixed
