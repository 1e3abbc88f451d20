"""Every experiment runs for an epoch, on made-up images of the shape of its data."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support import results

from kdrun.cli import config_groups
from kdrun.cli.command_spec import CommandSpec
from kdrun.cli.composer import Composer
from kdrun.cli.grammar import parse
from kdrun.commands import distill
from kdrun.config import composition
from kdrun.config.composition import hydra_ready
from kdrun.config.schema import DatasetConfig, DistillConfig, NetworkConfig, ScheduleConfig

EXPERIMENTS = config_groups.list_groups()["experiment"]
# One of each kind whose networks are small; the others take their time.
LIGHT = (
    "hinton2015/mnist_only_7_8",
    "smoke",
)
# (channels, height and width, classes)
SHAPES = {
    "mnist": (1, [28, 28], 10),
    "speech_digits": (1, [26, 40], 10),
    "cifar10": (3, [32, 32], 10),
    "cifar100": (3, [32, 32], 100),
    "c20": (3, [32, 32], 20),
    "dtd": (3, [64, 64], 47),
    "synthetic": (3, [16, 16], 10),
}


@pytest.fixture(scope="module")
def composer() -> Iterator[Composer]:
    composition.register()
    with hydra_ready():
        yield Composer(CommandSpec.of("distill"))


def made_up(data: DatasetConfig) -> DatasetConfig:
    """Images of the same shape and classes, with the same augmentation."""
    channels, size, classes = SHAPES[data.name]
    shape = {"num_classes": classes, "channels": channels, "image_size": size}
    source = {"train_size": max(60, 2 * classes), "test_size": 20, "noise": 0.1}
    return replace(
        data, target="kdrun.data.sources.synthetic", kwargs=shape | source, mean=None, std=None
    )


def one_epoch(schedule: ScheduleConfig) -> ScheduleConfig:
    return replace(schedule, epochs=1, warmup_epochs=0.0, batch_size=30, eval_batch_size=30)


def untrained(network: NetworkConfig) -> NetworkConfig:
    known = {name: False for name in network.kwargs if name == "pretrained"}
    return replace(network, kwargs=network.kwargs | known)


def shortened(config: DistillConfig) -> DistillConfig:
    """The experiment with at most two teachers of a kind, an epoch for each network."""
    teachers = tuple(
        replace(one, network=untrained(one.network), schedule=one_epoch(one.schedule))
        for one in config.teachers[:2]
    )
    runtime = replace(config.runtime, ui="quiet", threads=1, device="cpu")
    return replace(
        config,
        dataset=made_up(config.dataset),
        teachers=teachers,
        student=untrained(config.student),
        schedule=one_epoch(config.schedule),
        runtime=runtime,
        alone=False,
    )


@pytest.mark.parametrize(
    "name",
    [n if n in LIGHT else pytest.param(n, marks=pytest.mark.heavy) for n in EXPERIMENTS],
)
def test_it_runs_for_an_epoch(composer: Composer, workdir: Path, name: str) -> None:
    config: Any = composer.typed(parse([f"experiment={name}"]))
    distill.execute(shortened(config), ["distill"], sweep_dir=None, job=0)
    found = [one for one in results(workdir) if not one.get("round")]
    (result,) = found
    assert result["status"] == "completed"
    assert 0 <= result["student"]["test"]["top1"] <= 100
    assert len(result["teachers"]) == min(2, len(config.teachers)) or "cycles" in name
    assert result["loss"] == list(config.loss)
