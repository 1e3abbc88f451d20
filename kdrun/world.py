"""Rank and world size of this process, from the variables of `torchrun`.

Does not import torch: it also decides which process writes files and prints.
"""

import os
from dataclasses import dataclass

# Set by torchrun; unless all are set, this is a single process.
VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR")


@dataclass(frozen=True)
class World:
    """rank: index of this process. size: number of processes.

    local, local_size: the same within this machine; `local` is the index of the process's GPU.
    """

    rank: int = 0
    size: int = 1
    local: int = 0
    local_size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0

    def share(self, total: int) -> tuple[int, int]:
        """(start, end) of this process's share of `total` rows.

        Shares differ by at most one row. With fewer than two rows per process, every process gets
        all rows, because batch normalisation cannot use a single image.
        """
        if total < 2 * self.size:
            return 0, total
        base, extra = divmod(total, self.size)
        start = self.rank * base + min(self.rank, extra)
        return start, start + base + (self.rank < extra)


ALONE = World()


def world() -> World:
    """The world of this process, from the environment."""
    if any(name not in os.environ for name in VARIABLES):
        return ALONE
    return World(*(int(os.environ[name]) for name in VARIABLES[:4]))
