"""Running verbs through Hydra: single runs, sweeps, what is passed on and what is left behind."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support import in_kdrun

from kdrun.cli.main import run
from kdrun.errors import ConfigError, Interrupted, KdrunError, TrainingError
from kdrun.runs.sweeps import SweepFolder


def everything_in(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def test_single_run(stages: Any, tmp_path: Path) -> None:
    assert run(["distill", "T=4", "loss=[kd,sp]", "epochs=3"]) == 0
    ((name, config, argv, sweep_dir, job),) = stages.calls
    assert name == "distill"
    assert config.T == 4.0
    assert list(config.loss) == ["kd", "sp"]
    assert config.schedule.epochs == 3
    assert argv == ["distill", "T=4", "loss=[kd,sp]", "epochs=3"]
    assert sweep_dir is None
    assert job == 0
    assert stages.announced == [] == stages.summarised
    assert list(tmp_path.iterdir()) == []  # Hydra leaves nothing of its own


def test_verb_with_a_dash(stages: Any) -> None:
    assert run(["train-teacher", "teacher=cnn_tiny", "lr=0.3"]) == 0
    name, config, argv, *_ = stages.calls[0]
    assert name == "train_teacher"
    assert config.teachers[0].network.name == "cnn_tiny"
    assert config.teachers[0].schedule.lr == 0.3
    assert argv[0] == "train-teacher"


def test_evaluate(stages: Any, tmp_path: Path) -> None:
    assert run(["evaluate", f"run={tmp_path}", "dataset=digits"]) == 0
    assert stages.calls[0][1].run == str(tmp_path)
    assert stages.calls[0][1].dataset.name == "digits"


def test_own_options(stages: Any, my_configs: Path) -> None:
    words = ["student=mine", "experiment=first", "--config-dir", str(my_configs)]
    assert run(["distill", *words]) == 0
    _, config, argv, *_ = stages.calls[0]
    assert config.student.kwargs == {"widths": [2]}
    assert list(config.loss) == ["sp"]
    assert config.schedule.epochs == 3
    assert config.schedule.lr == 0.125
    assert argv == ["distill", "--config-dir", str(my_configs), "student=mine", "experiment=first"]


def test_command_passed_on_runs_again(stages: Any, my_configs: Path) -> None:
    words = ["-m", "student=mine", "dataset.name='a, b'", "T=1,2", "--config-dir", str(my_configs)]
    assert run(["distill", *words]) == 0
    config, argv = stages.calls[1][1], stages.calls[1][2]
    assert run(argv) == 0
    assert stages.calls[2][1] == config
    assert stages.calls[2][3] is None


def test_sweep(stages: Any, tmp_path: Path) -> None:
    assert run(["distill", "-m", "T=1,4", "seed=0,1"]) == 0
    folders = {call[3] for call in stages.calls}
    assert len(folders) == 1
    (folder,) = folders
    assert [call[4] for call in stages.calls] == [0, 1, 2, 3]
    assert [(c[1].T, c[1].seed) for c in stages.calls] == [(1, 0), (1, 1), (4, 0), (4, 1)]
    assert stages.announced[0][0] == folder
    assert stages.summarised == [folder]
    assert folder.parent == Path("outputs/sweeps")
    assert stages.progress == [0, 1, 2, 3]
    notes = {f"{folder}/jobs/{number}.json" for number in range(4)}
    assert everything_in(tmp_path) == {f"{folder}/sweep.json"} | notes


def test_settings_of_the_sweep_are_not_part_of_a_jobs_command(stages: Any) -> None:
    assert run(["distill", "sweep=lr", "sweep.fail_fast=true", "lr=0.5,0.25"]) == 0
    commands = [call[2] for call in stages.calls]
    assert commands[0] == ["distill", "lr=0.5", "seed=0"]  # what is typed replaces the named values
    assert len(commands) == 6
    folder = SweepFolder(stages.summarised[0])
    assert [job["command"] for job in folder.read()["jobs"]] == commands
    assert run(commands[5]) == 0
    assert stages.calls[6][3] is None


def test_fail_fast_starts_no_other_job(stages: Any, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(config: Any) -> None:
        if config.T == 2:
            raise TrainingError("The loss is not finite.")

    stages.react = fail
    assert run(["distill", "-m", "T=1,2,3,4", "sweep.fail_fast=true"]) == 1
    assert [call[1].T for call in stages.calls] == [1, 2]
    assert len(stages.summarised) == 1


def test_how_jobs_ended_is_noted(stages: Any, capsys: pytest.CaptureFixture[str]) -> None:
    stages.react = in_kdrun("if config.T == 2: raise ValueError('first line\\nlast line\\n')")
    assert run(["distill", "-m", "T=1,2"]) == 1
    notes = SweepFolder(stages.summarised[0]).notes()
    assert [note["code"] for note in notes] == [0, 1]
    assert [note["error"] for note in notes] == [None, "ValueError: last line"]


def test_sweep_below_another_folder(stages: Any, tmp_path: Path) -> None:
    root = tmp_path / "with, odd 'name'"
    assert run(["distill", "--multirun", "T=1,4", f'output_root="{root}"']) == 0
    assert stages.summarised[0].parent == root / "sweeps"
    assert (stages.summarised[0] / "sweep.json").is_file()


def test_failing_job_does_not_stop_the_others(
    stages: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(config: Any) -> None:
        if config.T == 2:
            raise TrainingError("The loss is not finite.")
        if config.T == 3:
            raise ConfigError("There is no such device.")

    stages.react = fail
    assert run(["distill", "-m", "T=1,2,3,4"]) == 2
    assert [call[4] for call in stages.calls] == [0, 1, 2, 3]
    assert len(stages.summarised) == 1
    assert capsys.readouterr().err.splitlines() == [
        "error: job 2/4: The loss is not finite.",
        "error: job 3/4: There is no such device.",
    ]


def test_bug_in_a_job_does_not_stop_the_others(
    stages: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    stages.react = in_kdrun("if config.T == 1: raise ZeroDivisionError('unexpected')")
    assert run(["distill", "-m", "T=1,2"]) == 1
    assert len(stages.calls) == 2
    said = capsys.readouterr().err
    assert "ZeroDivisionError: unexpected" in said
    assert "bug in kdrun" in said


def test_interrupt_stops_the_sweep_and_sums_up(stages: Any) -> None:
    def stop(config: Any) -> None:
        if config.T == 2:
            raise Interrupted

    stages.react = stop
    assert run(["distill", "-m", "T=1,2,3"]) == 130
    assert len(stages.calls) == 2
    assert len(stages.summarised) == 1


def test_interrupt_before_the_first_job_sums_nothing_up(stages: Any) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    stages.react_to_announcement = stop
    assert run(["distill", "-m", "T=1,2"]) == 130
    assert stages.calls == [] == stages.summarised


def test_two_runs_in_one_process_do_not_disturb_each_other(stages: Any) -> None:
    def fail(config: Any) -> None:
        if config.T == 1:
            raise TrainingError("once")

    stages.react = fail
    argv = list(sys.argv)
    assert run(["distill", "T=1"]) == 1
    assert run(["distill", "T=2"]) == 0
    assert sys.argv == argv


def test_configuration_is_printed(stages: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["distill", "--cfg", "job", "-p", "loss", "loss=[kd,sp]", "T=4"]) == 0
    printed = capsys.readouterr().out
    assert "temperature: 4.0" in printed
    assert "kdrun.losses.sp" in printed
    assert run(["distill", "--cfg", "job", "--resolve", "schedule.lr=0.125"]) == 0
    assert "\nlr: 0.125" in capsys.readouterr().out
    assert run(["evaluate", "--cfg", "job"]) == 0  # what is missing may be looked at
    assert "run: ???" in capsys.readouterr().out
    assert stages.calls == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--info", "defaults", "student=cnn_large"], "student/cnn_large"),
        (["--info", "student=cnn_large"], "student/cnn_large"),
        (["--info", "searchpath"], "pkg://kdrun.configs"),
        pytest.param(["--hydra-help"], "--multirun", marks=pytest.mark.heavy),
    ],
)
def test_hydras_information(
    stages: Any, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert run(["distill", *words]) == 0
    assert said in capsys.readouterr().out
    assert stages.calls == []


SLEEPER = """
import sys, time, types
import kdrun.sweeps
from kdrun.commands import distill
def execute(config, argv, sweep_dir=None, job=0):
    print("started", flush=True)
    time.sleep(60)
