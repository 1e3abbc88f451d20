"""Trackers: what they are given, with stand-ins for their packages and, where installed, for real.

Nothing leaves the machine.
"""

import contextlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from kdrun.config.schema import LoggerConfig
from kdrun.errors import ConfigError
from kdrun.report.trackers import open_tracker, scalars

Make = Callable[..., Path]
ROWS = [
    {"phase": "hint", "epoch": 1, "step": 10, "train/loss": 3.0},
    {"phase": "main", "epoch": 1, "step": 10, "train/loss": 2.0, "val/top1_percent": 50.0},
    {"phase": "main", "epoch": 2, "step": 20, "train/loss": 1.0, "val/top1_percent": 60.0},
]


def settings(name: str, target: str, **kwargs: Any) -> LoggerConfig:
    return LoggerConfig(name, f"kdrun.report.{name}.{target}", kwargs)


WANDB = settings("wandb", "WandbLogger", project="p", mode="offline")
MLFLOW = settings("mlflow", "MlflowLogger", experiment="e")
TRACKIO = settings("trackio", "TrackioLogger", project="p")
TENSORBOARD = settings("tensorboard", "TensorBoardLogger")


def track(config: LoggerConfig, folder: Path) -> list[str]:
    """Pass the rows to a tracker; returns its warnings."""
    warnings: list[str] = []
    with open_tracker(config, folder, warnings.append) as write:
        assert write is not None
        for row in ROWS:
            write([row])
    return warnings


def install(monkeypatch: pytest.MonkeyPatch, name: str, **content: Any) -> None:
    module = ModuleType(name)
    for key, value in content.items():
        setattr(module, key, value)
    monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setenv("KDRUN_TRUST", name)


def test_no_tracker_is_none(tmp_path: Path) -> None:
    with open_tracker(LoggerConfig("none"), tmp_path, print) as write:
        assert write is None


def test_the_numbers_of_a_row_without_its_epoch() -> None:
    row = {"phase": "main", "epoch": 1, "step": 3, "lr": 0.1, "done": True, "name": "x"}
    assert scalars(row) == {"step": 3.0, "lr": 0.1}
    assert scalars({**row, "phase": "hint"}) == {"hint/step": 3.0, "hint/lr": 0.1}


def test_a_failing_tracker_stops_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    class Failing:
        def __init__(self, folder: Path) -> None:
            self.folder = folder

        def log(self, row: dict[str, Any]) -> None:
            calls.append(row)
            raise OSError("no network")

        def close(self) -> None:
            raise AssertionError("a tracker that failed is left alone")

    install(monkeypatch, "my_tracker", Failing=Failing)
    warnings = track(LoggerConfig("mine", "my_tracker.Failing"), tmp_path)
    assert len(calls) == 1
    assert len(warnings) == 1
    assert "logger=mine failed" in warnings[0]
    assert "no network" in warnings[0]


def test_an_error_of_the_run_is_not_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = []
    tracker = SimpleNamespace(log=lambda row: None, close=lambda: closed.append(True))
    install(monkeypatch, "my_tracker", make=lambda folder: tracker)
    config = LoggerConfig("mine", "my_tracker.make")
    with pytest.raises(KeyboardInterrupt), open_tracker(config, tmp_path, print):
        raise KeyboardInterrupt
    assert closed == [True]


@pytest.mark.parametrize("config", [WANDB, MLFLOW, TRACKIO], ids=lambda c: c.name)
def test_a_missing_package_names_the_install_line(
    config: LoggerConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, config.name, None)
    with (
        pytest.raises(ConfigError, match=rf"pip install 'kdrun\[{config.name}\]'"),
        open_tracker(config, tmp_path, print),
    ):
        pass


