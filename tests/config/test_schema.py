"""The schema is the only source of keys and defaults; nodes convert both ways."""

from dataclasses import fields
from typing import Any

import pytest
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from kdrun.config import composition, options, schema
from kdrun.config.convert import from_plain, to_plain
from kdrun.config.settings import MISSING, defaults_of, help_of, settings_of
from kdrun.errors import ConfigError

composition.register()

# Where each node of defaults appears in a verb's configuration.
PLACES = {
    "runtime_keys": "",
    "dataset_keys": "dataset",
    "teacher_keys": "teacher",
    "ensemble_keys": "teacher",
    "student_keys": "student",
    "schedule_keys": "schedule",
    "distill_keys": "",
    "search_keys": "",
    "benchmark_keys": "",
    "train_teacher_keys": "",
    "evaluate_keys": "",
    "export_keys": "",
    "teacher_file_keys": "teacher",
}
# Values that a verb chooses for itself.
CHOSEN = {("export", "device"): "cpu"}


def composed(verb: str) -> dict[str, Any]:
    with initialize_config_module("kdrun.configs", version_base="1.3"):
        cfg = compose(verb, [])
    plain = OmegaConf.to_container(cfg, resolve=False)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


@pytest.mark.parametrize(
    ("verb", "nodes"),
    [
        (
            "distill",
            ("runtime", "dataset", "teacher", "ensemble", "student", "schedule", "distill"),
        ),
        ("train_teacher", ("runtime", "dataset", "teacher", "train_teacher")),
        ("benchmark", ("runtime", "distill", "benchmark")),
        ("search", ("runtime", "distill", "search")),
        ("evaluate", ("runtime", "teacher_file", "evaluate")),
        ("export", ("runtime", "teacher_file", "export")),
    ],
)
def test_no_key_has_two_defaults(verb: str, nodes: tuple[str, ...]) -> None:
    """What a command without settings does is what the schema says."""
    plain = composed(verb)
    for name in nodes:
        place = PLACES[f"{name}_keys"]
        node = plain[place] if place else plain
        for key, default in options.nodes()[f"{name}_keys"].values.items():
            assert node[key] == CHOSEN.get((verb, key), default), f"{verb}: {place}.{key}"


def test_every_schedule_key_of_teacher_and_student_is_in_the_schema() -> None:
    plain = composed("distill")
    assert plain["schedule"] == defaults_of(schema.ScheduleConfig)
    assert plain["teacher"]["schedule"] == defaults_of(schema.ScheduleConfig)


@pytest.mark.parametrize(
    "cls",
    [schema.ScheduleConfig, schema.RuntimeConfig, schema.TransferConfig, schema.SearchConfig],
    ids=lambda cls: cls.__name__,
)
def test_the_node_of_defaults_reads_as_the_default_dataclass(cls: Any) -> None:
    assert from_plain(cls, defaults_of(cls), "x") == cls()
    assert from_plain(cls, to_plain(cls()), "x") == cls()


@pytest.mark.parametrize("name", sorted(options.nodes()))
def test_every_key_has_help(name: str) -> None:
    node = options.nodes()[name]
    assert list(node.values) == list(node.help)
    nested = options.nested_help()
    for key, text in node.help.items():
        assert text or key in nested, f"{name}.{key}"
        assert len(text) <= 100, f"{name}.{key}"


def test_required_values_are_missing_in_defaults() -> None:
    assert defaults_of(schema.EvaluateConfig)["run"] == MISSING


def test_unknown_keys_and_wrong_types_are_named() -> None:
    missing = r"^x\.checkpoint has no value: add x\.checkpoint=\.\.\."
    with pytest.raises(ConfigError, match=missing):
        from_plain(schema.StartConfig, {}, "x")


def test_inline_parts_and_the_rest_share_one_node() -> None:
    node = {
        "name": "net",
        "_target_": "a.B",
        "width": 3,
        "schedule": {"lr": 0.5},
        "fold": True,
        "mean": 0.5,
        "std": 0.5,
        "checkpoint_key": "ema",
    }
    config = from_plain(schema.TeacherConfig, node, "teacher")
    assert config.network == schema.NetworkConfig("net", "a.B", {"width": 3})
    assert config.schedule == schema.ScheduleConfig(lr=0.5)
    assert (config.runtime.fold, config.input.mean, config.reading.key) == (True, 0.5, "ema")
    assert from_plain(schema.TeacherConfig, to_plain(config), "teacher") == config


def test_quiet_settings_are_written_only_when_set() -> None:
    plain = to_plain(schema.ScheduleConfig())
    assert "max_norm" not in plain
    assert to_plain(schema.ScheduleConfig(max_norm=3.0))["max_norm"] == 3.0
    assert list(plain) == [
        each.key for each in settings_of(schema.ScheduleConfig) if not each.meta.quiet
    ]


def test_help_covers_every_field_of_the_schedule() -> None:
    assert set(help_of(schema.ScheduleConfig)) == {
        field.name for field in fields(schema.ScheduleConfig)
    }


@pytest.mark.parametrize(
    ("typed", "device"),
    [
        (0, "cuda:0"),
        ("1", "cuda:1"),
        ("gpu", "cuda"),
        ("gpu:2", "cuda:2"),
        ("cuda:0", "cuda:0"),
        ("CPU", "cpu"),
        ("auto", "auto"),
        ("mps", "mps"),
    ],
)
def test_devices_may_be_typed_in_several_ways(typed: Any, device: str) -> None:
    assert from_plain(schema.RuntimeConfig, {"device": typed}).device == device
