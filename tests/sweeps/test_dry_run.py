"""`--dry-run` lists what would run and changes nothing."""

from collections.abc import Callable
from pathlib import Path

import pytest
from support import SMALL

from kdrun.cli.main import run

WORDS = [*(word for word in SMALL if "epochs" not in word), "epochs=1", "teacher.schedule.epochs=1"]


@pytest.fixture
def said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    monkeypatch.chdir(tmp_path)

    def type_it(*words: str) -> str:
        assert run(list(words)) == 0
        return capsys.readouterr().out

    return type_it


def test_a_sweep_is_listed_and_leaves_nothing(said: Callable[..., str], tmp_path: Path) -> None:
    text = said("distill", "-m", "T=1,4", *WORDS, "--dry-run")
    assert text.startswith("dry run: 2 jobs (2 new)\n")
    assert "  job 1/2  T=1  new\n  job 2/2  T=4  new\n" in text
    assert text.count("to train once") == 2  # the teacher, and the baseline that both jobs share
    assert text.endswith("nothing was run or written\n")
    assert list(tmp_path.iterdir()) == []


def test_without_labels_there_is_no_baseline(said: Callable[..., str]) -> None:
    text = said("distill", *WORDS, "transfer.labels=false", "alpha=1", "--dry-run")
    assert "dry run: 1 run (1 new)" in text
    assert "baseline" not in text


def test_what_exists_is_reused(said: Callable[..., str], tmp_path: Path) -> None:
    said("distill", "-m", "T=1,2", *WORDS)
    before = sorted(tmp_path.rglob("*"))
    text = said("distill", "-m", "T=1,2,4", *WORDS, "--dry-run")
    assert "dry run: 3 jobs (1 new, 2 finished)" in text
    assert "in the store (outputs/teachers/" in text
    assert "to train once" not in text
    (sweep,) = Path("outputs/sweeps").iterdir()
    text = said("resume", str(sweep), "--dry-run")
    assert "dry run: 2 jobs (2 finished)" in text
    assert sorted(tmp_path.rglob("*")) == before


def test_timed_steps_leave_nothing(said: Callable[..., str], tmp_path: Path) -> None:
    text = said(
        "train-teacher", *(word for word in WORDS if "teacher." not in word), "--dry-run=time"
    )
    assert "time: about " in text
    assert list(tmp_path.iterdir()) == []


def test_verbs_that_do_not_train_refuse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["evaluate", "--dry-run"]) == 2
    assert "these verbs have it: train-teacher, distill, search, resume" in capsys.readouterr().err
    assert run(["distill", "--dryrun"]) == 2
    assert "Did you mean '--dry-run'?" in capsys.readouterr().err
