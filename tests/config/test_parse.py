"""From YAML to dataclasses and back: types, ranges, names, round trips."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from kdrun.config import composition, dump, parse, rules, schema, trust
from kdrun.config.build import call, check_arguments
from kdrun.errors import ConfigError

# What a scheme leaves to the user.
NEEDED = {"chain": ["scheme.assistants=[{name: a, _target_: b.C}]"]}
CONFIGS = Path(__file__).resolve().parents[2] / "configs"
composition.register()


def composed(name: str, *overrides: str) -> Any:
    with initialize_config_module("kdrun.configs", version_base="1.3"):
        return compose(name, list(overrides))


def distill(*overrides: str) -> Any:
    config = parse.distill_config(composed("distill", *overrides))
    rules.distill(config)
    return config


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONFIGS / group).rglob("*.yaml"))


def test_defaults_are_the_digits() -> None:
    config = distill()
    assert (config.dataset.name, config.student.name) == ("digits", "cnn_tiny")
    assert list(config.loss) == ["kd"]
    assert (config.T, config.alpha, config.ce) == (None, None, None)


@pytest.mark.heavy  # all of them in one objective is the next test
@pytest.mark.parametrize("loss", options("loss"))
def test_every_loss_composes(loss: str) -> None:
    assert list(distill(f"loss={loss}").loss) == [loss]


def test_all_losses_compose_beside_kd() -> None:
    losses = ["kd", *(loss for loss in options("loss") if loss != "kd")]
    assert list(distill(f"loss=[{','.join(losses)}]").loss) == losses


@pytest.mark.parametrize("schedule", options("schedule"))
def test_every_schedule_composes_for_student_and_teacher(schedule: str) -> None:
    if schedule in ("timm_a2", "timm_a3") and importlib.util.find_spec("timm") is None:
        pytest.skip("needs timm for LAMB; without it the recipe is refused")
    config = distill(f"schedule={schedule}", f"schedule@teacher.schedule={schedule}")
    assert config.teachers[0].schedule == config.schedule


@pytest.mark.parametrize("logger", options("logger"))
def test_every_logger_composes(logger: str) -> None:
    assert distill(f"logger={logger}").logger.name == logger


@pytest.mark.parametrize("scheme", options("scheme"))
def test_every_scheme_composes(scheme: str) -> None:
    assert distill(f"scheme={scheme}", *NEEDED.get(scheme, [])).scheme.name == scheme


def test_short_names_reach_the_schedule_and_not_the_teachers() -> None:
    config = distill("epochs=7", "lr=0.3", "batch_size=16", "precision=bf16")
    schedule = config.schedule
    assert (schedule.epochs, schedule.lr, schedule.batch_size) == (7, 0.3, 16)
    assert schedule.precision == "bf16"
    assert config.teachers[0].schedule == distill().teachers[0].schedule


def test_short_names_of_train_teacher_are_the_teachers() -> None:
    config = parse.train_teacher_config(composed("train_teacher", "epochs=7", "seed=4"))
    assert (config.teachers[0].schedule.epochs, config.teachers[0].seed) == (7, 4)
    same = distill("teacher.schedule.epochs=7", "teacher.seed=4")
    assert config.teachers[0] == same.teachers[0]


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("loss=[kd,sp]", "T=2", "alpha=0.5", "ce=1", "+loss.sp.warmup_epochs=3"),
        ("loss=ce",),
        ("schedule.max_norm=3", "teacher.schedule.max_norm=2"),
        ("teacher=mlp1200", "teacher.augment={crop_padding: 2, flip: false}"),
        ("dataset=cifar100", "student=resnet8", "schedule=cifar240", "teacher=wrn_40_2"),
        ("augment=imagenet", "augment.cycle=4", "augment.erasing.prob=0.25"),
        ("augment=randaugment", "augment@teacher.augment=three_augment", "dataset=cifar100"),
        ("augment=none", "dataset=cifar100", "augment.mixup.alpha=0.8"),
        ("student=custom", "student._target_=a.B", "+student.width=3", "+student.taps={x: body}"),
    ],
)
def test_a_dumped_configuration_reads_back_the_same(overrides: tuple[str, ...]) -> None:
    config = distill(*overrides)
    plain = dump.distill_plain(config)
    text = OmegaConf.to_yaml(plain)
    assert parse.distill_config(OmegaConf.create(text)) == config


@pytest.mark.heavy
@pytest.mark.parametrize("augment", options("augment"))
def test_every_augmentation_composes_for_student_and_teacher(augment: str) -> None:
    words = (f"augment={augment}", f"augment@teacher.augment={augment}", "dataset=cifar100")
    config = distill(*words)
    assert config.teachers[0].augment == config.augment
    alone = parse.train_teacher_config(composed("train_teacher", words[0], words[2]))
    usual = augment == "crop_flip"
    assert alone.teachers[0].augment == (None if usual else config.augment)
    assert ("augment" in dump.distill_plain(config)) is not usual


def test_the_data_sets_crops_and_flips_are_the_default() -> None:
    assert distill("dataset=cifar100").augment == schema.AugmentConfig(4, True)
    assert distill("dataset=cifar100", "augment=none").augment == schema.AugmentConfig()
    own = ("dataset.augment={crop_padding: 2, flip: false}", "augment.flip=true")
    assert distill(*own).augment == schema.AugmentConfig(2, True)
    drawn = distill("dataset=cifar100", "augment=three_augment", "augment.crop=resized").augment
    assert (drawn.crop, drawn.crop_padding, drawn.policy) == ("resized", 0, "three_augment")


def test_train_teacher_and_evaluate_read_back_the_same() -> None:
    teacher = parse.train_teacher_config(composed("train_teacher", "seed=2"))
    plain = OmegaConf.create(dump.train_teacher_plain(teacher))
    assert parse.train_teacher_config(plain) == teacher
    teacher = parse.train_teacher_config(composed("train_teacher", "augment=imagenet"))
    plain = OmegaConf.create(dump.train_teacher_plain(teacher))
    assert parse.train_teacher_config(plain) == teacher
    for words in (("run=x",), ("run=x", "dataset=mnist")):
        config = parse.evaluate_config(composed("evaluate", *words))
        assert parse.evaluate_config(OmegaConf.create(dump.evaluate_plain(config))) == config


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ("T=0", "T=0 must be above 0"),
        ("alpha=1.5", "between 0 and 1"),
        ("alpha=-0.1", "between 0 and 1"),
        ("ce=-1", "ce=-1"),
        ("ce=bce", "type ce.kind=bce"),
        ("ce={kind: bce}", "type ce.kind=bce"),
        ("schedule.ce_kind=bcs", "ce.kind=bcs is not one of ce, bce. Did you mean 'bce'"),
        ("epochs=ten", "epochs='ten' is not a whole number"),
        ("epochs=0", "epochs=0 must be at least 1"),
        ("epochs=1.5", "not a whole number"),
        ("batch_size=0", "batch_size=0 must be at least 1"),
        ("lr=0", "lr=0 must be above 0"),
        ("lr=fast", "lr='fast' is not a number"),
        ("seed=a", "seed='a' is not a whole number"),
        ("val_fraction=1", r"val_fraction=1 must lie in \[0, 1\)"),
        ("alone=maybe", "neither true nor false"),
        ("precision=fp8", "fp8 is not one of"),
        ("schedule.optimizer=sdg", "Did you mean 'sgd'"),
        ("schedule.curve=cos", "Did you mean 'cosine'"),
        ("schedule.milestones=[3,2]", "rising"),
        ("schedule.curve=step", "needs schedule.milestones"),
        ("schedule.warmup_epochs=60", "leaves nothing"),
        ("schedule.label_smoothing=1", "label_smoothing"),
        ("teacher.schedule.epochs=-1", "teacher.schedule.epochs=-1"),
        ("teacher.augment={crop_pading: 1}", "Did you mean 'crop_padding'"),
        ("dataset.augment.crop_padding=-2", "crop_padding=-2 must be at least 0"),
        ("dataset.resident=sometimes", "is not one of"),
        ("+dataset.workers=-1", "dataset.workers"),
        ("loss.kd.weight=-1", "loss.kd.weight"),
        ("threads=0", "threads=0"),
        ("ui=loud", "ui=loud"),
        ("schedule.max_norm=-1", "schedule.max_norm=-1 must be at least 0"),
        ("schedule.early_stopping=-1", "schedule.early_stopping=-1 must be at least 0"),
        ("schedule.early_stopping_metric=los", "Did you mean 'loss'"),
        ("dataset.std=[0.5]", "dataset.mean and dataset.std together"),
        ("augment.cycle=0", "augment.cycle=0 must be at least 1"),
        ("augment.policy=randaug", "Did you mean 'randaugment'"),
        ("student.quantize=int9", "student.quantize=int9 is not one of int8, w4a8"),
        ("augment.magnitude=5", "augment.policy=randaugment or timm_randaugment reads it"),
        ("augment={policy: timm_randaugment, magnitude: 12}", "at most 10"),
        ("augment.scale=[0.5,1]", "augment.crop=resized reads it"),
        (
            "augment.interpolation=random",
            "augment.policy=timm_randaugment or crop=resized reads it",
        ),
        ("augment={crop: resized, scale: [0.9, 0.5]}", r"e.g. 'augment.scale=\[0.5,0.9\]'"),
        ("augment.erasing.prob=1.5", r"augment.erasing.prob=1.5 must lie in \[0, 1\]"),
        ("augment={mixup: {alpha: 1.0}, teacher_view: fixed}", "teacher_view=same or weak"),
        ("teacher.augment={teacher_view: weak}", "leave teacher.augment.teacher_view out"),
    ],
)
def test_what_cannot_be_is_refused_by_name(override: str, text: str) -> None:
    name = override.removeprefix("+")
    with pytest.raises(ConfigError, match=text):
        distill("++" + name if "=" in name and override.startswith("+") else override)


@pytest.mark.parametrize("where", ["schedule", "teacher.schedule"])
def test_early_stopping_needs_a_validation_split(where: str) -> None:
    assert distill(f"{where}.early_stopping=3")
    with pytest.raises(ConfigError, match=rf"{where}.early_stopping=3 watches the validation"):
        distill(f"{where}.early_stopping=3", "val_fraction=0")


def test_a_missing_value_is_named() -> None:
    with pytest.raises(ConfigError, match=r"dataset\.root"):
        distill("dataset=imagefolder")
    with pytest.raises(ConfigError, match="run"):
        parse.evaluate_config(composed("evaluate"))


def test_an_empty_objective_is_refused() -> None:
    with pytest.raises(ConfigError, match="objective is empty"):
        distill("loss=[]")


def sample(width: int, rates: list[float], name: str = "x", deep: bool = False) -> tuple[Any, ...]:
    return width, rates, name, deep


@pytest.mark.parametrize(
    ("kwargs", "text"),
    [
        ({"widht": 3, "rates": []}, "Did you mean 'width'"),
        ({"rates": [1.0]}, "width has no value"),
        ({"width": "3", "rates": []}, "width='3' is not of type int"),
        ({"width": 3, "rates": [1.0, "x"]}, "rates"),
        ({"width": 3, "rates": [], "deep": 1}, "deep=1"),
    ],
)
def test_arguments_are_checked_against_the_signature(kwargs: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        check_arguments(sample, kwargs, "student")


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(ConfigError, match=r"widht.*width has no value"):
        check_arguments(sample, {"widht": 3, "rates": []}, "student")


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("no_such_package.Thing", "no module 'no_such_package'"),
        ("kdrun.models.cnn.ConvNt", "Did you mean 'ConvNet'"),
        ("kdrun.errors.EXIT_DONE", "neither a class nor a function"),
        ("kdrun.types.InputInfo.no_such", "'kdrun.types.InputInfo' has no 'no_such'"),
        ("kdrun.errors.EXIT_DONE.bit_count", "no module 'kdrun.errors.EXIT_DONE'"),
    ],
)
def test_a_wrong_path_is_explained(path: str, text: str) -> None:
    trust.name([path])
    with pytest.raises(ConfigError, match=text):
        call(path, {}, "student")


def test_a_class_method_is_a_target() -> None:
    path = "collections.OrderedDict.fromkeys"
    trust.name([path])
    assert call(path, {"iterable": "ab", "value": 0}, "student") == {"a": 0, "b": 0}


def test_offered_arguments_go_only_where_they_are_taken() -> None:
    path = "kdrun.config.schema.AugmentConfig"
    trust.name([path])
    assert call(path, {"flip": True}, "x", crop_padding=2, other=5).crop_padding == 2
