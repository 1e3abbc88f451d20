"""How large a data set will be, compared with the memory before it is made."""

import os
from pathlib import Path

from kdrun.errors import ConfigError


def images_words(count: int, shape: tuple[int, int, int], itemsize: int = 1) -> str:
    """`1,000 images of 3×224×224, 150.5 MB`."""
    sides = "×".join(map(str, shape))
    return f"{count:,} images of {sides}, {gigabytes(_bytes(count, shape, itemsize))}"


def require_memory(
    count: int, shape: tuple[int, int, int], fix: str, itemsize: int = 1, free: int | None = None
) -> None:
    """Raise ConfigError unless so many images fit into the memory that is available.

    shape: (C, H, W). fix: what to set instead. free: bytes, if they are known.
    """
    free = available_memory() if free is None else free
    needed = _bytes(count, shape, itemsize)
    if free is not None and needed > free:
        raise ConfigError(
            f"{images_words(count, shape, itemsize)}, do not fit into memory: "
            f"{gigabytes(free)} available. {fix}"
        )


def available_memory() -> int | None:
    """Bytes that this process may still take, by the system and by its control group."""
    found = [size for size in (_of_system(), _of_group()) if size is not None]
    return min(found, default=None)


def gigabytes(size: int) -> str:
    """A size in MB, or GB from 1 GB on."""
    return f"{size / 1e9:,.1f} GB" if size >= 10**9 else f"{size / 1e6:,.1f} MB"


def _bytes(count: int, shape: tuple[int, int, int], itemsize: int) -> int:
    return count * shape[0] * shape[1] * shape[2] * itemsize


def _of_system() -> int | None:
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


def _of_group() -> int | None:
    """What a container may take (Linux, cgroup 2)."""
    group = Path("/sys/fs/cgroup")
    try:
        limit = int((group / "memory.max").read_text())  # `max`: a ValueError
        return max(0, limit - int((group / "memory.current").read_text()))
    except (OSError, ValueError):
        return None
