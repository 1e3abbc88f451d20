"""TensorBoard events (`logger=tensorboard`)."""

from pathlib import Path
from typing import Any

from kdrun.report.trackers import scalars


class TensorBoardLogger:
    """Writes each number of a row as a scalar by epoch, into the run's folder."""

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(folder / "tensorboard"))

    def log(self, row: dict[str, Any]) -> None:
        """Record the row of an epoch."""
        for name, value in scalars(row).items():
            self.writer.add_scalar(name, value, row["epoch"])

    def close(self) -> None:
        """Flush and close the event file."""
        self.writer.close()
