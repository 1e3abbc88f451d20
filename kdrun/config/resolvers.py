"""Functions that YAML may call as `${kdrun.name:...}`; registered once, on import of the CLI."""

import secrets
import time

from omegaconf import OmegaConf

STAMP = r"\d{8}-\d{6}-\d{3}-[0-9a-f]{6}"  # how a stamp looks


def stamp() -> str:
    """A folder name no other run has, in the order of time: local time and random letters."""
    milliseconds = time.time_ns() // 1_000_000
    clock = time.strftime("%Y%m%d-%H%M%S", time.localtime(milliseconds // 1000))
    return f"{clock}-{milliseconds % 1000:03d}-{secrets.token_hex(3)}"


def register() -> None:
    """Make `${kdrun.stamp:}` known; constant within one process, as a sweep's folder must be."""
    OmegaConf.register_new_resolver("kdrun.stamp", stamp, use_cache=True, replace=True)
