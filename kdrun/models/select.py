"""Select the outputs of a network that are a data set's classes, in its order."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kdrun.models.dry_run import logits_of


class SelectOutputs(nn.Module):
    """Logits `[..., N]` (or an object with `.logits`) → `[..., K]`; output `outputs[k]` is class k.

    Not part of the state dict.
    """

    outputs: Tensor

    def __init__(self, outputs: Sequence[int]) -> None:
        super().__init__()
        index = torch.tensor(list(outputs), dtype=torch.int64)
        self.register_buffer("outputs", index, persistent=False)

    def forward(self, output: Any) -> Tensor:
        return logits_of(output).index_select(-1, self.outputs)


def rows_of(classifier: nn.Linear | nn.Conv2d, outputs: Sequence[int]) -> nn.Linear | nn.Conv2d:
    """A copy of the classifier with only these outputs, in this order.

    classifier: a linear layer or a 1×1 convolution.
    """
    index = torch.tensor(list(outputs), device=classifier.weight.device)
    bias = classifier.bias is not None
    selected: nn.Linear | nn.Conv2d
    if isinstance(classifier, nn.Linear):
        selected = nn.utils.skip_init(nn.Linear, classifier.in_features, len(outputs), bias=bias)
    else:
        selected = nn.utils.skip_init(
            nn.Conv2d,
            classifier.in_channels,
            len(outputs),
            classifier.kernel_size,
            stride=classifier.stride,
            padding=classifier.padding,
            bias=bias,
        )
    selected.to(classifier.weight.device, classifier.weight.dtype)
    with torch.no_grad():
        selected.weight.copy_(classifier.weight.index_select(0, index))
        if classifier.bias is not None and selected.bias is not None:
            selected.bias.copy_(classifier.bias.index_select(0, index))
    return selected.requires_grad_(False)
