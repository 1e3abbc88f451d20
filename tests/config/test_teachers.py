"""Several teachers in configurations: written and read back, and options that stay plain."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from kdrun.cli import preflight
from kdrun.cli.flags import split
from kdrun.config import dump, parse, resolvers
from kdrun.config.schema import DistillConfig, EnsembleConfig, TrainTeacherConfig

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
resolvers.register()


@pytest.mark.parametrize(
    "words",
    [
        ["teacher.count=3", "teacher.weights=[1,2,3]"],
        ["teacher=[resnet20,wrn_16_1]", "teacher2.seed=4", "teacher.average=soft_targets"],
        ["teacher=[resnet20,resnet20]", "teacher1.checkpoint=configs", "teacher2.seed=1"],
        ["teacher.count=2", "teacher2.augment={flip: true}", "schedule@teacher1.schedule=adam"],
        ["teacher.checkpoint=configs"],
    ],
)
def test_a_dumped_configuration_reads_back_the_same(
    words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(CONFIGS.parent)
    (config,) = preflight.check("distill", "distill", split("distill", words)).configs
    assert isinstance(config, DistillConfig)
    text = OmegaConf.to_yaml(dump.distill_plain(config))
    assert parse.distill_config(OmegaConf.create(text)) == config


def test_train_teacher_reads_back_the_same() -> None:
    words = ["teacher=[resnet20,vgg8]", "seed=3", "teacher2.seed=8", "epochs=4"]
    (config,) = preflight.check("train-teacher", "train_teacher", split("", words)).configs
    assert isinstance(config, TrainTeacherConfig)
    text = OmegaConf.to_yaml(dump.train_teacher_plain(config))
    assert parse.train_teacher_config(OmegaConf.create(text)) == config


def test_labels_alone_have_no_ensemble() -> None:
    words = ["loss=ce", "teacher.count=2", "teacher.weights=[1,2]"]
    (config,) = preflight.check("distill", "distill", split("distill", words)).configs
    assert isinstance(config, DistillConfig)
    assert (config.teachers, config.ensemble) == ((), EnsembleConfig())


@pytest.mark.parametrize("name", sorted(path.name for path in (CONFIGS / "teacher").iterdir()))
def test_an_option_is_a_network_and_no_more(name: str) -> None:
    # what all teachers have comes from teacher_keys.yaml, so that teacher2 can follow teacher
    assert (CONFIGS / "teacher" / name).read_text() == (CONFIGS / "student" / name).read_text()
