"""Make glibc keep freed memory for the next tensor instead of returning it to the system."""

import ctypes
import os
import platform

# (option, value) of glibc's malloc.h: M_TRIM_THRESHOLD, M_TOP_PAD and M_MMAP_MAX.
SETTINGS = ((-1, 2**31 - 1), (-2, 256 * 2**20), (-4, 0))
VARIABLES = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_", "MALLOC_MMAP_MAX_")


def keep_freed_memory() -> bool:
    """Keep freed memory in the process; returns whether the C library accepted the settings.

    By default glibc maps fresh pages for every large tensor, and the kernel zeroes each page on
    first access, which costs several times as much as adding two such tensors. Results do not
    change. Does nothing without glibc, or if the user has set `MALLOC_TRIM_THRESHOLD_` or a similar
    variable.
    """
    if platform.libc_ver()[0] != "glibc" or any(name in os.environ for name in VARIABLES):
        return False
    library = ctypes.CDLL(None)
    return all(library.mallopt(setting, value) == 1 for setting, value in SETTINGS)
