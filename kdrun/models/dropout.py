"""Dropout whose random numbers cost little on a processor."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LEVELS = 2**16  # four numbers from each draw of 64 bits


class Dropout(nn.Dropout):
    """`nn.Dropout`, with all 64 bits of a draw used on a CPU: values `[B, D]` → the same shape.

    torch draws one number for each element there, one thread after another, which takes a third
    of the step of a wide perceptron. p is rounded to a multiple of 2⁻¹⁶; what remains is scaled by
    1 / (1 - p). Draws come from torch's generator, as always. On other devices, and compiled, it is
    torch's own.
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