def test_wandb_gets_settings_and_rows(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: dict[str, Any] = {}
    logged: list[dict[str, Any]] = []
    ended = []

    def init(**words: Any) -> Any:
        begun.update(words)
        return SimpleNamespace(log=logged.append, finish=lambda: ended.append(True))

    errors = SimpleNamespace(Error=OSError)
    install(monkeypatch, "wandb", init=init, errors=errors, Settings=lambda **words: words)
    folder = make(T=4.0)
    assert track(WANDB, folder) == []
    assert begun["id"] == begun["name"] == folder.name
    assert begun["resume"] == "allow"
    assert begun["config"]["loss.kd.weight"] == 0.9
    assert begun["dir"] == str(folder)
    assert logged[0] == {"epoch": 1, "hint/step": 10.0, "hint/train/loss": 3.0}
    assert [row["epoch"] for row in logged] == [1, 1, 2]
    assert logged[2]["val/top1_percent"] == 60.0
    assert ended == [True]


def test_wandb_without_a_login_is_a_sentence(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**words: Any) -> Any:
        raise OSError("no API key.")

    errors = SimpleNamespace(Error=OSError)
    install(monkeypatch, "wandb", init=init, errors=errors, Settings=lambda **words: words)
    online = settings("wandb", "WandbLogger", mode="online")
    with pytest.raises(ConfigError, match="wandb login"), open_tracker(online, make(), print):
        pass
    wrong = settings("wandb", "WandbLogger", mode="onlin")
    with pytest.raises(ConfigError, match="is not one of"), open_tracker(wrong, make(), print):
        pass


class MlflowClient:
    """A stand-in that notes what it is asked."""

    calls: list[tuple[Any, ...]]

    def __init__(self, tracking_uri: str) -> None:
        self.calls.append(("uri", tracking_uri))

    def get_experiment_by_name(self, name: str) -> None:
        return None

    def create_experiment(self, name: str) -> str:
        return "1"

    def create_run(self, experiment: str, run_name: str) -> Any:
        self.calls.append(("create", experiment, run_name))
        return SimpleNamespace(info=SimpleNamespace(run_id="r1"))

    def update_run(self, run: str, status: str) -> None:
        self.calls.append(("update", run, status))

    def log_param(self, run: str, name: str, value: str) -> None:
        self.calls.append(("param", run, name, value))

    def log_metric(self, run: str, name: str, value: float, step: int) -> None:
        self.calls.append(("metric", run, name, value, step))

    def set_terminated(self, run: str) -> None:
        self.calls.append(("end", run))


def test_mlflow_gets_settings_and_rows_and_goes_on_in_one_run(
    make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE", raising=False)
    MlflowClient.calls = []
    install(monkeypatch, "mlflow", MlflowClient=MlflowClient)
    folder = make()
    assert track(MLFLOW, folder) == []
    calls = MlflowClient.calls
    assert calls[0] == ("uri", (tmp_path / "mlruns").as_uri())
    assert ("create", "1", folder.name) in calls
    assert ("param", "r1", "loss.kd.weight", "0.9") in calls
    assert ("metric", "r1", "val/top1_percent", 60.0, 2) in calls
    assert ("metric", "r1", "hint/train/loss", 3.0, 1) in calls
    assert calls[-1] == ("end", "r1")
    MlflowClient.calls = []
    track(MLFLOW, folder)
    assert MlflowClient.calls[1] == ("update", "r1", "RUNNING")
    assert not [call for call in MlflowClient.calls if call[0] in ("create", "param")]


def test_trackio_gets_settings_and_rows_and_leaves_the_screen_alone(
    make: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    begun: dict[str, Any] = {}
    logged: list[dict[str, Any]] = []

    def init(**words: Any) -> Any:
        begun.update(words)
        print("* Trackio project initialized")
        return SimpleNamespace(log=logged.append, finish=lambda: print("* Run finished"))

    install(monkeypatch, "trackio", init=init)
    folder = make()
    assert track(TRACKIO, folder) == []
    assert begun["name"] == folder.name
    assert begun["resume"] == "allow"
    assert begun["space_id"] is None
    assert begun["config"]["student.name"] == "cnn_tiny"
    assert [row["epoch"] for row in logged] == [1, 1, 2]
    assert capsys.readouterr().out == ""


def test_tensorboard_itself(make: Make) -> None:
    pytest.importorskip("tensorboard", reason="needs tensorboard: pip install tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = make()
    assert track(TENSORBOARD, folder) == []
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    found = [(e.step, e.value) for e in events.Scalars("val/top1_percent")]
    assert found == [(1, 50.0), (2, 60.0)]
    assert [e.value for e in events.Scalars("hint/train/loss")] == [3.0]


def test_mlflow_itself(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow", reason="needs mlflow: pip install mlflow-skinny")
    monkeypatch.chdir(tmp_path)
    from mlflow import MlflowClient as RealClient

    folder = make()
    assert track(MLFLOW, folder) == []
    client = RealClient(tracking_uri=(tmp_path / "mlruns").as_uri())
    experiment = client.get_experiment_by_name("e")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_name == folder.name
    assert run.data.params["loss.kd.weight"] == "0.9"
    history = client.get_metric_history(run.info.run_id, "val/top1_percent")
    assert [(point.step, point.value) for point in history] == [(1, 50.0), (2, 60.0)]


def test_wandb_itself(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="needs wandb: pip install wandb")
    folder = make()
    assert track(WANDB, folder) == []
    (written,) = folder.glob("wandb/offline-run-*/*.wandb")
    assert written.stat().st_size > 0


def test_trackio_itself(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))  # read when it is imported
    with contextlib.suppress(KeyError):
        monkeypatch.delitem(sys.modules, "trackio")
    trackio = pytest.importorskip("trackio", reason="needs trackio: pip install trackio")
    folder = make()
    assert track(TRACKIO, folder) == []
    run = trackio.Api().runs("p")[0]
    assert run.name == folder.name
    assert run.config["student.name"] == "cnn_tiny"