distill.execute = execute
sweep = types.ModuleType("kdrun.sweeps.progress")
sweep.announce = sweep.say_progress = lambda *a: None
sweep.summarise = lambda folder: print("summary", flush=True)
sys.modules[sweep.__name__] = kdrun.sweeps.progress = sweep
from kdrun.cli.main import main
main(["distill", *sys.argv[1:]])
"""


@pytest.mark.parametrize(("words", "after"), [([], b""), (["-m", "T=1,2"], b"summary\n")])
def test_ctrl_c_ends_quietly(tmp_path: Path, words: list[str], after: bytes) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SLEEPER, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"started\n"
    process.send_signal(signal.SIGINT)
    printed, said = process.communicate(timeout=300)
    assert process.returncode == 130
    assert printed == after
    assert said == b""


def test_a_killed_process_fails_its_jobs_and_the_others_are_launched_again(
    tmp_path: Path,
) -> None:
    from kdrun.sweeps import executor as sweeps

    class BrokenProcessPool(RuntimeError):  # noqa: N818 - its name in concurrent.futures
        pass

    class TerminatedWorkerError(BrokenProcessPool):
        pass

    folder = SweepFolder(tmp_path)
    launches: list[list[int]] = []

    def launch() -> None:
        launches.append([])
        for job in range(4):
            note = folder.note(job)
            if note is not None and note["code"] is not None:
                continue
            launches[-1].append(job)
            folder.update(job, code=None)
            if job == 1:
                raise TerminatedWorkerError("SIGKILL")
            folder.update(job, code=0, seconds=1.0)

    sweeps._launch(folder, launch)
    assert launches == [[0, 1], [2, 3]]
    assert folder.codes() == [0, 1, 0, 0]
    assert "killed, perhaps by the system" in folder.notes()[1]["error"]

    def dies_at_once() -> None:
        raise TerminatedWorkerError("SIGKILL")

    with pytest.raises(KdrunError, match="was killed"):
        sweeps._launch(folder, dies_at_once)
