"""Loader processes hold nothing of the run that started them."""

import os
import sys
from contextlib import suppress

DESCRIPTORS = "/proc/self/fd"


def let_go_of_locks(worker: int) -> None:
    """Close the lock files that this process, a fork of the run, has inherited.

    The system gives a lock up when the last process that has the file open is gone. A worker
    notices only after seconds that its run was killed, and until then nobody could go on with the
    run. Closing them here takes nothing from the run. Workers that are no forks have none, and
    filelock 4 closes its own.
    """
    if sys.platform != "linux":
        return
    for name in os.listdir(DESCRIPTORS):
        with suppress(OSError):
            if os.readlink(f"{DESCRIPTORS}/{name}").endswith(".lock"):
                os.close(int(name))
