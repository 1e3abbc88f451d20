"""Normalisation constants that the user gives: their scale, and how they are typed."""

from collections.abc import Sequence

from kdrun.errors import ConfigError
from kdrun.types import Normalisation


def check_scale(mean: Sequence[float], std: Sequence[float], where: str) -> None:
    """Raise ConfigError for constants of pixels 0..255."""
    if max(mean) > 1 and max(std) > 1:
        scaled = Normalisation(tuple(x / 255 for x in mean), tuple(x / 255 for x in std))
        raise ConfigError(
            f"{where}.mean and {where}.std are those of pixels from 0 to 255; here pixels are "
            f"scaled to 0..1: divide by 255, {format_constants(scaled, where)}."
        )
    if max(mean) > 1 or min(mean) < 0:
        raise ConfigError(
            f"{where}.mean={listed(mean)} must lie between 0 and 1: pixels are scaled to 0..1 "
            "first (divide means of pixels from 0 to 255 by 255; for a network that subtracts them "
            "from such pixels set the std to 1/255 = 0.003922)."
        )
    if max(std) > 1:
        raise ConfigError(
            f"{where}.std={listed(std)} must not be above 1: pixels are scaled to 0..1 first "
            "(divide the std of pixels from 0 to 255 by 255)."
        )


def format_constants(normalisation: Normalisation, where: str) -> str:
    """`'teacher.mean=[0.5,0.5,0.5]' 'teacher.std=[...]'`, as they are typed."""
    mean, std = (
        ",".join(f"{x:.4g}" for x in values) for values in (normalisation.mean, normalisation.std)
    )
    return f"'{where}.mean=[{mean}]' '{where}.std=[{std}]'"


def listed(values: Sequence[float]) -> str:
    """`[0.5,0.5,0.5]`."""
    return "[" + ",".join(f"{x:g}" for x in values) + "]"
