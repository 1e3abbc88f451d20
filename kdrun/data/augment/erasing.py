"""Random erasing of normalised images (Zhong et al. 2017, arXiv 1708.04896)."""

import torch
from torch import Tensor

from kdrun.config.augment import ErasingConfig
from kdrun.data.augment.boxes import ERASE_NUMBERS, erase_boxes
from kdrun.data.augment.random_numbers import uniform
from kdrun.seeds import generator

NAME = "erasing"


def erase(images: Tensor, erasing: ErasingConfig, seed: int, number: int, index: Tensor) -> Tensor:
    """Images `[B, C, H, W]` with rectangles of their mean colour, of one colour or of noise.

    The rectangles are a pure function of (seed, number, index `[B]` on the CPU).
    """
    draws = uniform(seed, (NAME, number), index, ERASE_NUMBERS)
    height, width = images.shape[2:]
    boxes = erase_boxes(draws, (height, width), erasing.prob, erasing.scale, erasing.ratio)
    if erasing.mode == "const":
        inside = box_mask(boxes.to(images.device, non_blocking=True), (height, width))
        return images.masked_fill(inside, 0.0)
    erased = images.clone()
    for row, (top, left, h, w) in enumerate(boxes.tolist()):
        if h == 0:
            continue
        stream = generator(seed, NAME, number, int(index[row]))
        size = (h, w) if erasing.mode == "pixel" else (1, 1)
        noise = torch.randn(images.shape[1], *size, generator=stream)
        erased[row, :, top : top + h, left : left + w] = noise.to(images.device)
    return erased


def box_mask(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """`[B, 1, H, W]` bool: inside the boxes `[B, 4]` (top, left, height, width)."""
    top, left, height, width = (side.view(-1, 1, 1, 1) for side in boxes.unbind(1))
    rows = torch.arange(size[0], device=boxes.device).view(1, 1, -1, 1)
    columns = torch.arange(size[1], device=boxes.device).view(1, 1, 1, -1)
    down = (rows >= top) & (rows < top + height)
    return down & (columns >= left) & (columns < left + width)
