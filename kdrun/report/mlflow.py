"""MLflow (`logger=mlflow`), with its file store by default."""

import os
from pathlib import Path
from typing import Any

from kdrun.files import write_atomically
from kdrun.report.trackers import run_settings, scalars

NOTE = "mlflow_run.txt"
LONGEST = 500  # characters; MLflow's limit for a parameter


class MlflowLogger:
    """An MLflow run named after the folder, with the run's settings as parameters.

    experiment: where it is listed. tracking_uri: a folder, or the address of a server.
    A resumed run continues the same MLflow run, whose id is stored in `mlflow_run.txt`.
    """

    def __init__(
        self, folder: Path, experiment: str = "kdrun", tracking_uri: str = "mlruns"
    ) -> None:
        from mlflow import MlflowClient

        if "://" not in tracking_uri:
            tracking_uri = Path(tracking_uri).resolve().as_uri()
            # MLflow 3 refuses its file store without this
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        self.client = MlflowClient(tracking_uri=tracking_uri)
        note = folder / NOTE
        if note.is_file():
            self.id = note.read_text().strip()
            self.client.update_run(self.id, status="RUNNING")
            return
        known = self.client.get_experiment_by_name(experiment)
        number = known.experiment_id if known else self.client.create_experiment(experiment)
        self.id = self.client.create_run(number, run_name=folder.name).info.run_id
        for name, value in run_settings(folder).items():
            self.client.log_param(self.id, name, str(value)[:LONGEST])
        write_atomically(note, f"{self.id}\n".encode())

    def log(self, row: dict[str, Any]) -> None:
        """Record the row of an epoch."""
        for name, value in scalars(row).items():
            self.client.log_metric(self.id, name, value, step=row["epoch"])

    def close(self) -> None:
        """Mark the run as ended."""
        self.client.set_terminated(self.id)
