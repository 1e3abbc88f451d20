"""Frames of recordings, each seen with its neighbours, as images cut out when asked for."""

import torch
from torch import Tensor

from kdrun.data.images import LazyImages


class WindowedFrames(LazyImages):
    """One image `[1, before + 1 + after, D]` for each frame of each recording.

    recordings: `[frames, D]` float32 each. A window that reaches over an end of its recording
    repeats the frame there; it never holds frames of another recording. Windows overlap, so only
    the frames themselves are kept in memory.
    """

    def __init__(self, recordings: list[Tensor], before: int, after: int) -> None:
        padded = [
            torch.cat([frames[:1].expand(before, -1), frames, frames[-1:].expand(after, -1)])
            for frames in recordings
        ]
        self.rows = torch.cat(padded)
        lengths = torch.tensor([len(frames) for frames in recordings])
        first = (
            torch.tensor([len(frames) for frames in padded]).cumsum(0) - lengths - before - after
        )
        self.starts = torch.cat(
            [torch.arange(n) + at for n, at in zip(lengths.tolist(), first.tolist(), strict=True)]
        )
        self.context = torch.arange(before + 1 + after)
        self.shape = (len(self.starts), 1, len(self.context), self.rows.shape[1])
        self.dtype = self.rows.dtype

    def gather(self, index: Tensor) -> Tensor:
        return self.rows[self.starts[index][:, None] + self.context].unsqueeze(1)
