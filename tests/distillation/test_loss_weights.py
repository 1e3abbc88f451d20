"""Measured loss weights: gradient norms, the resulting weights, and that nothing else changes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from support import SMALL, results
from torch import Tensor, nn
from torch.nn import functional as F

import kdrun
from kdrun.cli.main import run
from kdrun.distillation.loss_weights import dominant_losses, gradient_norms
from kdrun.engine.checkpoint import read_checkpoint
from kdrun.engine.random_state import random_state
from kdrun.errors import ConfigError
from kdrun.losses.auto_weight import AutoWeight, even_ratios
from kdrun.losses.choice import chosen_losses
from kdrun.losses.objective import Objective, build_objective

CPU = torch.device("cpu")
TAPS = {"stage1": "body", "embedding": "fc"}


class Net(nn.Module):
    """A convolution with batch normalisation and dropout, and a classifier."""

    def __init__(self, width: int, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.body = nn.Sequential(nn.Conv2d(1, width, 3), nn.BatchNorm2d(width), nn.ReLU())
        self.drop = nn.Dropout(0.0)
        self.fc = nn.Linear(width, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.drop(self.body(images).mean((2, 3))))  # type: ignore[no-any-return]


def batches(count: int = 3) -> list[tuple[Tensor, Tensor, Tensor]]:
    draw = torch.Generator().manual_seed(5)
    return [
        (torch.randn(6, 1, 5, 5, generator=draw).double(), torch.arange(6) % 3, torch.arange(6))
        for _ in range(count)
    ]


def distiller(loss: Any, **settings: Any) -> kdrun.Distiller:
    student, teacher = Net(4, 0).double(), Net(6, 1).double()
    taps = {"student_taps": TAPS, "teacher_taps": TAPS}
    example = batches(1)[0][0].float()
    made = kdrun.Distiller(
        student.float(), teacher.float(), loss, example=example, **taps, **settings
    )
    return made.double()


def objective(loss: Any, **settings: Any) -> Objective:
    values: dict[str, Any] = {"T": None, "alpha": None, "ce": None}
    return build_objective(chosen_losses(loss)[0], **(values | settings))


def test_the_norm_is_that_of_the_gradient_in_the_shared_parameters_of_the_student() -> None:
    # sp reads stage1: the classifier is not shared, and fitnet's adapter is no part of the student
    made = distiller([{"sp": {"taps": ["stage1"]}}, {"fitnet": {"taps": ["stage1"]}}], ce=2.0)
    images, targets, indices = batches(1)[0]
    step = [made._batch(images, targets, indices)]
    measured = gradient_norms(made.scheme, step, CPU)
    made.train()
    for name in ("sp", "fitnet"):
        shared = list(made.student.body.parameters())  # type: ignore[union-attr]
        out = made.scheme(step[0])
        made.zero_grad()
        (2.0 * F.cross_entropy(made.student(images), targets)).backward()
        ce = sum(float(p.grad.square().sum()) for p in shared) ** 0.5
        made.zero_grad()
        out.losses[name].backward()
        norm = sum(float(p.grad.square().sum()) for p in shared) ** 0.5
        assert measured[name] == pytest.approx((ce, norm), rel=1e-6)


def test_measuring_changes_neither_buffers_nor_random_numbers_nor_modes() -> None:
    made = distiller(["kd", {"crd": {"negatives": 2}}], labels=torch.arange(6) % 3)
    made.eval()
    state = {name: tensor.clone() for name, tensor in made.state_dict().items()}
    before = random_state(CPU)["cpu"]
    first = gradient_norms(made.scheme, [made._batch(*b) for b in batches()], CPU)
    again = gradient_norms(made.scheme, [made._batch(*b) for b in batches()], CPU)
    assert first == again
    assert torch.equal(before, random_state(CPU)["cpu"])
    assert all(torch.equal(tensor, state[name]) for name, tensor in made.state_dict().items())
    assert not made.training
    assert all(p.grad is None for p in made.parameters())


def test_frozen_statistics_stay_frozen() -> None:
    """The first epoch of `freeze_bn_stats` follows a measurement, which trains every module."""
    made = distiller(["kd", {"sp": {"taps": ["stage1"]}}])
    norm = made.student.body[1].eval()  # type: ignore[union-attr, index, operator]
    norm.running_var.fill_(9.0)
    steps = [made._batch(*batches()[0])]
    measured, frozen = (
        gradient_norms(made.scheme, steps, CPU, freeze_bn_stats=value) for value in (False, True)
    )
    assert measured["sp"] != frozen["sp"]
    assert not norm.training
    assert made.student.training
    assert torch.equal(norm.running_var, torch.full((4,), 9.0).double())


@pytest.mark.parametrize(("ratio", "ce"), [(1.0, 1.0), (3.0, 0.5)])
def test_the_weighted_gradient_has_the_asked_ratio(ratio: float, ce: float) -> None:
    made = distiller({"sp": {"taps": ["stage1"], "weight": "auto", "auto_ratio": ratio}}, ce=ce)
    with pytest.raises(ConfigError, match=r"call distiller\.measure_weights"):
        made(*batches(1)[0])
    weight = made.measure_weights(batches())["sp"]
    assert made.describe() == f"{ce:g}*CE + {weight:g}*SP(stage1)"
    norms = gradient_norms(made.scheme, [made._batch(*b) for b in batches()], CPU)
    assert norms["sp"][1] / norms["sp"][0] == pytest.approx(ratio, rel=1e-3)
    copy = distiller({"sp": {"taps": ["stage1"], "weight": "auto", "auto_ratio": ratio}}, ce=ce)
    copy.load_state_dict(made.state_dict())
    assert copy.describe() == made.describe()
    assert torch.equal(copy(*batches(1)[0]).loss, made(*batches(1)[0]).loss)


def test_a_soft_loss_and_ce_share_the_weight_1() -> None:
    made = distiller({"kd": {"weight": "auto", "auto_ratio": 2.0}})
    assert made.describe() == "(1 - auto)*CE + auto*16*KL(T=4)"
    assert made.scheme.objective.alpha is None
    weights = made.measure_weights(batches())
    assert weights["ce"] == pytest.approx(1.0 - weights["kd"])
    norms = gradient_norms(made.scheme, [made._batch(*b) for b in batches()], CPU)
    assert norms["kd"][1] / norms["kd"][0] == pytest.approx(2.0, rel=1e-3)
    assert made.scheme.objective.alpha == weights["kd"]


def test_other_losses_are_compared_with_the_weight_of_ce_that_remains() -> None:
    at = {"taps": ["stage1"], "weight": "auto", "auto_ratio": 0.5}
    made = distiller([{"sp": at}, {"kd": {"weight": "auto", "auto_ratio": 4.0}}])
    made.measure_weights(batches())
    norms = gradient_norms(made.scheme, [made._batch(*b) for b in batches()], CPU)
    assert norms["kd"][1] / norms["kd"][0] == pytest.approx(4.0, rel=1e-3)
    assert norms["sp"][1] / norms["sp"][0] == pytest.approx(0.5, rel=1e-3)


def test_only_the_first_batches_count() -> None:
    settings = {"sp": {"taps": ["stage1"], "weight": "auto", "auto_batches": 2}}
    assert distiller(settings).measure_weights(batches(3)) == distiller(settings).measure_weights(
        batches(2)
    )


def test_the_weight_changes_over_the_epochs_as_a_number_does() -> None:
    settings = {"taps": ["stage1"], "warmup_epochs": 4}
    made = distiller({"sp": {**settings, "weight": "auto"}})
    made.start_epoch(0, 8)  # a quarter of the weight: measured at the full one
    weight = made.measure_weights(batches())["sp"]
    made.start_epoch(0, 8)
    assert made.scheme.objective.weights["sp"] == pytest.approx(weight / 4)


@pytest.mark.parametrize(
    ("loss", "settings", "message"),
    [
        ({"sp": {"weight": "auto"}}, {"ce": 0.0}, "which has weight 0 here"),
        ({"simkd": {"weight": "auto"}}, {}, "which has weight 0 here"),
        ({"ab": {"weight": "auto"}}, {}, "acts before the main phase"),
        ({"fitnet": {"weight": "auto", "variant": "paper"}}, {}, "acts before the main phase"),
        ({"kd": {"weight": "auto"}}, {"alpha": 0.5}, "leave out one of the two"),
        ({"sp": {"auto_ratio": 2.0}}, {}, r"Set loss\.sp\.weight=auto"),
        ({"sp": {"auto_batches": 2}}, {}, r"Set loss\.sp\.weight=auto"),
        ({"sp": {"weight": "aut"}}, {}, "Did you mean 'auto'"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    loss: Any, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        objective(loss, **settings)


def test_the_default_ratio_is_that_of_the_published_weight_or_1() -> None:
    losses = chosen_losses([{"sp": {"weight": "auto"}}, {"itrd": {"weight": "auto"}}, "pkt"])[0]
    ratios = {name: auto.ratio for name, auto in build_objective(losses, *[None] * 3).auto.items()}
    assert ratios == {"sp": 22.0, "itrd": 1.0}
    without_teacher = build_objective(even_ratios(losses), *[None] * 3).auto
    assert [auto.ratio for auto in without_teacher.values()] == [1.0, 1.0]


@pytest.mark.parametrize(("ce", "norm"), [(1.0, 0.0), (0.0, 1.0), (1.0, float("nan")), (1, 1e-9)])
def test_a_loss_without_a_usable_gradient_is_refused(ce: float, norm: float) -> None:
    with pytest.raises(ConfigError, match=r"Set loss\.sp\.weight to a number"):
        AutoWeight(1.0, 8).solve("sp", ce, norm, 1.0)


def test_ce_keeps_a_weight_beside_any_ratio() -> None:
    assert AutoWeight(1e6, 8, shares=True).solve("kd", 1.0, 1.0, 1.0) == 0.9999


def test_a_loss_dominates_above_a_hundred_times_ce() -> None:
    norms = {"at": (0.1, 10.1), "sp": (0.1, 9.9), "kd": (0.0, 1.0)}
    assert [name for name, _ in dominant_losses(norms)] == ["at"]


def test_a_run_with_a_measured_weight_is_the_run_with_that_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    small = [*SMALL, "alone=false", "epochs=2", "loss=at"]
    assert run(["distill", *small, "loss.at.weight=auto", "loss.at.auto_batches=2"]) == 0
    (auto,) = results(tmp_path)
    entry = auto["auto_weights"]["at"]
    assert auto["objective"] == f"1*CE + {entry['weight']:g}*AT(stage1+stage2)"
    saved = read_checkpoint(auto["folder"] / "checkpoints" / "last.pt")["scheme"]
    assert saved["objective.auto_weights"][0, 0] == pytest.approx(entry["weight"])
    assert run(["distill", *small, f"loss.at.weight={entry['weight']}"]) == 0
    typed = next(r for r in results(tmp_path) if r["folder"] != auto["folder"])
    student = "student.safetensors"
    assert (auto["folder"] / student).read_bytes() == (typed["folder"] / student).read_bytes()
    assert typed["objective"] == auto["objective"]
    assert "auto_weights" not in typed
