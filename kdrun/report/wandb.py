"""Weights & Biases (`logger=wandb`)."""

from pathlib import Path
from typing import Any

from kdrun.errors import ConfigError, MissingExtraError
from kdrun.report.trackers import run_settings, scalars

MODES = ("online", "offline", "disabled")


class WandbLogger:
    """A W&B run of the folder's name, with the run's settings; a continued run goes on in it.

    project, entity: where it is shown. mode: online | offline (files below `wandb/` in the run's
    folder, for `wandb sync`) | disabled.
    Raises ConfigError for a mode that does not exist and when nobody is logged in.
    """

    def __init__(
        self, folder: Path, project: str = "kdrun", entity: str | None = None, mode: str = "offline"
    ) -> None:
        try:
            import wandb
        except ImportError:
            raise MissingExtraError("wandb", "wandb", "logger=wandb") from None
        if mode not in MODES:
            raise ConfigError(f"logger.mode={mode} is not one of {', '.join(MODES)}.")
        known_mode: Any = mode
        try:
            self.run = wandb.init(
                project=project,
                entity=entity,
                mode=known_mode,
                dir=str(folder),
                id=folder.name,
                name=folder.name,
                resume="allow",
                config=run_settings(folder),
                settings=wandb.Settings(silent=True),  # the screen is kdrun's
            )
        except wandb.errors.Error as error:
            raise ConfigError(
                f"W&B cannot be reached: {error} Type 'wandb login', or take logger.mode=offline."
            ) from None

    def log(self, row: dict[str, Any]) -> None:
        """One epoch's row."""
        self.run.log({"epoch": row["epoch"], **scalars(row)})

    def close(self) -> None:
        """End the run; what is not sent yet is sent."""
        self.run.finish()
