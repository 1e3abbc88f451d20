"""The two-momentum optimiser: against buffers kept by hand, plain SGD at its edges, and resumed."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kdrun.config.rules import schedule
from kdrun.config.schema import ScheduleConfig
from kdrun.engine.optim import backward, build_optimizer
from kdrun.errors import ConfigError
from kdrun.recipes.dot import Dot
from kdrun.types import StepOutput

SCHEDULE = ScheduleConfig(optimizer="dot", lr=0.1, momentum=0.9, weight_decay=0.01, dot_delta=0.075)
NO_SCALER = torch.amp.GradScaler("cpu", enabled=False)


class Three(nn.Module):
    """A weight both parts reach, one only the labels reach, one only the teacher reaches."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.both = nn.Parameter(torch.randn(4, dtype=torch.float64))
        self.task = nn.Parameter(torch.randn(3, dtype=torch.float64))
        self.distill = nn.Parameter(torch.randn(2, dtype=torch.float64))

    def losses(self, step: int) -> tuple[Tensor, Tensor]:
        goal = torch.sin(torch.arange(4.0, dtype=torch.float64) + step)
        task = (self.both - goal).square().sum() + self.task.exp().sum()
        distill = (self.both * goal).sin().sum() + self.distill.square().sum()
        return task, distill

    def output(self, step: int) -> StepOutput:
        task, distill = self.losses(step)
        return StepOutput(task + distill, torch.empty(0), {}, {"task": task, "distill": distill})


def train(net: Three, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        optimizer.zero_grad()
        backward(optimizer, net.output(step), NO_SCALER)
        optimizer.step()


def by_hand(net: Three, steps: range) -> None:
    """Two buffers per weight, written out from the paper."""
    momenta = {"both": (0.825, 0.975), "task": (0.9, 0.9), "distill": (0.9, 0.9)}
    kept = {name: (torch.zeros_like(p), torch.zeros_like(p)) for name, p in net.named_parameters()}
    for step in steps:
        task, distill = net.losses(step)
        names, params = zip(*net.named_parameters(), strict=True)
        options: dict[str, Any] = {"allow_unused": True, "materialize_grads": True}
        first = torch.autograd.grad(task, params, retain_graph=True, **options)
        second = torch.autograd.grad(distill, params, **options)
        for name, p, g, h in zip(names, params, first, second, strict=True):
            decay = 0.01 * p.detach()
            g, h = (g, h + decay) if name == "distill" else (g + decay, h)
            low, high = momenta[name]
            one, two = kept[name][0] * low + g, kept[name][1] * high + h
            kept[name] = one, two
            p.data -= 0.1 * (one + two)


def same(one: nn.Module, two: nn.Module) -> None:
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_it_equals_two_buffers_kept_by_hand() -> None:
    found, expected = Three(), Three()
    optimizer = build_optimizer(found.parameters(), SCHEDULE)
    assert isinstance(optimizer, Dot)
    train(found, optimizer, range(12))
    by_hand(expected, range(12))
    same(found, expected)


def test_without_delta_it_is_sgd() -> None:
    found, expected = Three(), Three()
    train(found, build_optimizer(found.parameters(), replace(SCHEDULE, dot_delta=0.0)), range(9))
    plain = replace(SCHEDULE, optimizer="sgd")
    train(expected, build_optimizer(expected.parameters(), plain), range(9))
    same(found, expected)


def test_a_loss_in_one_part_is_trained_by_sgd() -> None:
    """A student alone, or a pre-training phase: there is nothing to keep apart."""
    found, expected = Three(), Three()
    for net, name in ((found, "dot"), (expected, "sgd")):
        optimizer = build_optimizer(net.parameters(), replace(SCHEDULE, optimizer=name))
        for step in range(9):
            task, _ = net.losses(step)
            optimizer.zero_grad()
            backward(optimizer, StepOutput(task, torch.empty(0), {}, {"task": task}), NO_SCALER)
            optimizer.step()
    same(found, expected)


def test_it_differs_from_sgd_where_both_parts_meet() -> None:
    found, plain = Three(), Three()
    train(found, build_optimizer(found.parameters(), SCHEDULE), range(5))
    sgd = build_optimizer(plain.parameters(), replace(SCHEDULE, optimizer="sgd"))
    train(plain, sgd, range(5))
    assert not torch.allclose(found.both, plain.both)
    torch.testing.assert_close(found.task, plain.task)
    torch.testing.assert_close(found.distill, plain.distill)


def test_a_saved_state_continues_bit_for_bit(tmp_path: Path) -> None:
    whole, part, rest = Three(), Three(), Three()
    train(whole, build_optimizer(whole.parameters(), SCHEDULE), range(10))
    optimizer = build_optimizer(part.parameters(), SCHEDULE)
    train(part, optimizer, range(6))
    torch.save({"net": part.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "s.pt")
    saved = torch.load(tmp_path / "s.pt", weights_only=True)
    rest.load_state_dict(saved["net"])
    again = build_optimizer(rest.parameters(), SCHEDULE)
    again.load_state_dict(saved["optimizer"])
    train(rest, again, range(6, 10))
    for a, b in zip(whole.parameters(), rest.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_weight_without_gradient_stays() -> None:
    net = Three()
    before = net.distill.detach().clone()
    optimizer = build_optimizer(net.parameters(), SCHEDULE)
    task, _ = net.losses(0)
    backward(optimizer, StepOutput(task, torch.empty(0), {}, {"task": task}), NO_SCALER)
    optimizer.step()
    assert torch.equal(net.distill, before)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dot_delta": 0.1}, r"momenta 0\.8 and 1"),
        ({"dot_delta": -0.1}, r"dot_delta=-0\.1"),
        ({"momentum": 0.05}, r"momenta -0\.025"),
        ({"nesterov": True}, "nesterov=false"),
        ({"grad_clip": 1.0}, "grad_clip=0"),
        ({"precision": "fp16"}, "bf16 or fp32"),
    ],
)
def test_what_does_not_go_together_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        schedule("schedule", replace(SCHEDULE, **change))


def test_its_settings_are_accepted() -> None:
    schedule("schedule", SCHEDULE)
    schedule("schedule", replace(SCHEDULE, precision="bf16"))
