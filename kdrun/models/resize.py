"""Resize images to the size that a network expects."""

from torch import Tensor, nn
from torch.nn import functional as F


class Resize(nn.Module):
    """Images `[B, C, H, W]` → `[B, C, *size]`, bilinear with antialiasing."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    def forward(self, images: Tensor) -> Tensor:
        if tuple(images.shape[2:]) == self.size:
            return images
        return F.interpolate(images, self.size, mode="bilinear", antialias=True)
