"""Registering one function is all it takes to add an LR schedule or an optimiser."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from kdrun.cli.main import run
from kdrun.config.schema import AugmentConfig, DatasetConfig, NetworkConfig, ScheduleConfig
from kdrun.data.dataset import open_dataset
from kdrun.engine.optim import build_optimizer
from kdrun.recipes.lr_schedules import (
    LR_SCHEDULES,
    Progress,
    learning_rates,
    training_length,
)
from kdrun.recipes.optimizers import OPTIMIZERS, Parameters
from kdrun.teachers.fingerprint import fingerprint, network_recipe


@pytest.fixture
def _registered() -> Iterator[None]:
    """A schedule and an optimiser that kdrun does not have."""

    @LR_SCHEDULES.register("polynomial", reads=("gamma",))
    def polynomial(progress: Progress, schedule: ScheduleConfig) -> float:
        return (1 - progress.share) ** schedule.gamma

    @OPTIMIZERS.register("adagrad", reads=("momentum",))
    def adagrad(parameters: Parameters, schedule: ScheduleConfig) -> torch.optim.Optimizer:
        return torch.optim.Adagrad(parameters, lr=schedule.lr, lr_decay=schedule.momentum)

    yield
    del LR_SCHEDULES._entries["polynomial"]
    del OPTIMIZERS._entries["adagrad"]


@pytest.mark.usefixtures("_registered")
def test_a_new_schedule_and_optimiser_are_used() -> None:
    schedule = ScheduleConfig(epochs=4, lr=0.5, curve="polynomial", gamma=2.0, optimizer="adagrad")
    assert learning_rates(schedule, training_length(schedule, 1)) == [
        pytest.approx(0.5 * (1 - k / 4) ** 2) for k in range(4)
    ]
    optimizer = build_optimizer([torch.nn.Parameter(torch.ones(2))], schedule)
    assert isinstance(optimizer, torch.optim.Adagrad)
    assert optimizer.defaults["lr_decay"] == 0.9


@pytest.mark.usefixtures("_registered")
def test_two_settings_it_reads_never_share_a_teacher(tmp_path: Path) -> None:
    network = NetworkConfig("cnn", "kdrun.models.cnn.ConvNet", {"widths": [4]})
    data = DatasetConfig("synthetic", "kdrun.data.sources.synthetic", {"train_size": 40})
    dataset = open_dataset(data, 0.1, tmp_path)

    def digest(**changes: object) -> str:
        schedule = replace(ScheduleConfig(curve="polynomial", optimizer="adagrad"), **changes)
        return fingerprint(network_recipe(network, schedule, 0, AugmentConfig(), dataset))

    assert digest(gamma=2.0) != digest(gamma=3.0)
    assert digest(momentum=0.5) != digest(momentum=0.6)
    assert digest(curve="cosine") != digest()
    # what it does not declare has no effect, so the teacher is the same
    assert digest(final_lr=0.5) == digest()
    assert digest(nesterov=True) == digest()


@pytest.mark.usefixtures("_registered")
def test_the_command_line_knows_it(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = ["distill", f"output_root={tmp_path}", "schedule.curve=polynomial"]
    assert run([*words, "schedule.final_lr=0.5"]) == 2
    said = capsys.readouterr().err
    assert "schedule.final_lr=0.5 has no effect with schedule.curve=polynomial" in said
    assert "curve=linear or cosine or onecycle reads it" in said
    assert run(["distill", "schedule.curve=polynomal"]) == 2
    assert "Did you mean 'polynomial'?" in capsys.readouterr().err
