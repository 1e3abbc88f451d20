"""Notes in the header of a distillation."""

from collections.abc import Callable
from pathlib import Path

import pytest

from kdrun.cli.main import run


@pytest.fixture
def header(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def of(*words: str) -> str:
        command = ["distill", "threads=1", "ui=plain", "loss=ce", "alone=false", "schedule.steps=1"]
        assert run([*command, f"output_root={tmp_path}", *words]) == 0
        return capsys.readouterr().out

    return of


def test_a_transformer_with_sgd_is_told_of_adamw(header: Callable[..., str]) -> None:
    small = ["student=deit_micro", "student.width=6", "student.depth=1", "student.patch_size=4"]
    assert "usually trains better with schedule=adamw" in header(*small)
    adamw = ["schedule=adamw", "schedule.warmup_epochs=0"]
    assert "usually trains better" not in header(*small, *adamw)
    assert "usually trains better" not in header("student=cnn_tiny")
