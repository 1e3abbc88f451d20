"""Settings of weights files: read, written back, and absent where they are not set."""

from hydra import compose, initialize_config_module

from kdrun.config import composition, dump
from kdrun.config.parse import distill_config
from kdrun.config.schema import DistillConfig


def composed(*overrides: str) -> DistillConfig:
    composition.register()
    with initialize_config_module("kdrun.configs", version_base="1.3"):
        return distill_config(compose("distill", list(overrides)))


def test_unset_they_leave_the_written_configuration_as_it_was() -> None:
    plain = dump.distill_plain(composed("teacher=resnet20", "student=resnet8"))
    assert set(plain["student"]) == {"name", "_target_", "depth", "widths", "taps"}
    assert not {"checkpoint_key", "rename", "shortcut"} & set(plain["teacher"])


def test_set_they_come_back() -> None:
    config = composed(
        "teacher=resnet20",
        "teacher.checkpoint=a.pth",
        "teacher.checkpoint_key=model_ema",
        "teacher.rename={linear: fc, layer1.0.aux: null}",
        "teacher.shortcut=pad",
        "student.checkpoint=b.pth",
        "student.new_classifier=true",
        "student.rename={head: ''}",
    )
    plain = dump.distill_plain(config)
    assert plain["teacher"]["rename"] == {"linear": "fc", "layer1.0.aux": None}
    assert plain["teacher"]["shortcut"] == "pad"
    assert plain["student"]["checkpoint"] == "b.pth"
    assert plain["student"]["new_classifier"] is True
    assert "checkpoint" not in config.student.kwargs
    assert config.start is not None
    assert config.start.reading.rename == {"head": ""}
