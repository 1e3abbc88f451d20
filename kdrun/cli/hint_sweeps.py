"""Mistakes in how a command's jobs are run: launchers, settings of sweeps, Hydra's own options."""

from hydra.core.override_parser.types import Override

from kdrun.cli.command_spec import Request, is_sweep_setting, near, values
from kdrun.errors import ConfigError
from kdrun.sweeps import launchers


def check_hydra(asked: Request, override: Override) -> None:
    """Raise ConfigError for what of Hydra itself cannot be chosen."""
    if override.key_or_group == "hydra/sweeper":
        raise ConfigError(
            "kdrun's sweeps run every combination that is typed; another hydra/sweeper cannot be "
            "used. Leave it out, and list the values: -m T=1,4,20."
        )
    if override.key_or_group == "hydra/launcher":
        for name in values(asked, override):
            _check_launcher(asked, str(name))
    if override.key_or_group == "hydra.searchpath":
        raise ConfigError("Name the folder of your own options with --config-dir DIR instead.")


def _check_launcher(asked: Request, name: str) -> None:
    options = ["basic", *asked.options("hydra/launcher")]
    match = near(name, options)
    if name not in options and match is not None:
        raise ConfigError(f"There is no hydra/launcher '{name}'. Did you mean '{match}'?")
    launchers.require(name)


def check_single(overrides: list[Override]) -> None:
    """Raise ConfigError for a setting of sweeps in a command that runs once."""
    for override in overrides:
        key = override.key_or_group
        if is_sweep_setting(key) or key.replace("/", ".").startswith("hydra.launcher"):
            raise ConfigError(
                f"{key} is for sweeps, and this command runs once: add -m and the values to try, "
                "or leave it out."
            )
