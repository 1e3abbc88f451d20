"""What changes a fingerprint, and what does not."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from kdrun.config.schema import AugmentConfig, DatasetConfig, NetworkConfig, ScheduleConfig
from kdrun.data.dataset import open_dataset
from kdrun.teachers.fingerprint import fingerprint, network_recipe, shaping_settings

NETWORK = NetworkConfig("cnn", "kdrun.models.cnn.ConvNet", {"widths": [4]})
DATA = DatasetConfig("synthetic", "kdrun.data.sources.synthetic", {"train_size": 40})


def digest(
    tmp_path: Any,
    network: NetworkConfig = NETWORK,
    data: DatasetConfig = DATA,
    seed: int = 0,
    val_fraction: float = 0.1,
    augment: AugmentConfig | None = None,
    **schedule: Any,
) -> str:
    dataset = open_dataset(data, val_fraction, tmp_path)
    recipe = network_recipe(
        network, ScheduleConfig(**schedule), seed, augment or AugmentConfig(), dataset
    )
    return fingerprint(recipe)


@pytest.mark.parametrize(
    "change",
    [
        {"network": replace(NETWORK, kwargs={"widths": [8]})},
        {"network": replace(NETWORK, target="kdrun.models.mlp.MLP")},
        {"data": replace(DATA, kwargs={"train_size": 50})},
        {"data": replace(DATA, split_seed=1)},
        {"data": replace(DATA, mean=[0.5] * 3, std=[0.5] * 3)},
        {"val_fraction": 0.5},
        {"seed": 1},
        {"augment": AugmentConfig(flip=True)},
        {"lr": 0.01},
        {"epochs": 31},
        {"label_smoothing": 0.1},
        {"optimizer": "adam"},
        {"precision": "bf16"},
        {"early_stopping": 3},
        {"max_norm": 3.5},
        {"ce_kind": "bce"},
    ],
)
def test_what_shapes_the_weights_changes_it(tmp_path: Any, change: dict[str, Any]) -> None:
    assert digest(tmp_path, **change) != digest(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"network": replace(NETWORK, name="other", taps={"x": "fc"})},
        {"data": replace(DATA, name="other", resident="false", workers=2)},
        {"eval_batch_size": 7},
        {"eval_every": 5},
        {"milestones": [3]},
        {"gamma": 0.2},
        {"betas": [0.8, 0.9]},
        {"early_stopping_metric": "loss"},
        {"ce_sum": True, "ce_threshold": 0.2},
    ],
)
def test_what_nothing_reads_does_not(tmp_path: Any, change: dict[str, Any]) -> None:
    assert digest(tmp_path, **change) == digest(tmp_path)


def test_it_is_the_same_in_every_process(tmp_path: Any) -> None:
    torch.manual_seed(5)
    first = digest(tmp_path)
    torch.rand(3)
    assert digest(tmp_path) == first
    assert len(first) == 64


def test_a_step_curve_reads_its_milestones() -> None:
    schedule = ScheduleConfig(curve="step", milestones=[3])
    assert shaping_settings(schedule)["milestones"] == [3]
    assert "final_lr" not in shaping_settings(schedule)


def test_a_bound_that_is_not_set_leaves_older_teachers_found() -> None:
    assert "max_norm" not in shaping_settings(ScheduleConfig())
    assert shaping_settings(ScheduleConfig(max_norm=3.5))["max_norm"] == 3.5


def test_early_stopping_reads_what_it_watches_and_how_often() -> None:
    schedule = ScheduleConfig(early_stopping=3)
    assert {"early_stopping_metric", "eval_every"} <= set(shaping_settings(schedule))
