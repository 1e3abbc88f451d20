"""What other tools call the weights a network starts from is answered with `checkpoint`."""

from collections.abc import Callable

import pytest
from cli.conftest import Recorder

from kdrun.cli.main import run
from kdrun.config import build
from kdrun.errors import ConfigError
from kdrun.models.mlp import MLP


@pytest.mark.parametrize(
    "word",
    [
        "student.weights=a.pth",
        "student.init=a.pth",
        "student.pretrained=runs/a.pth",
        "student.ckpt=a.pth",
        "student_checkpoint=a.pth",
        "init_student=a.pth",
    ],
)
def test_the_student_s(refused: Callable[..., str], word: str) -> None:
    text = refused("distill", word)
    assert f"student.checkpoint={word.partition('=')[2]}" in text


def test_the_teacher_s(refused: Callable[..., str]) -> None:
    for word in ("teacher.weights=a.pth", "teacher.ckpt=b.pth", "teacher_weights=c.pth"):
        assert "teacher.checkpoint=" in refused("distill", word)
    words = ["teacher=torchvision", "teacher.pretrained=a.pth"]
    assert "teacher.checkpoint=a.pth" in refused("distill", *words)


def test_an_argument_of_a_network_of_the_user_s_own_is_its_own(stages: Recorder) -> None:
    words = ["student=custom", "student._target_=my_nets.Mine"]
    for own in ("+student.weights=a.pth", "+student.init=xavier", "+student.path=x/y"):
        assert run(["distill", *words, own]) == 0
    assert len(stages.calls) == 3


def test_an_argument_that_a_network_does_not_take() -> None:
    with pytest.raises(ConfigError, match=r"are student.checkpoint=a.pth"):
        build.check_arguments(MLP, {"init_from": "a.pth"}, "student")


def test_settings_that_no_file_is_named_for(refused: Callable[..., str]) -> None:
    assert "add student.checkpoint=FILE" in refused("distill", "student.checkpoint_key=ema")
    assert "add teacher.checkpoint=FILE" in refused("distill", "teacher.rename={a: b}")
    assert "needs student.checkpoint=FILE" in refused("distill", "student.new_classifier=true")
    assert "there is no such file" in refused("distill", "student.checkpoint=nowhere.pth")
    assert "is not a mapping" in refused("distill", "teacher.checkpoint=.", "teacher.rename=fc")


@pytest.mark.parametrize("word", ["checkpoint=a.pth", "weights=a.pth", "init_from=runs/a"])
def test_of_neither_network(refused: Callable[..., str], word: str) -> None:
    value = word.partition("=")[2]
    text = refused("distill", word)
    assert f"student.checkpoint={value} for the student or teacher.checkpoint={value}" in text
    text = refused("train-teacher", word)
    assert "student" not in text
    assert f"teacher.checkpoint={value} for the teacher" in text


def test_the_help_lists_the_settings_of_teachers_and_data_sets(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["distill", "--help"]) == 0
    text = capsys.readouterr().out
    for key in ("teacher.mean=null", "teacher.class_order=null", "student.checkpoint=null"):
        assert f"  {key} " in text
    assert "  dataset.duplicates=warn " in text
    assert run(["evaluate", "--help"]) == 0
    assert "  teacher.classes=null " in capsys.readouterr().out
