"""Several teachers in configurations: written and read back, and options that stay plain."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from kdrun.cli import planning
from kdrun.cli.parser import parse_composed
from kdrun.config import composition, dump, parse
from kdrun.config.schema import DistillConfig, EnsembleConfig, TrainTeacherConfig
from kdrun.errors import ConfigError

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
composition.register()


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
    (config,) = planning.check("distill", parse_composed("distill", words)).configs
    assert isinstance(config, DistillConfig)
    text = OmegaConf.to_yaml(dump.distill_plain(config))
    assert parse.distill_config(OmegaConf.create(text)) == config


def test_train_teacher_reads_back_the_same() -> None:
    words = ["teacher=[resnet20,vgg8]", "seed=3", "teacher2.seed=8", "epochs=4"]
    (config,) = planning.check("train-teacher", parse_composed("train-teacher", words)).configs
    assert isinstance(config, TrainTeacherConfig)
    text = OmegaConf.to_yaml(dump.train_teacher_plain(config))
    assert parse.train_teacher_config(OmegaConf.create(text)) == config


def test_labels_alone_have_no_ensemble() -> None:
    words = ["loss=ce", "teacher.count=2", "teacher.weights=[1,2]"]
    (config,) = planning.check("distill", parse_composed("distill", words)).configs
    assert isinstance(config, DistillConfig)
    assert (config.teachers, config.ensemble) == ((), EnsembleConfig())


def test_a_model_of_the_user_is_a_student_and_a_teacher(tmp_path: Path) -> None:
    own = tmp_path / "own"
    for place, widths in (("model/mine", [2]), ("model/below/deep", [3]), ("student/mine", [5])):
        path = own / f"{place}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"name: mine\n_target_: kdrun.models.cnn.ConvNet\nwidths: {widths}\n")

    def widths(*words: str) -> list[list[int]]:
        flags = parse_composed("distill", [*words, "--config-dir", str(own)])
        (config,) = planning.check("distill", flags).configs
        assert isinstance(config, DistillConfig)
        return [config.student.kwargs["widths"], config.teachers[0].network.kwargs["widths"]]

    assert widths("student=mine", "teacher=mine") == [[5], [2]]  # student/mine.yaml comes first
    assert widths("student=below/deep", "teacher=cnn_large") == [[3], [32, 64, 128]]
    with pytest.raises(ConfigError, match="no student 'below/deep'"):
        planning.check("distill", parse_composed("distill", ["student=below/deep"]))
