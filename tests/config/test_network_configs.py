"""Every shipped network configuration composes, agrees with its twins and builds."""

import functools
from pathlib import Path

import kdrun.configs
import pytest
import torch
from hydra import compose, initialize_config_module

from kdrun.cli import config_groups
from kdrun.config import composition
from kdrun.config.parse import distill_config
from kdrun.config.schema import DistillConfig
from kdrun.models.build import build_network
from kdrun.models.measure import count_parameters
from kdrun.types import InputInfo
from kdrun.vision import import_torchvision

ROOT = Path(next(iter(kdrun.configs.__path__)))
NETWORKS = sorted(
    path.relative_to(ROOT / "model").with_suffix("").as_posix()
    for path in (ROOT / "model").rglob("*.yaml")
)
# `pruned` is cut from its teacher, and is tested in test_pruned.py.
WHOLE = [name for name in NETWORKS if name != "pruned"]
# What these leave to the user, so that they can be built here.
NEEDED = {"custom": {"_target_": "kdrun.models.cnn.ConvNet", "+widths": "[4,8]"}}


def composed(*overrides: str) -> DistillConfig:
    composition.register()
    with initialize_config_module("kdrun.configs", version_base="1.3"):
        return distill_config(compose("distill", list(overrides)))


def overrides(group: str, name: str) -> list[str]:
    needed = NEEDED.get(name, {})
    return [
        f"{group}={name}",
        *(f"{'+' * key.startswith('+')}{group}.{key.lstrip('+')}={v}" for key, v in needed.items()),
    ]


@functools.cache
def with_network(name: str) -> DistillConfig:
    """The configuration with a network as both student and teacher."""
    return composed(*overrides("student", name), *overrides("teacher", name))


def test_there_are_all_the_networks() -> None:
    assert len(NETWORKS) >= 31
    options = config_groups.list_groups()
    for group in ("student", "teacher"):
        assert options[group] == sorted(NETWORKS)
        assert not (ROOT / group).exists()  # model/ serves both


@pytest.mark.heavy
@pytest.mark.parametrize("name", WHOLE)
def test_students_and_teachers_are_the_same_network(name: str) -> None:
    config = with_network(name)
    assert len(config.teachers) == 1
    assert config.teachers[0].network == config.student
    assert config.student.name == name or name in ("torchvision", "timm")


@pytest.mark.parametrize("name", WHOLE)
def test_it_builds_and_says_its_size(name: str) -> None:
    if name == "timm":
        import_torchvision()  # timm imports it, and it may need help
        pytest.importorskip("timm", reason="timm is an optional extra")
    config = with_network(name).student
    mnist = name.startswith("mlp")
    info = InputInfo(10, 1, (28, 28)) if mnist else InputInfo(100, 3, (32, 32))
    with torch.device("meta"):
        network = build_network(config, info)
    first_line = (ROOT / "model" / f"{name}.yaml").read_text().partition("\n")[0]
    assert first_line.startswith("# ")
    if " parameters for " in first_line:
        assert f" {count_parameters(network):,} parameters" in first_line


def test_arguments_and_the_name_of_an_external_network() -> None:
    config = composed("student=torchvision", "student.architecture=mobilenet_v2").student
    assert config.name == "mobilenet_v2"
    assert config.kwargs == {"architecture": "mobilenet_v2", "pretrained": False}
