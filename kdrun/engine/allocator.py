"""Memory that the C library keeps for the next tensor instead of handing it back to the system."""

import ctypes
import os
import platform

# glibc's malloc.h: M_TRIM_THRESHOLD, M_TOP_PAD and M_MMAP_MAX, with what they are set to.
SETTINGS = ((-1, 2**31 - 1), (-2, 256 * 2**20), (-4, 0))
VARIABLES = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_", "MALLOC_MMAP_MAX_")


def keep_freed_memory() -> bool:
    """Keep freed memory in the process; returns whether this C library could be told to.

    By default glibc maps every large tensor anew, and the system clears each of its pages on the
    first touch, which costs several times what adding two such tensors does. No result changes.
    Nothing is done where the user has chosen (`MALLOC_TRIM_THRESHOLD_` and the like), or without
    glibc.
    """
    if platform.libc_ver()[0] != "glibc" or any(name in os.environ for name in VARIABLES):
        return False
    library = ctypes.CDLL(None)
    return all(library.mallopt(setting, value) == 1 for setting, value in SETTINGS)
