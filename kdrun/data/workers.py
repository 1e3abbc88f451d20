"""Loader processes do not outlive the run that started them."""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # of <sys/prctl.h>


def end_with_parent(worker: int) -> None:
    """Have the system end this process when its parent dies, however that happens.

    On Linux a worker is a fork and holds the files its parent had open, the lock of the run's
    folder among them. Left to itself it notices after seconds that the parent was killed, and until
    then nobody could go on with the run. Elsewhere workers are started anew and hold nothing.
    """
    if sys.platform != "linux":
        return
    parent = os.getppid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died in between
        os._exit(1)
