"""How a network with several classifiers answers: by one of them, or by all together."""

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

    inference, fusion: how it answers in evaluation mode (`read_out`).
    class_head: the module path of the class token's classifier; distillation_heads: those of the
    distillation tokens' classifiers, in the order of the tokens.
    """

    inference: str
    fusion: str
    class_head: str
    distillation_heads: list[str]

    def all_heads(self, images: Tensor) -> list[Tensor]:
        """Logits `[B, C]` of the class head, then of each distillation token's head."""
        raise NotImplementedError


def require_readout(inference: str, fusion: str, distillation_heads: int) -> None:
    """Raise ConfigError unless a network with so many distillation heads can answer this way."""
    for name, value, known in (("inference", inference, READOUTS), ("fusion", fusion, FUSIONS)):
        if value not in known:
            hint = did_you_mean(value, known) or f" There are: {', '.join(known)}."
            raise ConfigError(f"{name}={value} does not exist.{hint}")
    if inference == "distillation" and not distillation_heads:
        raise ConfigError(
            "inference=distillation needs a distillation head: set distillation_tokens=1 (or one "
            "for each teacher), or inference=class."
        )


def read_out(heads: Sequence[Tensor], inference: str, fusion: str) -> Tensor:
    """The logits `[B, C]` a network answers with, from those of its heads, the class head first.

    inference: class | distillation (all distillation heads) | both (all heads).
    fusion: of several heads. probabilities: the logarithm of the mean of their softmaxes, as in
    the paper of DeiT (arXiv 2012.12877, §4); its softmax is that mean. logits: their mean, as in
    the authors' code.
    """
    chosen = {"class": heads[:1], "distillation": heads[1:], "both": heads}[inference]
    if len(chosen) == 1:
        return chosen[0]
    stacked = torch.stack(list(chosen))
    if stacked.dtype in (torch.float16, torch.bfloat16):
        stacked = stacked.float()
    if fusion == "logits":
        return stacked.mean(dim=0)
    log_p = F.log_softmax(stacked, dim=2)
    return torch.logsumexp(log_p, dim=0) - math.log(len(chosen))
