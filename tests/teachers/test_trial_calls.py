"""A teacher is tried before the first step; CUDA graphs reuse the memory of its outputs."""

from pathlib import Path

import torch
from torch import Tensor, nn

from kdrun.teachers.cache_setup import _measure_agreement
from kdrun.types import Outputs


class Reusing(nn.Module):
    """Each call overwrites what the one before returned, as compiled networks do on a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.memory: dict[int, Tensor] = {}

    def forward(self, images: Tensor) -> Outputs:
        means = images.flatten(1)[:, :3]
        memory = self.memory.setdefault(len(means), torch.empty_like(means))
        for other in self.memory.values():
            other.fill_(torch.nan)
        return Outputs(memory.copy_(means))


def test_outputs_of_earlier_calls_are_copied(tmp_path: Path) -> None:
    images = torch.randn(640, 1, 4, 4)
    measured = _measure_agreement(tmp_path, Reusing(), images, 16, (3, 0), torch.device("cpu"))
    assert measured.rows
    assert measured.batch
