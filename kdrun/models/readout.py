"""Combine the classifiers of a network with distillation tokens into its logits."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdrun.errors import ConfigError, did_you_mean

READOUTS = ("class", "distillation", "both")
FUSIONS = ("probabilities", "logits")


class ManyHeads(nn.Module):
    """Base of networks with a class head and heads of distillation tokens.

    inference, fusion: how heads are combined in evaluation mode (`read_out`).
    class_head: module path of the class token's classifier. distillation_heads: module paths of the
    distillation tokens' classifiers, in token order.
    """

    inference: str
    fusion: str
    class_head: str
    distillation_heads: list[str]

    def all_heads(self, images: Tensor) -> list[Tensor]:
        """Logits `[B, C]` of the class head, then of each distillation token's head."""
        raise NotImplementedError


def require_readout(inference: str, fusion: str, distillation_heads: int) -> None:
    """Raise ConfigError unless these settings suit the number of distillation heads."""
    for name, value, known in (("inference", inference, READOUTS), ("fusion", fusion, FUSIONS)):
        if value not in known:
            hint = did_you_mean(value, known) or f" Choices: {', '.join(known)}."
            raise ConfigError(f"{name}={value} does not exist.{hint}")
    if inference == "distillation" and not distillation_heads:
        raise ConfigError(
            "inference=distillation needs a distillation head: set distillation_tokens=1 (or one "
            "for each teacher), or inference=class."
        )


def read_out(heads: Sequence[Tensor], inference: str, fusion: str) -> Tensor:
    """The logits `[B, C]` of a network from those of its heads, the class head first.

    inference: class | distillation (all distillation heads) | both (all heads).
    fusion: of several heads. probabilities: log of the mean softmax, as in the DeiT paper
    (arXiv 2012.12877, §4). logits: mean of the logits, as in the authors' code.
    """
    selected = {"class": heads[:1], "distillation": heads[1:], "both": heads}[inference]
    if len(selected) == 1:
        return selected[0]
    stacked = torch.stack(list(selected))
    if stacked.dtype in (torch.float16, torch.bfloat16):
        stacked = stacked.float()
    if fusion == "logits":
        return stacked.mean(dim=0)
    log_p = F.log_softmax(stacked, dim=2)
    return torch.logsumexp(log_p, dim=0) - math.log(len(selected))
