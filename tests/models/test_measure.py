"""Parameters and FLOPs."""

import torch
from torch import nn

from kdrun.models.measure import count_flops, count_parameters


def test_counts_of_a_hand_made_network() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.Dropout(0.5),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    )
    assert count_parameters(network) == (3 * 8 * 9 + 8) + 16 + (8 * 5 + 5)
    per_image = 2 * (3 * 8 * 9 * 10 * 10) + 2 * 8 * 5
    network.train()
    for batch in (1, 4):
        assert count_flops(network, torch.zeros(batch, 3, 10, 10)) == per_image
    assert network.training
    assert network[1].num_batches_tracked == 0
