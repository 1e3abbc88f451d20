"""Format numbers with their units."""

import math


def percent(value: float) -> str:
    """`93.10`, of a value already in percent."""
    return f"{value:.2f}"


def points(value: float) -> str:
    """A difference of percentages, signed: `+1.40`."""
    return f"{round(value, 2) + 0.0:+.2f}"  # + 0.0: nothing is -0.00


def loss(value: float) -> str:
    """Four significant digits."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    digits = max(0, 3 - math.floor(math.log10(abs(value))))
    return f"{value:.{digits}f}" if digits <= 6 else f"{value:.3e}"


def count(value: int) -> str:
    """`1,233,540`."""
    return f"{value:,}"


def seconds(value: float) -> str:
    """`0.8 s`, `42 s`, `1m 23s`, `2h 05m`."""
    if value < 9.95:
        return f"{value:.1f} s"
    whole = round(value)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    return f"{whole // 3600}h {whole % 3600 // 60:02d}m"


def size(value: float) -> str:
    """Bytes: `12 kB`, `3.4 MB`, `1.20 GB`; a kB is 1,000 bytes."""
    for unit, factor, digits in (("GB", 1e9, 2), ("MB", 1e6, 1)):
        if value >= factor:
            return f"{value / factor:.{digits}f} {unit}"
    return f"{math.ceil(value / 1000)} kB"


def flops(value: float) -> str:
    """`25.1 M`, `2.17 G`: multiply-adds count as 2."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:g}"
