"""Schedules that do not fit the data are refused before anything is trained or written."""

from pathlib import Path

import pytest
from support import SMALL

from kdrun.cli.main import run


@pytest.mark.parametrize(
    ("verb", "setting", "steps"),
    [
        ("distill", "schedule.warmup_epochs=2", "schedule.steps=3"),
        ("distill", "schedule.freeze_epochs=1", "schedule.steps=3"),
        ("distill", "teacher.schedule.warmup_epochs=2", "teacher.schedule.steps=3"),
        ("train-teacher", "teacher.schedule.warmup_epochs=2", "teacher.schedule.steps=3"),
    ],
)
def test_refused_at_once(
    verb: str,
    setting: str,
    steps: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    small = [text for text in SMALL if text != "epochs=3"]  # of the teacher, in train-teacher
    assert run([verb, *small, setting, steps]) == 2
    assert setting in capsys.readouterr().err
    assert not [
        path for path in tmp_path.rglob("*") if "cache" not in path.parts and path.is_file()
    ]
    assert not list((tmp_path / "outputs").glob("distill/*/*"))
