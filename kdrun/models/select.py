"""The outputs of a network that are the classes of a data set, in the data set's order."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kdrun.models.dry_run import logits_of


class SelectOutputs(nn.Module):
    """Logits `[..., N]` (or what holds them) → `[..., K]`: output `outputs[k]` becomes class k.

    Nothing is saved in a state dict.
    """

    outputs: Tensor

    def __init__(self, outputs: Sequence[int]) -> None:
        super().__init__()
        index = torch.tensor(list(outputs), dtype=torch.int64)
        self.register_buffer("outputs", index, persistent=False)

    def forward(self, output: Any) -> Tensor:
        return logits_of(output).index_select(-1, self.outputs)


def rows_of(classifier: nn.Linear | nn.Conv2d, outputs: Sequence[int]) -> nn.Linear | nn.Conv2d:
    """The classifier that computes only these outputs, in this order; it shares no weights.

    classifier: a linear layer or a 1×1 convolution.
    """
    index = torch.tensor(list(outputs), device=classifier.weight.device)
    bias = classifier.bias is not None
    made: nn.Linear | nn.Conv2d
    if isinstance(classifier, nn.Linear):
        made = nn.utils.skip_init(nn.Linear, classifier.in_features, len(outputs), bias=bias)
    else:
        made = nn.utils.skip_init(
            nn.Conv2d,
            classifier.in_channels,
            len(outputs),
            classifier.kernel_size,
            stride=classifier.stride,
            padding=classifier.padding,
            bias=bias,
        )
    made.to(classifier.weight.device, classifier.weight.dtype)
    with torch.no_grad():
        made.weight.copy_(classifier.weight.index_select(0, index))
        if classifier.bias is not None and made.bias is not None:
            made.bias.copy_(classifier.bias.index_select(0, index))
    return made.requires_grad_(False)
