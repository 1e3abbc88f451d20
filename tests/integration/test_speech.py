"""Spoken digits from files to word errors, as a user does it."""

from collections.abc import Callable
from pathlib import Path

import pytest
from data.speech_files import write_digits
from support import results

Run = Callable[..., int]

SPEECH = [
    "dataset=speech_digits", "dataset.root=sounds", "dataset.mels=16", "dataset.frames_before=3",
    "dataset.frames_after=1", "teacher=mlp", "student=mlp2x64", "student.hidden=[32]", "T=2",
    "alpha=0.5", "epochs=4", "teacher.schedule.epochs=4", "threads=1",
]  # fmt: skip


@pytest.fixture
def sounds(workdir: Path) -> Path:
    return write_digits(workdir / "sounds")


def test_words_are_measured_for_teacher_alone_and_student(
    kdrun: Run, sounds: Path, workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert kdrun("distill", *SPEECH, "ui=plain", "schedule=adam", "schedule@teacher.schedule=adam",
                 "loss=[kd,sp]", "loss.sp.weight=1", "lr=0.003") == 0  # fmt: skip
    (result,) = [r for r in results(workdir) if r["teachers"]]
    student = result["student"]
    for figures in (result["teachers"][0], result["alone"], student, student["best_val"]):
        words = figures["test_words"]
        assert set(words) == {"words", "errors", "word_error_percent"}
        assert words["words"] == 100
        assert words["word_error_percent"] == words["errors"]
    assert student["test"]["top1"] > 60  # tones under noise; one in ten by chance
    assert student["test_words"]["errors"] < 10
    screen = capsys.readouterr().out
    assert "word error %" in screen
    assert kdrun("evaluate", f"run={result['folder']}", "ui=plain") == 0
    (again,) = results(workdir, "evaluate")
    assert again["student"]["test_words"] == student["test_words"]
    assert again["student"]["val_words"]["words"] == 10  # one recording of each digit
    assert "word error %" in capsys.readouterr().out


def test_a_missing_folder_is_said_before_anything_else(
    refused: Callable[..., str], workdir: Path
) -> None:
    text = refused("distill", *SPEECH, "ui=quiet")
    assert "free-spoken-digit-dataset" in text
    assert not (workdir / "outputs" / "teachers").exists()


def test_pictures_have_no_words(kdrun: Run, workdir: Path) -> None:
    kdrun("distill", "loss=ce", "epochs=1", "ui=quiet", "threads=1")
    (result,) = results(workdir)
    assert "test_words" not in result["student"]
