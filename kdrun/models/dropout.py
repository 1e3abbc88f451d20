"""Dropout with cheap random numbers on the CPU."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LEVELS = 2**16  # four numbers from each draw of 64 bits


class Dropout(nn.Dropout):
    """`nn.Dropout` that uses all 64 bits of a draw on the CPU; keeps the shape `[B, D]`.

    torch draws one number per element on a single thread, which takes a third of the training step
    of a wide MLP. p is rounded to a multiple of 2⁻¹⁶; kept values are scaled by 1 / (1 - p). Draws
    use torch's global generator. On other devices, and when compiled, this is torch's dropout.
    Source: Srivastava et al., JMLR 15 (2014), section 4 and 10 (scaling while training).
    """

    def forward(self, input: Tensor) -> Tensor:
        plain = input.device.type != "cpu" or torch.compiler.is_compiling()
        if plain or not self.training or not 0.0 < self.p < 1.0:
            return F.dropout(input, self.p, self.training, self.inplace)
        draws = torch.empty(-(-input.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        numbers = draws.view(torch.int16)[: input.numel()].view(input.shape)
        dropped = round(self.p * LEVELS)
        mask = (numbers >= dropped - LEVELS // 2).to(input.dtype)
        return input * mask.mul_(LEVELS / (LEVELS - dropped))
