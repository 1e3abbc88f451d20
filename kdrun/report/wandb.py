"""Weights & Biases (`logger=wandb`)."""

from pathlib import Path
from typing import Any

from kdrun.errors import ConfigError
from kdrun.report.trackers import run_settings, scalars

MODES = ("online", "offline", "disabled")


class WandbLogger:
    """A W&B run named after the folder, with the run's settings; a resumed run continues it.

    project, entity: of the W&B account. mode: online | offline (files below `wandb/` in the run's
    folder, for `wandb sync`) | disabled.
    Raises ConfigError for an unknown mode and without a login.
    """

    def __init__(
        self, folder: Path, project: str = "kdrun", entity: str | None = None, mode: str = "offline"
    ) -> None:
        import wandb

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
                settings=wandb.Settings(silent=True),  # prints nothing
            )
        except wandb.errors.Error as error:
            raise ConfigError(
                f"W&B cannot be reached: {error} Type 'wandb login', or set logger.mode=offline."
            ) from None

    def log(self, row: dict[str, Any]) -> None:
        """Record the row of an epoch."""
        self.run.log({"epoch": row["epoch"], **scalars(row)})

    def close(self) -> None:
        """End the run; waits until all rows are sent."""
        self.run.finish()
