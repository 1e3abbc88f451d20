"""Whether a network gives an image the same bits whatever else is in its batch."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Agreement:
    """Measured for a teacher on this machine.

    rows: an image's outputs in a chunk are the same bits whatever else is in it, and wherever.
    batch: they are those of a training batch of the size that was tried.
    """

    rows: bool
    batch: bool


@torch.no_grad()
def agreement(
    run: Callable[[Tensor], Tensor], images: Tensor, chunk: int, batch_size: int
) -> Agreement:
    """Try `run` (images `[N, ...]` → `[N, width]`) on chunks and batches of `images`.

    images: at least max(chunk, batch_size) of them, in their layout.
    """
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    layout = torch.channels_last if _is_channels_last(images) else torch.contiguous_format

    def in_parts(source: Tensor, size: int) -> Tensor:
        whole = len(source) // size * size
        parts = source[:whole].split(size)
        return torch.cat([run(part.contiguous(memory_format=layout)) for part in parts])

    chunks = in_parts(images, chunk)
    turned = in_parts(images[order], chunk)
    known = torch.full((len(images),), -1)
    known[order[: len(turned)]] = torch.arange(len(turned))
    both = torch.nonzero((known >= 0) & (torch.arange(len(images)) < len(chunks)))[:, 0]
    rows = torch.equal(chunks[both], turned[known[both]])
    direct = in_parts(images, batch_size)
    shared = min(len(direct), len(chunks))
    return Agreement(rows, rows and torch.equal(direct[:shared], chunks[:shared]))


def _is_channels_last(images: Tensor) -> bool:
    return images.dim() == 4 and images.is_contiguous(memory_format=torch.channels_last)
