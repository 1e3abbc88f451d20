"""Notes in the header of a distillation."""

from collections.abc import Callable
from pathlib import Path

import pytest
from support import SMALL

from kdrun.cli.main import run
from kdrun.distillation.build import weight_change_notes
from kdrun.losses.kd import SoftTargets
from kdrun.losses.objective import WeightedLoss


@pytest.fixture
def header(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def of(*words: str) -> str:
        command = [
            "distill",
            *(word for word in SMALL if word != "ui=quiet"),
            "ui=plain",
            "loss=ce",
            "alone=false",
        ]
        assert run([*command, f"output_root={tmp_path}", *words]) == 0
        return capsys.readouterr().out

    return of


def test_a_transformer_with_sgd_is_told_of_adamw(header: Callable[..., str]) -> None:
    small = ["student=deit_micro", "student.width=6", "student.depth=1", "student.patch_size=4"]
    assert "usually trains better with schedule=adamw" in header(*small)
    adamw = ["schedule=adamw", "schedule.warmup_epochs=0"]
    assert "usually trains better" not in header(*small, *adamw)
    assert "usually trains better" not in header("student=cnn_tiny")


@pytest.mark.parametrize(
    ("settings", "epochs", "text"),
    [
        ({"warmup_epochs": 20}, 2, "full from epoch 20, but the training ends after 2, at 10 % "),
        ({"warmup_epochs": 20}, 20, ""),
        ({"decay_after": 30}, 30, "loss.kd.decay_after=30 has no effect: the training ends after "),
        ({"decay_after": 29}, 30, "loss.kd.decay_after=29 has no effect: the training ends after "),
        ({"decay_after": 28}, 30, ""),
        ({}, 1, ""),
    ],
)
def test_a_change_of_weight_longer_than_the_training_is_told(
    settings: dict[str, int], epochs: int, text: str
) -> None:
    weighted = WeightedLoss(SoftTargets(), 1.0, **settings)
    told = " ".join(weight_change_notes("kd", weighted, epochs))
    assert text in told
    assert bool(text) == bool(told)
