"""Compare the size of a data set with the available memory before creating it."""

import os
from pathlib import Path

from kdrun.errors import ConfigError


def format_images(count: int, shape: tuple[int, int, int], itemsize: int = 1) -> str:
    """`1,000 images of 3×224×224, 150.5 MB`."""
    sides = "×".join(map(str, shape))
    return f"{count:,} images of {sides}, {format_bytes(_bytes(count, shape, itemsize))}"


def require_memory(
    count: int, shape: tuple[int, int, int], fix: str, itemsize: int = 1, free: int | None = None
) -> None:
    """Raise ConfigError unless `count` images fit into the available memory.

    shape: (C, H, W). fix: advice for the message. free: available bytes; None measures them.
    """
    free = available_memory() if free is None else free
    needed = _bytes(count, shape, itemsize)
    if free is not None and needed > free:
        raise ConfigError(
            f"{format_images(count, shape, itemsize)}, exceed the available memory of "
            f"{format_bytes(free)}. {fix}"
        )


def available_memory() -> int | None:
    """Bytes available to this process, limited by the system and its control group."""
    limits = [size for size in (system_memory(), _cgroup_memory()) if size is not None]
    return min(limits, default=None)


def format_bytes(size: int) -> str:
    """A size in MB, or GB from 1 GB on."""
    return f"{size / 1e9:,.1f} GB" if size >= 10**9 else f"{size / 1e6:,.1f} MB"


def _bytes(count: int, shape: tuple[int, int, int], itemsize: int) -> int:
    return count * shape[0] * shape[1] * shape[2] * itemsize


def system_memory() -> int | None:
    """Free memory of the machine in bytes, or all of it where the system does not tell."""
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError, AttributeError):
        return None


def _cgroup_memory() -> int | None:
    """Bytes left in this container's limit (Linux, cgroup 2)."""
    group = Path("/sys/fs/cgroup")
    try:
        limit = int((group / "memory.max").read_text())  # `max`: a ValueError
        return max(0, limit - int((group / "memory.current").read_text()))
    except (OSError, ValueError):
        return None
