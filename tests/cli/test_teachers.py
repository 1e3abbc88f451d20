"""Several teachers as they are typed: lists, numbers, settings of one, and what is refused."""

from pathlib import Path

import pytest

from kdrun.cli import planning
from kdrun.cli.parser import parse_composed
from kdrun.cli.teachers import expand_teachers, merge_teachers
from kdrun.commands import completion
from kdrun.config import composition
from kdrun.config.schema import DistillConfig, TrainTeacherConfig
from kdrun.errors import ConfigError

composition.register()

TYPED = [
    (["teacher=resnet20"], ["teacher=resnet20"]),
    (["teacher=[resnet20]"], ["teacher=resnet20"]),
    (
        ["teacher=[resnet20,wrn_16_1,vgg8]", "T=2"],
        ["teacher=resnet20", "+teacher@teacher2=wrn_16_1", "+teacher@teacher3=vgg8", "T=2"],
    ),
    (["teacher2=vgg8"], ["+teacher@teacher2=vgg8"]),
    (["teacher2=vgg8,vgg11"], ["+teacher@teacher2=vgg8,vgg11"]),
    (
        ["teacher2.seed=3", "schedule@teacher2.schedule=adam", "teacher2.schedule.lr=0.2"],
        ["++teacher2.seed=3", "+schedule@teacher2.schedule=adam", "++teacher2.schedule.lr=0.2"],
    ),
    (["teacher.count=1,3", "teacher.seed=2"], ["teacher.count=1,3", "teacher.seed=2"]),
]


def check(verb: str, *words: str) -> planning.Plan:
    return planning.check(verb, parse_composed(verb, list(words)))


def distill(*words: str) -> DistillConfig:
    (config,) = check("distill", *words).configs
    assert isinstance(config, DistillConfig)
    return config


@pytest.mark.parametrize(("typed", "handed_on"), TYPED)
def test_what_hydra_gets_and_back(typed: list[str], handed_on: list[str]) -> None:
    assert expand_teachers(typed) == handed_on
    assert expand_teachers(merge_teachers(handed_on)) == handed_on


TWO = "experiment=deit/cnn_vit_hard_one_token"


@pytest.mark.parametrize(
    "words",
    [
        (TWO, "teacher=cnn_large", "teacher2=deit_micro"),
        (TWO, "teacher2=deit_micro", "teacher=cnn_large"),
        (TWO, "teacher=[cnn_large,deit_micro]"),
    ],
)
def test_an_experiments_further_teacher_is_replaced(words: tuple[str, ...]) -> None:
    config = distill(*words, "teacher2.patch_size=8")
    assert [teacher.network.name for teacher in config.teachers] == ["cnn_large", "deit_micro"]


TWO = "experiment=deit/cnn_vit_hard_one_token,deit/cnn_vit_soft_one_token"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["teacher=[resnet8,deit_micro]"], [["resnet8", "deit_micro"]]),
        (["teacher=resnet8", "teacher2=deit_micro"], [["resnet8", "deit_micro"]]),
        (["teacher2=deit_micro"], [["wrn_40_2", "deit_micro"]]),
        (["teacher=resnet8"], [["resnet8"]]),
        (["teacher=resnet8,resnet20"], [["resnet8"], ["resnet20"]]),
    ],
)
@pytest.mark.parametrize(
    "experiments", [TWO, pytest.param(TWO.partition(",")[0], marks=pytest.mark.heavy)]
)
def test_swept_experiments_get_the_chosen_teachers(
    experiments: str, words: list[str], expected: list[list[str]]
) -> None:
    line = ["-m", experiments, *words, "dataset=digits"]
    plan = check("distill", *line)
    assert len(plan.configs) == len(expected) * (1 + experiments.count(","))
    found = [
        [teacher.network.name for teacher in config.teachers]
        for config in plan.configs
        if isinstance(config, DistillConfig)
    ]
    assert sorted(found) == sorted(expected * (1 + experiments.count(",")))
    again = check("distill", *plan.argvs[0][1:])
    assert again.configs == plan.configs[:1]


def test_swept_experiments_with_different_numbers_of_teachers_are_refused() -> None:
    words = ["-m", "experiment=deit/cnn_hard,deit/cnn_vit_hard_one_token", "dataset=digits"]
    for choice in ("teacher=resnet8", "teacher2=deit_micro"):
        with pytest.raises(ConfigError, match="deit/cnn_hard: 1, deit/cnn_vit_hard_one_token: 2"):
            check("distill", *words, choice)
    assert len(check("distill", *words).configs) == 2


def test_each_teacher_of_a_list_has_its_network_and_the_shared_settings() -> None:
    config = distill(
        "teacher=[resnet20,wrn_16_1,resnet20]",
        "teacher.seed=5",
        "teacher.schedule.epochs=7",
        "teacher3.seed=6",
        "teacher2.schedule.lr=0.3",
        "teacher1.augment={crop_padding: 2}",
    )
    assert [t.network.name for t in config.teachers] == ["resnet20", "wrn_16_1", "resnet20"]
    assert [t.seed for t in config.teachers] == [5, 5, 6]
    assert [t.schedule.epochs for t in config.teachers] == [7, 7, 7]
    assert [t.schedule.lr for t in config.teachers] == [0.1, 0.3, 0.1]
    assert [t.augment is None for t in config.teachers] == [False, True, True]


