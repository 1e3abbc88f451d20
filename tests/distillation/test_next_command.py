"""Suggested commands build on what was typed, and are valid."""

import shlex
from pathlib import Path
from typing import Any

import pytest

from kdrun.cli import planning
from kdrun.cli.parser import parse_composed
from kdrun.distillation.next_command import after_distill, after_train_teacher
from kdrun.runs.result import RunResult


def suggested(tmp_path: Path, typed: str, **result: Any) -> list[str]:
    (tmp_path / "command.txt").write_text(f"kdrun {typed}\n")
    teachers = [{"name": "cnn_large"}] if result.get("scheme", "offline") == "offline" else []
    values = {"scheme": "offline", "loss": ["kd"], "teachers": teachers, **result}
    return after_distill(RunResult.from_dict(values), tmp_path)


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("distill", "kdrun distill -m T=1,4,20 alpha=0.1,0.9"),
        (
            "distill student=cnn_tiny T=2 loss.kd.weight=0.3 'dataset.root=my data'",
            "kdrun distill -m student=cnn_tiny 'dataset.root=my data' T=1,4,20 alpha=0.1,0.9",
        ),
        (
            "distill --config-dir my loss=kd seed=3",
            "kdrun distill -m --config-dir my loss=kd seed=3 T=1,4,20 alpha=0.1,0.9",
        ),
    ],
)
def test_a_sweep_of_what_was_typed(tmp_path: Path, typed: str, expected: str) -> None:
    evaluate, sweep, loss = suggested(tmp_path, typed)
    assert evaluate == f"kdrun evaluate run={tmp_path}"
    assert sweep.partition("    #")[0] == expected
    assert "'loss=[kd,sp]'" in loss


@pytest.mark.parametrize(
    ("typed", "result"),
    [
        ("distill scheme=online seed=4 epochs=3", {"scheme": "online"}),
        ("distill scheme=tf_kd", {"scheme": "tf_kd"}),
        ("distill scheme=born_again", {"scheme": "born_again"}),
        ("distill loss=sp", {"loss": ["sp"]}),
        ("distill student=cnn_tiny", {}),
        ("distill experiment=smoke", {}),
    ],
)
def test_every_suggestion_is_valid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: str, result: dict[str, Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    for command in suggested(tmp_path, typed, **result)[1:]:
        _, verb, *argv = shlex.split(command, comments=True)
        plan = planning.check(verb, parse_composed(verb, argv))
        assert len(plan.configs) == (1 if "-m" not in argv else 3 if "seed=0,1,2" in argv else 6)


def test_only_evaluate_where_the_command_is_unknown(tmp_path: Path) -> None:
    (tmp_path / "command.txt").write_text("kdrun 'unclosed")
    assert after_distill(RunResult(), tmp_path) == [f"kdrun evaluate run={tmp_path}"]


def test_teachers_from_files_keep_their_settings() -> None:
    argv = ["train-teacher", "teacher.checkpoint=a.pth", "teacher=resnet56", "epochs=3", "seed=1"]
    assert after_train_teacher(argv, [Path("a.pth")], [True]) == (
        "kdrun distill teacher.checkpoint=a.pth teacher=resnet56"
    )
    argv = ["train-teacher", "dataset=digits", "teacher=mlp30", "epochs=3"]
    assert after_train_teacher(argv, [Path("outputs/teachers/x/t.safetensors")], [False]) == (
        "kdrun distill dataset=digits teacher.checkpoint=outputs/teachers/x"
    )
