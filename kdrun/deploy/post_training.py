"""Post-training quantisation to the grids of `student.quantize`, by observing ranges."""

import copy
from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor

from kdrun.deploy.student import LoadedNetwork
from kdrun.models.build import sample_images
from kdrun.models.quantisation.arithmetic import TrainingArithmetic
from kdrun.models.quantisation.quantise import quantise, quantisers_of


@torch.no_grad()
def calibrated(source: LoadedNetwork, kind: str, images: Iterable[Tensor]) -> LoadedNetwork:
    """A quantised copy of a network in full precision. kind: int8 | w4a8.

    images: batches `[B, C, H, W]` as stored. The first sets the ranges, the others move them as in
    training. Raises ConfigError for a network without a layer that can be quantised.
    """
    card = replace(source.card, quantize=kind)
    network = copy.deepcopy(source.network)
    quantise(network, kind, sample_images(network, card.built_for), card.name)
    quantisers = quantisers_of(network)
    assert quantisers is not None
    result = LoadedNetwork(network, card)
    quantisers.arithmetic = TrainingArithmetic()  # observes; the network stays in eval mode
    for batch in images:
        result(batch)
    quantisers.arithmetic = None
    return result
