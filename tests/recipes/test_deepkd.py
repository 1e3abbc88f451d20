"""DeepKD: three momentum buffers, and the target class's part of soft targets."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from losses.logit_cases import batch_of, divergence, random_logits, softmax
from torch import Tensor, nn

from kdrun.config.rules import schedule
from kdrun.config.schema import ScheduleConfig
from kdrun.engine.optim import backward, build_optimizer, finish_gradients
from kdrun.errors import ConfigError
from kdrun.losses import DKD, KD
from kdrun.losses.choice import chosen_losses
from kdrun.losses.objective import build_objective
from kdrun.recipes.dot import DeepKd
from kdrun.types import Outputs, StepOutput

SCHEDULE = ScheduleConfig(optimizer="deepkd", lr=0.1, momentum=0.9, weight_decay=0.01)
NO_SCALER = torch.amp.GradScaler("cpu", enabled=False)
MOMENTA = (0.975, 0.825, 0.975)  # labels, target class, other classes


class Parameters(nn.Module):
    """A weight that all parts reach, one that only labels and the rest reach, an adapter."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.all = nn.Parameter(torch.randn(4, dtype=torch.float64))
        self.two = nn.Parameter(torch.randn(3, dtype=torch.float64))
        self.adapter = nn.Parameter(torch.randn(2, dtype=torch.float64))

    def parts(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        goal = torch.sin(torch.arange(4.0, dtype=torch.float64) + step)
        task = (self.all - goal).square().sum() + self.two.exp().sum()
        target = (self.all * goal).cos().sum()
        rest = (self.all * goal).sin().sum() + self.two.sin().sum() + self.adapter.square().sum()
        return task, target, rest

    def output(self, step: int) -> StepOutput:
        task, target, rest = self.parts(step)
        groups = {"task": task, "distill": target + rest, "target": target}
        return StepOutput(task + target + rest, torch.empty(0), {}, groups)


def test_it_equals_three_buffers_kept_by_hand() -> None:
    net, expected = Parameters(), Parameters()
    optimizer = build_optimizer(net.parameters(), SCHEDULE)
    assert isinstance(optimizer, DeepKd)
    for step in range(12):
        backward(optimizer, net.output(step), NO_SCALER)
        finish_gradients(optimizer)
        optimizer.step()
        optimizer.zero_grad()
    names, params = zip(*expected.named_parameters(), strict=True)
    buffers = {
        name: [torch.zeros_like(p) for _ in range(3)] for name, p in expected.named_parameters()
    }
    for step in range(12):
        gradients = [
            torch.autograd.grad(
                part, params, retain_graph=True, allow_unused=True, materialize_grads=True
            )
            for part in expected.parts(step)
        ]
        for number, (name, p) in enumerate(zip(names, params, strict=True)):
            decay = 0.01 * p.detach()
            first = 2 if name == "adapter" else 0  # the first part that reaches it
            momenta = (0.9,) * 3 if name == "adapter" else MOMENTA
            for part in range(3):
                gradient = gradients[part][number] + (decay if part == first else 0)
                buffers[name][part] = momenta[part] * buffers[name][part] + gradient
            p.data -= 0.1 * sum(buffers[name])
    for a, b in zip(net.parameters(), params, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


def test_without_deltas_it_is_sgd() -> None:
    nets = Parameters(), Parameters()
    plain = replace(SCHEDULE, deepkd_deltas=[0.0, 0.0, 0.0])
    for net, config in zip(nets, (plain, replace(SCHEDULE, optimizer="sgd")), strict=True):
        optimizer = build_optimizer(net.parameters(), config)
        for step in range(6):
            backward(optimizer, net.output(step), NO_SCALER)
            finish_gradients(optimizer)
            optimizer.step()
            optimizer.zero_grad()
    for a, b in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def in_loops(student: Tensor, teacher: Tensor, targets: Tensor, t: float) -> tuple[Tensor, Tensor]:
    """(target class's part, rest) of T² · KL."""
    target, rest = torch.zeros(()).double(), torch.zeros(()).double()
    for s, z, y in zip(student, teacher, targets.tolist(), strict=True):
        q, p = softmax(s, t), softmax(z, t)
        target = target + divergence([p[y], 1 - p[y]], [q[y], 1 - q[y]])
        others = [c for c in range(len(p)) if c != y]
        nckd = divergence([p[c] / (1 - p[y]) for c in others], [q[c] / (1 - q[y]) for c in others])
        rest = rest + (1 - p[y]) * nckd
    return t**2 * target / len(student), t**2 * rest / len(student)


def test_soft_targets_fall_into_the_target_class_and_the_rest() -> None:
    student, teacher, targets = random_logits((5, 6))
    outputs, batch = (Outputs(student), Outputs(teacher)), batch_of(targets)
    target, rest = in_loops(student, teacher, targets, 2.0)
    loss = KD(temperature=2.0)
    torch.testing.assert_close(loss.target_part(*outputs, batch), target)
    torch.testing.assert_close(loss(*outputs, batch) - loss.target_part(*outputs, batch), rest)
    decoupled = DKD(temperature=2.0, alpha=3.0, beta=0.0)
    torch.testing.assert_close(decoupled.target_part(*outputs, batch), 3.0 * target)
    torch.testing.assert_close(decoupled(*outputs, batch), 3.0 * target)


def test_an_objective_weighs_the_part() -> None:
    configs, _ = chosen_losses(["dkd", "dist", {"kd": {"weight": 0.5}}])
    objective = build_objective(configs, None, None, 1.0)
    objective.require_target_part()
    objective.start_epoch(0, 40)  # dkd's weight rises over 20 epochs
    student, teacher, targets = random_logits((5, 6))
    found = objective.target_loss(Outputs(student), [Outputs(teacher)], batch_of(targets))
    part = in_loops(student, teacher, targets, 4.0)[0]
    torch.testing.assert_close(found, part / 20 + 0.5 * part)


def test_other_losses_have_no_target_class() -> None:
    objective = build_objective(chosen_losses(["at", "dist"])[0], None, None, None)
    with pytest.raises(ConfigError, match="loss=kd or loss=dkd"):
        objective.require_target_part()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"deepkd_deltas": [0.1, 0.0, 0.0]}, r"momenta 1 and 0\.9 and 0\.9"),
        ({"deepkd_deltas": [0.1, 0.0]}, "3 items"),
        ({"nesterov": True}, "optimizer=deepkd keeps gradients apart"),
        ({"precision": "fp16"}, "bf16 or fp32"),
    ],
)
def test_what_does_not_go_together_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        schedule("schedule", replace(SCHEDULE, **change))
