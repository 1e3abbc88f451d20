"""Searches: ranges as typed, trials that are ordinary runs, a study that survives a kill."""

import csv
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from support import SMALL, results

from kdrun.runs.sweeps import SweepFolder
from tests.reliability import forks

optuna = pytest.importorskip("optuna")

Run = Callable[..., int]
SPACE = ["T=tag(log,interval(1,20))", "lr=interval(0.01,0.3)", "epochs=range(2,5)"]
COMMAND = [*(w for w in SMALL if not w.startswith("epochs")), "alone=false", *SPACE]
COMMAND = ["search", *COMMAND, "search.trials=3"]


def study_in(folder: Path) -> optuna.Study:
    (database,) = folder.glob("outputs/searches/*/study.db")
    return optuna.load_study(study_name="search", storage=f"sqlite:///{database}")


@pytest.mark.heavy
def test_killed_and_continued_equals_uninterrupted(kdrun: Run, workdir: Path) -> None:
    assert kdrun(*COMMAND, "output_root=whole/outputs") == 0
    # the process trains the teacher first; the second trial is its third training
    kill = partial(forks.signal_at_step, 3, 2, signal.SIGKILL)
    code, said = forks.run(workdir, COMMAND, fault=kill)
    assert code == -signal.SIGKILL, said
    states = [trial.state.name for trial in study_in(workdir).trials]
    assert states == ["COMPLETE", "RUNNING"]
    assert kdrun(*COMMAND) == 0

    one, two = study_in(workdir / "whole").trials, study_in(workdir).trials
    assert len(one) == 3
    assert [trial.params for trial in one] == [trial.params for trial in two]
    assert [trial.value for trial in one] == [trial.value for trial in two]
    assert len(results(workdir)) == 3
    (folder,) = workdir.glob("outputs/searches/*")
    ranked = list(csv.DictReader((folder / "ranking.csv").open()))
    values = [float(row["best val top-1 % mean"]) for row in ranked]
    assert values == sorted(values, reverse=True)
    assert max(trial.value or 0 for trial in two) == values[0]
    assert (folder / "history.png").stat().st_size > 1000

    # more trials go on from there, under the same name
    assert kdrun("resume", str(folder)) == 0
    assert kdrun(*COMMAND[:-1], "search.trials=4") == 0
    assert len(study_in(workdir).trials) == 4


@pytest.mark.heavy
def test_trials_of_other_settings_or_data_are_not_taken(
    kdrun: Run, workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = [
        "search",
        *(w for w in COMMAND[1:-1] if w not in SPACE),
        "T=interval(1,20)",
        "epochs=1",
    ]
    words = [*common, "search.trials=1"]
    for name, alpha in (("one", 0.3), ("two", 0.8)):
        file = workdir / name / "experiment/mine.yaml"
        file.parent.mkdir(parents=True)
        file.write_text(f"# @package _global_\nalpha: {alpha}\n")
        assert kdrun(*words, "--config-dir", name, "experiment=mine") == 0
    folders = list(workdir.glob("outputs/searches/*"))
    assert len(folders) == 2

    capsys.readouterr()
    file.write_text("# @package _global_\nalpha: 0.5\n")
    (folder,) = (f for f in folders if "/two" in (f / "sweep.json").read_text())
    for _ in range(2):
        assert kdrun("resume", str(folder)) == 2
        assert "1 trials of this search ran with other settings or code" in capsys.readouterr().err
    SweepFolder(folder).add(data=["other images"])
    file.write_text("# @package _global_\nalpha: 0.8\n")
    recorded = (folder / "sweep.json").read_text()
    for trials in (1, 2):
        assert (
            kdrun(*common, "--config-dir", "two", "experiment=mine", f"search.trials={trials}") == 2
        )
        assert "1 trials of this search ran with other data" in capsys.readouterr().err
    assert (folder / "sweep.json").read_text() == recorded


def test_several_teachers(kdrun: Run, workdir: Path) -> None:
    words = [w for w in COMMAND[1:-1] if w not in SPACE and not w.startswith("teacher=")]
    two = ["teacher=[cnn_tiny,cnn_tiny]", "teacher2.seed=7"]
    assert kdrun("search", *words, *two, "T=2,4", "epochs=1", "search.trials=1") == 0
    (result,) = [r for r in results(workdir) if r["teachers"]]
    assert len(result["teachers"]) == 2
    command = (result["folder"] / "command.txt").read_text()
    assert "'teacher=[cnn_tiny,cnn_tiny]' teacher2.seed=7" in command


def test_a_space_that_sets_more_is_refused(
    kdrun: Run, workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (workdir / "own/search").mkdir(parents=True)
    (workdir / "own/search/mine.yaml").write_text(
        "# @package _global_\nsearch: {space: {T: 'interval(1, 20)'}}\nepochs: 3\n"
    )
    assert kdrun("search", "--config-dir", "own", "search=mine") == 2
    assert "search=mine also sets epochs" in capsys.readouterr().err


def test_a_trial_that_fails_is_told_and_the_search_goes_on(kdrun: Run, workdir: Path) -> None:
    small = [word for word in COMMAND[1:-1] if word not in SPACE]
    assert (
        kdrun(
            "search",
            *small,
            "epochs=1",
            "schedule.weight_decay=0.0005,500000",
            "batch_size=8",
            "search.trials=4",
        )
        == 0
    )
    found = study_in(workdir).trials
    states = {trial.params["schedule.weight_decay"]: trial.state.name for trial in found}
    assert states == {"0.0005": "COMPLETE", "500000": "FAIL"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "There is nothing to search"),
        (["T=interval(5,5)"], "is empty"),
        (["T=tag(log,interval(0,5))"], "above 0"),
        (["T=interval(0,5)"], "T=0 must be above 0"),
        (["T=interval(1,5)", "val_fraction=0"], "val_fraction=0.1"),
        (["T=interval(1,5)", "search.trial=3"], "Did you mean search.trials"),
        (["T=interval(1,5)", "search.trials=0"], "at least 1"),
        (["search=kdd"], "Did you mean 'kd'?"),
        (["student=cnn_tiny,cnn_tinny"], "Did you mean 'cnn_tiny'?"),
        (["-m", "T=interval(1,5)"], "takes settings and ranges only"),
    ],
)
def test_mistakes(refused: Callable[..., str], workdir: Path, words: list[str], said: str) -> None:
    assert said in refused("search", *SMALL, *words)
    assert not results(workdir)
