"""What other tools call the weights a network starts from is answered with `checkpoint`."""

from collections.abc import Callable

import pytest


@pytest.mark.parametrize(
    "word",
    [
        "student.weights=a.pth",
        "student.init=a.pth",
        "student.pretrained=runs/a.pth",
        "+student.init_from=a.pth",
        "student.ckpt=a.pth",
        "student_checkpoint=a.pth",
        "init_student=a.pth",
    ],
)
def test_the_student_s(refused: Callable[..., str], word: str) -> None:
    text = refused("distill", word)
    assert f"student.checkpoint={word.partition('=')[2]}" in text


def test_the_teacher_s(refused: Callable[..., str]) -> None:
    for word in ("teacher.weights=a.pth", "teacher2.ckpt=b.pth", "teacher_weights=c.pth"):
        assert "checkpoint=" in refused("distill", word)


def test_settings_that_no_file_is_named_for(refused: Callable[..., str]) -> None:
    assert "add student.checkpoint=FILE" in refused("distill", "student.checkpoint_key=ema")
    assert "add teacher.checkpoint=FILE" in refused("distill", "teacher.rename={a: b}")
    assert "needs student.checkpoint=FILE" in refused("distill", "student.new_classifier=true")
    assert "there is no such file" in refused("distill", "student.checkpoint=nowhere.pth")
    assert "is not a mapping" in refused("distill", "teacher.checkpoint=.", "teacher.rename=fc")
