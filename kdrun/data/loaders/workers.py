"""What loader processes take over from the run that starts them: no locks, no signals."""

import os
import signal
import sys
from contextlib import suppress
from types import FrameType

DESCRIPTORS = "/proc/self/fd"


def prepare_worker(worker: int) -> None:
    """Called in every loader process before its first image."""
    leave_signals_to_the_run()
    let_go_of_locks()


def leave_signals_to_the_run() -> None:
    """Ignore what a terminal or a scheduler sends to the whole process group.

    The run finishes its step, for which it needs the workers, and then ends them itself. A second
    SIGTERM ends a worker that the run could not end in another way.
    """
    for name in ("SIGINT", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)

    def once(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    signal.signal(signal.SIGTERM, once)


def let_go_of_locks() -> None:
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
