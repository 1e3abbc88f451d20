"""Which of the processes that train one network together this is, as `torchrun` says it.

Nothing here needs torch: it decides who writes files and who speaks.
"""

import os
from dataclasses import dataclass

# What torchrun sets; without all of them this process is alone.
VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR")


@dataclass(frozen=True)
class World:
    """rank: number of this process, from 0. size: how many there are.

    local, local_size: the same within this machine; `local` is the number of the process's GPU.
    """

    rank: int = 0
    size: int = 1
    local: int = 0
    local_size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes the files and says what happens."""
        return self.rank == 0

    def share(self, total: int) -> tuple[int, int]:
        """(first, behind the last) of this process's part of `total` rows.

        The parts differ by one row at most. With fewer than two rows for each process, every one
        has all of them: batch normalisation cannot use a single image.
        """
        if total < 2 * self.size:
            return 0, total
        each, more = divmod(total, self.size)
        first = self.rank * each + min(self.rank, more)
        return first, first + each + (self.rank < more)


ALONE = World()


def world() -> World:
    """This process among its peers."""
    if any(name not in os.environ for name in VARIABLES):
        return ALONE
    return World(*(int(os.environ[name]) for name in VARIABLES[:4]))