def test_a_schedule_of_one() -> None:
    config = distill("teacher2=wrn_16_1", "schedule@teacher2.schedule=adam", "teacher.seed=1")
    assert [t.schedule.optimizer for t in config.teachers] == ["sgd", "adam"]
    assert [t.seed for t in config.teachers] == [1, 1]


def test_count_makes_seeds() -> None:
    config = distill("teacher.count=3", "teacher.seed=2", "teacher2.seed=9")
    assert [t.seed for t in config.teachers] == [2, 9, 4]
    (train,) = check("train-teacher", "teacher.count=2", "seed=4", "epochs=3").configs
    assert isinstance(train, TrainTeacherConfig)
    assert [(t.seed, t.schedule.epochs) for t in train.teachers] == [(4, 3), (5, 3)]


def test_checkpoints_of_their_own(tmp_path: Path) -> None:
    config = distill("teacher=[resnet20,resnet20]", f"teacher2.checkpoint={tmp_path}")
    assert [t.checkpoint for t in config.teachers] == [None, str(tmp_path)]


def test_a_sweep_repeats_what_was_typed() -> None:
    plan = check("distill", "-m", "teacher=[resnet20,vgg8]", "T=1,4", "teacher2.seed=0,1")
    assert len(plan.configs) == 4
    assert plan.argvs[1] == ["distill", "teacher=[resnet20,vgg8]", "T=1", "teacher2.seed=1"]
    plan = check("distill", "-m", "teacher.count=1,3")
    assert [len(config.teachers) for config in plan.configs] == [1, 3]  # type: ignore[union-attr]


def test_an_experiment_names_teachers_and_the_command_replaces_them(tmp_path: Path) -> None:
    folder = tmp_path / "experiment"
    folder.mkdir()
    (folder / "pair.yaml").write_text(
        "# @package _global_\ndefaults:\n  - /teacher@teacher2: wrn_16_1\n"
        "  - override /teacher: resnet8\n  - _self_\nteacher:\n  seed: 3\n"
    )
    own = ["--config-dir", str(tmp_path), "experiment=pair"]
    assert [t.network.name for t in distill(*own).teachers] == ["resnet8", "wrn_16_1"]
    assert [t.seed for t in distill(*own).teachers] == [3, 3]
    one = distill(*own, "teacher=vgg8")
    assert [t.network.name for t in one.teachers] == ["vgg8"]
    (folder / "made_of_it.yaml").write_text(
        "# @package _global_\ndefaults:\n  - /experiment/pair\n  - _self_\n"
    )
    one = distill(*own[:2], "experiment=made_of_it", "teacher=vgg8")
    assert [t.network.name for t in one.teachers] == ["vgg8"]
    two = distill(*own, "teacher=[vgg8,vgg11]", "teacher2.seed=8")
    assert [(t.network.name, t.seed) for t in two.teachers] == [("vgg8", 3), ("vgg11", 8)]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (
            ["teacher=[resnet20,resnte56]"],
            "no teacher 'resnte56'. Did you mean 'resnet56'",
        ),
        (["teacher=[]"], "list of teachers is empty"),
        (["teacher=[[resnet20]]"], "not a list of names"),
        (
            ["teacher=resnet20,vgg8"],
            r"teach together, type 'teacher=\[resnet20,vgg8\]'",
        ),
        (["teacher2=vgg8", "teacher2.sed=1"], "no teacher2.sed. Did you mean teacher2.seed"),
        (["teacher.count=2", "teacher2.widht=1"], "Did you mean teacher2.widths"),
        (["teacher=[vgg8,vgg8]"], r"1 and 2 are the same: .*teacher2\.seed"),
        (["teacher2=vgg8", "teacher3.seed=1"], "there is no teacher 3: there are 2"),
        (["teacher2.seed=1"], "there is no teacher 2: there is one"),
        (["teacher3=vgg8"], "a teacher3 and no teacher2"),
        (["teacher=[vgg8,vgg11]", "teacher.count=3"], "leave one of the two out"),
        (["teacher.count=0"], "at least 1"),
        (["-m", "teacher=[vgg8,vgg11],resnet20"], "sweep over single ones"),
        (["teacher.count=2", "teacher.checkpoint=x"], r"set teacher1\.checkpoint"),
        (["teacher.count=2", "teacher2.checkpoint=x"], "teacher2.checkpoint=x: there is no such"),
        (["teacher=[vgg8,vgg11]", "teacher2.schedule=adam"], "schedule@teacher2.schedule=adam"),
        (["teacher2=vgg8", "teacher2.schedule.epochs=0"], r"teacher2\.schedule\.epochs=0 must be"),
        (["teacher.average=soft"], "Did you mean 'soft_targets'"),
        (["teacher.count=2", "teacher.weights=[1,0]"], "must be above 0"),
        (["teachr2=vgg8"], "There is no setting 'teachr2'"),
    ],
)
def test_what_makes_no_sense_is_refused(words: list[str], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        check("distill", *words)


def test_completion_offers_lists_and_settings_of_one() -> None:
    found = completion.candidates("kdrun distill teacher=[resnet20,wrn_16_", ["distill"])
    assert "teacher=[resnet20,wrn_16_1" in found
    found = completion.candidates("kdrun distill teacher=[resnet20,vgg8] teacher2.s", ["distill"])
    assert {"teacher2.seed=", "teacher2.schedule."} <= set(found)
    assert "teacher.count=" in completion.candidates("kdrun distill teacher.c", ["distill"])
