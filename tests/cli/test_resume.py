"""`kdrun resume`: a run's folder is passed on, a sweep's jobs are run again where they belong."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kdrun.cli import untrusted
from kdrun.cli.main import run
from kdrun.errors import TrainingError
from kdrun.runs.sweeps import SweepFolder

Typed = Callable[..., str]


@pytest.fixture
def sweep(stages: Any, tmp_path: Path, my_configs: Path) -> Path:
    """The folder of a sweep of three jobs."""
    folder = tmp_path / "outputs" / "sweeps" / "one"
    command = ["distill", "-m", "student=mine", "T=1,2,4", "--config-dir", str(my_configs)]
    SweepFolder(folder).begin(command, [])
    untrusted.remember(command[0], command[1:])  # as when it was typed
    return folder


def test_run_is_passed_on(stages: Any, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    assert run(["resume", str(folder)]) == 0
    assert run(["resume", f"run={folder}"]) == 0
    assert stages.resumed == [folder, folder]


def test_jobs_of_a_sweep_are_run_in_its_folder(stages: Any, sweep: Path) -> None:
    assert run(["resume", str(sweep)]) == 0
    assert [(call[1].T, call[3], call[4]) for call in stages.calls] == [
        (1.0, sweep, 0),
        (2.0, sweep, 1),
        (4.0, sweep, 2),
    ]
    assert stages.calls[0][1].student.kwargs == {"widths": [2]}
    assert stages.summarised == [sweep]
    assert stages.announced[0][0] == sweep


def test_failing_job_does_not_stop_the_others(
    stages: Any, sweep: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(config: Any) -> None:
        if config.T == 2:
            raise TrainingError("The loss is not finite.")

    stages.react = fail
    assert run(["resume", str(sweep)]) == 1
    assert len(stages.calls) == 3
    assert capsys.readouterr().err == "error: job 2/3: The loss is not finite.\n"


def test_interrupt_sums_up(stages: Any, sweep: Path) -> None:
    def stop(config: Any) -> None:
        raise KeyboardInterrupt

    stages.react = stop
    assert run(["resume", str(sweep)]) == 130
    assert len(stages.calls) == 1
    assert stages.summarised == [sweep]


def test_jobs_that_make_no_sense_any_more_are_refused_first(
    stages: Any, sweep: Path, my_configs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (my_configs / "student" / "mine.yaml").unlink()
    assert run(["resume", str(sweep)]) == 2
    assert "There is no student 'mine'" in capsys.readouterr().err
    assert stages.calls == []


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 2, "command": ["rm", "x"]}'])
def test_damaged_sweep(
    stages: Any, sweep: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (sweep / "sweep.json").write_text(text)
    assert run(["resume", str(sweep)]) == 2
    assert "type the sweep's command again" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [([], "kdrun resume outputs/..."), (["a", "b"], "one run or sweep"), (["x"], "no folder x")],
)
def test_mistakes(refused: Typed, words: list[str], said: str) -> None:
    assert said in refused("resume", *words)


@pytest.mark.parametrize(
    "word",
    [
        "--config-dir=.",
        "hydra.launcher._target_=os.system",
        "+hydra.callbacks.x={_target_: os.system, command: touch marker}",
        "hydra/launcher=submitit_slurm",
        "hydra/launcher@hydra.callbacks=joblib",
        "hydra.job_logging.handlers={x: {class: os.system, command: touch marker}}",
        "hydra.job.env_set.LD_PRELOAD=evil.so",
        "hydra.searchpath=[.]",
        "hydra.sweep.dir=elsewhere",
        "hydra.launcher.n_jobs=[1]",
    ],
)
def test_a_sweep_of_a_stranger_cannot_reach_hydra(
    stages: Any, tmp_path: Path, word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "theirs"
    SweepFolder(folder).begin(["distill", "-m", "T=1,2", word], [])
    before = (folder / "sweep.json").read_bytes()
    assert run(["resume", str(folder)]) == 2
    said = capsys.readouterr().err
    assert "was not started by you on this machine" in said
    assert "kdrun distill -m T=1,2" in said
    assert (folder / "sweep.json").read_bytes() == before
    assert stages.calls == []
    assert not (tmp_path / "marker").exists()


def test_a_sweep_of_a_stranger_names_no_code(
    stages: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "evil_nets.py").write_text("open('marker', 'w')\n")
    own = "student._target_=evil_nets.Small"
    folder = tmp_path / "theirs"
    SweepFolder(folder).begin(["distill", "-m", "student=custom", own, "T=1,2"], [])
    assert run(["resume", str(folder)]) == 2
    assert "--trust evil_nets" in capsys.readouterr().err
    assert stages.calls == []
    assert not (tmp_path / "marker").exists()
    assert run(["resume", str(folder), "--trust", "evil_nets"]) == 0
    assert len(stages.calls) == 2


def test_a_harmless_sweep_of_a_stranger_goes_on(stages: Any, tmp_path: Path) -> None:
    SweepFolder(tmp_path / "theirs").begin(["distill", "-m", "T=1,2"], [])
    assert run(["resume", str(tmp_path / "theirs")]) == 0
    assert len(stages.calls) == 2
