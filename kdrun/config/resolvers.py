"""Functions that YAML may call as `${kdrun.name:...}`; registered once, on import of the CLI."""

import secrets
import time

from omegaconf import OmegaConf


def stamp() -> str:
    """A folder name no other run has: local time to the second and random letters."""
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(4)}"


def register() -> None:
    """Make `${kdrun.stamp:}` known; constant within one process, as a sweep's folder must be."""
    OmegaConf.register_new_resolver("kdrun.stamp", stamp, use_cache=True, replace=True)
