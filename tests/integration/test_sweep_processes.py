"""Sweeps that are killed, and sweeps whose jobs run in several processes."""

import csv
import json
import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from support import SMALL, results

from kdrun.sweeps.launchers import SHARED_SETTINGS, cpu_cores, launcher_of
from tests.reliability import forks

Run = Callable[..., int]

PLAIN = [*(word for word in SMALL if word != "ui=quiet"), "ui=plain", "alone=false"]
PLAIN = [*PLAIN, "batch_size=32"]
STEP = 9  # in the middle of a student's second epoch
SHARED = [word for word in SMALL if not word.startswith("threads=")]


def test_killed_interrupted_and_finished(workdir: Path) -> None:
    command = ["distill", "-m", *PLAIN, "T=1,4,8"]
    # the teacher is the first training of the process, job 0 the second
    kill = partial(forks.signal_at_step, 2, STEP, signal.SIGKILL)
    code, said = forks.run(workdir, command, "first", kill)
    assert code == -signal.SIGKILL, said
    assert [r["status"] for r in results(workdir, name="cnn_large-*")] == ["running"]

    interrupt = partial(forks.signal_at_step, 2, STEP, signal.SIGINT)
    code, said = forks.run(workdir, command, "second", interrupt)
    assert code == 130, said
    assert "job 1/3" in said
    stopped = results(workdir, name="cnn_large-*")
    assert [r["status"] for r in stopped] == ["completed", "interrupted"]
    newest = max(workdir.glob("outputs/sweeps/*"), key=lambda path: path.name)
    assert f"kdrun resume {newest.relative_to(workdir)}" in said
    assert "job 3/3 T=8 not started" in said
    assert "Traceback" not in said

    code, said = forks.run(workdir, ["resume", str(newest)], "third")
    assert code == 0, said
    assert "1 of 3 jobs finished before" in said
    found = results(workdir, name="cnn_large-*")
    assert [r["status"] for r in found] == ["completed"] * 3
    assert [r["folder"] for r in found[:2]] == [r["folder"] for r in stopped]
    assert len(list(csv.DictReader((newest / "ranking.csv").open()))) == 3


@pytest.mark.heavy
def test_jobs_in_two_processes_share_one_teacher(kdrun: Run, workdir: Path) -> None:
    pytest.importorskip("joblib")
    words = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "T=1,4"]
    assert kdrun("distill", "-m", *SHARED, *words) == 0
    found = results(workdir, name="cnn_large-*")
    assert [r["status"] for r in found] == ["completed"] * 2
    assert len(list(workdir.glob("outputs/teachers/*/*/teacher.json"))) == 1
    assert sum(not r["teachers"][0]["reused"] for r in found) == 1
    (folder,) = workdir.glob("outputs/sweeps/*")
    notes = [json.loads(path.read_text()) for path in folder.glob("jobs/*.json")]
    assert os.getpid() not in {note["pid"] for note in notes}
    share = max(1, cpu_cores() // 2)
    threads = {json.loads((r["folder"] / "env.json").read_text())["threads"] for r in found}
    assert threads == {share}
    assert (folder / "ranking.md").is_file()
    # the same jobs, done here now, are found
    assert kdrun("distill", "-m", *SHARED, "T=1,4") == 0
    assert len(results(workdir, name="cnn_large-*")) == 2


@pytest.mark.heavy
def test_jobs_as_submitit_runs_them(kdrun: Run, workdir: Path) -> None:
    pytest.importorskip("submitit")
    words = [
        "hydra/launcher=submitit_local",
        "alone=false",
        "schedule.weight_decay=0.0005,500000",
        "batch_size=8",
        "epochs=1",
    ]
    assert kdrun("distill", "-m", *SHARED, *words) == 1
    found = results(workdir, name="cnn_large-*")
    assert sorted(r["status"] for r in found) == ["completed", "failed"]
    assert len(list(workdir.glob("outputs/teachers/*/*/teacher.json"))) == 1
    (folder,) = workdir.glob("outputs/sweeps/*")
    assert len(list((folder / "submitit").glob("*_result.pkl"))) == 2
    assert len(list(csv.DictReader((folder / "summary.csv").open()))) == 1


@pytest.mark.parametrize(
    ("n_jobs", "jobs", "processes"), [(2, 9, 2), (-1, 900, cpu_cores()), (8, 3, 3)]
)
def test_threads_are_shared_out(n_jobs: int, jobs: int, processes: int) -> None:
    launcher = launcher_of({"_target_": "a.b.JoblibLauncher", "n_jobs": n_jobs}, jobs)
    assert launcher.processes == processes
    assert launcher.threads == max(1, cpu_cores() // processes)
    assert "more than it has" in launcher.describe(asked_threads=100 * cpu_cores())


def test_the_slurm_configuration_says_what_sbatch_gets(workdir: Path) -> None:
    """Composed as for a sweep; every name must be one that submitit knows."""
    submitit = pytest.importorskip("submitit")
    from hydra import compose, initialize_config_module
    from omegaconf import OmegaConf
    from submitit.slurm.slurm import SlurmExecutor, _make_sbatch_string

    from kdrun.config import composition

    composition.register()
    words = ["hydra/launcher=submitit_slurm", "hydra.launcher.partition=gpu", "hydra.job.num=0"]
    with initialize_config_module("kdrun.configs", version_base="1.3"):
        cfg = compose("distill", words, return_hydra_config=True)
    hydra = OmegaConf.to_container(cfg.hydra.launcher, resolve=False)
    assert isinstance(hydra, dict)
    own = {key: value for key, value in hydra.items() if key not in ("_target_", "submitit_folder")}
    assert own.pop("max_num_timeout") == 0
    own["name"] = "distill"
    # as kdrun passes them to submitit's AutoExecutor, which translates them
    shared = {key: own[key] for key in own if key in SHARED_SETTINGS}
    executor = submitit.AutoExecutor(cluster="debug", folder=workdir / "log")
    special = {f"slurm_{key}": value for key, value in own.items() if key not in shared}
    executor.update_parameters(**shared, **special)
    translated = SlurmExecutor.__new__(SlurmExecutor)._convert_parameters(  # there is no sbatch
        {key: value for key, value in shared.items() if value is not None}
    )
    special = {key: value for key, value in own.items() if key not in shared and value is not None}
    script = _make_sbatch_string(command="run", folder=workdir, **translated, **special)
    for line in ("--partition=gpu", "--time=240", "--gpus-per-node=1", "--cpus-per-task=4"):
        assert f"#SBATCH {line}" in script
