"""A network that includes its input normalisation: image arrays in, logits out."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kdrun.models.select import SelectOutputs
from kdrun.types import Normalisation

UINT8, FLOAT32 = "uint8", "float32"
DTYPES = {UINT8: torch.uint8, FLOAT32: torch.float32}


class Folded(nn.Module):
    """`network` after the training loader's normalisation.

    images `[B, C, H, W]` → logits `[B, classes]` in float32. `uint8` images are pixels 0..255;
    floating-point images must be scaled already (photographs: 0..1). The arithmetic is the
    loader's, one multiplication and one addition, so that the results are equal.
    """

    scale: Tensor
    byte_scale: Tensor
    shift: Tensor

    def __init__(
        self,
        network: nn.Module,
        normalisation: Normalisation,
        outputs: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.select = None if outputs is None else SelectOutputs(outputs)
        mean = torch.tensor(normalisation.mean, dtype=torch.float64).view(-1, 1, 1)
        std = torch.tensor(normalisation.std, dtype=torch.float64).view(-1, 1, 1)
        for name, value in (
            ("scale", 1 / std),
            ("byte_scale", 1 / (255.0 * std)),
            ("shift", -mean / std),
        ):
            self.register_buffer(name, value.float(), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        scale = self.scale if images.dtype.is_floating_point else self.byte_scale
        output = self.network(images.to(scale.dtype) * scale + self.shift)
        logits: Tensor = getattr(output, "logits", output)
        return logits if self.select is None else self.select(logits)
