"""Ranges are declared with the settings: every number has one, and each is enforced by name."""

import dataclasses
import math
import typing

import pytest
from hydra import compose, initialize_config_module

from kdrun.config import composition, parse, rules, schema
from kdrun.config.plain import require_plain
from kdrun.config.unused import changed
from kdrun.errors import ConfigError
from kdrun.models.cnn import ConvNet
from kdrun.models.mlp import MLP
from kdrun.models.vit import VisionTransformer
from kdrun.ranges import Choices, Count, Range, Share, problems
from kdrun.recipes.lr_schedules import LR_SCHEDULES, learning_rates, training_length
from kdrun.recipes.optimizers import OPTIMIZERS

composition.register()

CONFIGS = [
    value
    for value in vars(schema).values()
    if dataclasses.is_dataclass(value)
    and isinstance(value, type)
    and value.__module__.startswith("kdrun.config")
    and value.__name__ != "TeacherInput"  # checks itself
]
BIG = 18446744073709551616


def distill(*overrides: str) -> schema.DistillConfig:
    with initialize_config_module("kdrun.configs", version_base="1.3"):
        config = parse.distill_config(compose("distill", list(overrides)))
    rules.distill(config)
    return config


def _bare_numbers(hint: object) -> bool:
    """Whether a type holds a number without a declared range."""
    if typing.get_origin(hint) is typing.Annotated:
        inner, *checks = typing.get_args(hint)
        return not any(isinstance(check, Range) for check in checks) and _bare_numbers(inner)
    return hint in (int, float) or any(_bare_numbers(part) for part in typing.get_args(hint))


@pytest.mark.parametrize("config", CONFIGS, ids=lambda cls: cls.__name__)
def test_every_number_of_the_schema_has_a_range(config: type) -> None:
    hints = typing.get_type_hints(config, include_extras=True)
    bare = [name for name, hint in hints.items() if _bare_numbers(hint)]
    assert bare in ([], ["exclude_classes", "only_classes"])  # numbers of classes, checked by data


@pytest.mark.parametrize(
    "override",
    [
        "T=inf",
        "T=nan",
        "T=1e308",
        "alpha=nan",
        "ce=inf",
        "lr=inf",
        "lr=1e308",
        "lr=-1",
        f"seed={BIG}",
        f"dataset.split_seed=-{BIG}",
        f"epochs={BIG}",
        "threads=100000",
        "batch_size=9223372036854775807",
        "val_fraction=nan",
        "teacher.schedule.weight_decay=1e308",
        "schedule.momentum=1",
        "schedule.betas=[2,3]",
        "schedule.betas=[0.9]",
        "loss.kd.weight=inf",
        "checkpoint_minutes=nan",
        "sweep.job_minutes=inf",
        "teacher.cache_gb=inf",
        "teacher.fold=5",
        "output_root=''",
        "output_root=' '",
        "+student.kind=nan",
        "+student.kind={a: [1, inf]}",
        f"+student.kind=[{BIG}]",
        "+dataset.root=''",
        "teacher.checkpoint=''",
        "transfer.folder=''",
        "transfer.fraction=nan",
        "dataset.mean=[nan]",
    ],
)
def test_out_of_range_is_one_sentence(override: str) -> None:
    with pytest.raises(ConfigError) as caught:
        distill(override)
    assert str(caught.value).count("\n") == 0
    assert override.lstrip("+").split("=")[0].split(".")[-1].strip() in str(caught.value)


@pytest.mark.parametrize("override", ["seed=-5", f"seed={2**62}", "T=1e6", "lr=1e-12", "threads=4"])
def test_the_ends_of_ranges_are_inside(override: str) -> None:
    assert distill(override)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: ConvNet(3, 1, [4, -1]), "widths=[4, -1]: each item must be at least 1"),
        (lambda: MLP(3, 1, (8, 8), [-1]), "hidden=[-1]: each item must be at least 1"),
        (lambda: MLP(3, 1, (8, 8), [0]), "hidden=[0]"),
        (lambda: MLP(3, 1, (8, 8), [4], dropout=math.nan), "dropout=nan"),
        (lambda: _vit(mlp_ratio=0.0), "mlp_ratio=0 must be above 0"),
        (lambda: _vit(mlp_ratio=0.01), "without units"),
        (lambda: _vit(drop_path=math.inf), "drop_path=inf"),
        (lambda: _vit(width=10**9), "width=1000000000 must be at most"),
    ],
)
def test_networks_refuse_sizes_by_name(make: typing.Callable[[], object], text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make()
    assert text in str(caught.value)


def _vit(**settings: object) -> VisionTransformer:
    base = {"patch_size": 4, "width": 8, "depth": 1, "attention_heads": 2}
    return VisionTransformer(3, 1, (8, 8), **{**base, **settings})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("hint", "value", "text"),
    [
        (Count, 0, "must be at least 1"),
        (Count | None, None, ""),
        (Count | None, 0, "must be at least 1"),
        (str | Share, 2.0, "must lie in [0, 1)"),
        (str | Share, "none", ""),
        (list[Share], [0.5, math.nan], "each item must lie in [0, 1)"),
        (list[list[Count]], [[1], [0]], "each item must be at least 1"),
        (typing.Annotated[str, Choices(("sgd", "adam"))], "sdg", "Did you mean 'sgd'?"),
    ],
)
def test_problems_name_the_bound(hint: object, value: object, text: str) -> None:
    found = next(problems(hint, value), "")
    assert (text in found) if text else not found


@pytest.mark.parametrize(
    "values",
    [
        {"a": "${oc.env:HOME}"},
        {"a": ["x${y}"]},
        {"${oc.env:HOME}": 1},
        {"a": {"\u2028": 1}},
        {"a": {" ": 1}},
        {"a": math.nan},
        {"a": 2**63},
        {"a": b"x"},
        {"a": "\udcff"},
    ],
)
def test_only_plain_values_pass(values: dict[str, object]) -> None:
    require_plain({"a": [1, -(2**63), 0.5, None, True, "$x {y}", {"k": "v"}]})
    with pytest.raises(ConfigError):
        require_plain(values)


def test_every_kind_declares_settings_that_exist() -> None:
    fields = {field.name for field in dataclasses.fields(schema.ScheduleConfig)}
    for registry in (OPTIMIZERS, LR_SCHEDULES):
        assert registry.setting in fields
        assert set(registry.optional_settings()) <= fields


def test_settings_without_effect_are_found() -> None:
    assert changed(distill()) == []
    assert changed(distill("schedule=cifar240", "teacher.schedule.curve=linear")) == []
    (left,) = changed(distill("schedule=cifar240", "schedule.curve=cosine"))
    assert str(left).startswith("schedule.milestones=[150, 180, 210] has no effect with")
    names = {one.name for one in changed(distill("schedule.betas=[0.5,0.9]", "schedule.gamma=0.5"))}
    assert names == {"schedule.betas", "schedule.gamma"}


def test_a_rising_learning_rate_is_bounded() -> None:
    words = ("schedule.curve=step", "schedule.gamma=1000", "schedule.milestones=[1,2,3,4]")
    schedule = distill(*words).schedule
    with pytest.raises(ConfigError, match="curve=step raises the learning rate"):
        learning_rates(schedule, training_length(schedule, 2))
