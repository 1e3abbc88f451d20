"""Detach loader workers from the locks and signals of the run that starts them."""

import os
import signal
import sys
from contextlib import suppress
from types import FrameType

DESCRIPTORS = "/proc/self/fd"


def prepare_worker(worker: int) -> None:
    """Called in every worker before its first batch."""
    ignore_group_signals()
    release_inherited_locks()


def ignore_group_signals() -> None:
    """Ignore signals that a terminal or scheduler sends to the whole process group.

    The run needs its workers to finish the current step, then stops them itself. A second SIGTERM
    terminates a worker.
    """
    for name in ("SIGINT", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)

    def ignore_first(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    signal.signal(signal.SIGTERM, ignore_first)


def release_inherited_locks() -> None:
    """Close the lock files that this fork inherited from the run.

    The system releases a lock when the last process with the open file exits. A worker notices the
    death of its run only after seconds, and until then nobody could resume the run. The run keeps
    its locks. Workers started by spawn inherit none, and filelock 4 closes them itself.
    """
    if sys.platform != "linux":
        return
    for name in os.listdir(DESCRIPTORS):
        with suppress(OSError):
            if os.readlink(f"{DESCRIPTORS}/{name}").endswith(".lock"):
                os.close(int(name))
