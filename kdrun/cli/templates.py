"""What `kdrun new` writes: complete files that train and pass their tests as they stand.

Placeholders: $name, the option; $cls, the class; $title, the name in words.
"""

LOSS = '''\
"""$title: a loss of your own.

Change the formula here, and by_hand in the test.
"""

from kdrun.losses.base import DistillationLoss
from kdrun.types import Batch, Outputs
from torch import Tensor


class $cls(DistillationLoss):
    """Squared distance of the class probabilities, summed over classes, averaged over the batch.

    logits [B, C] of student and teacher -> a scalar. With z / T softened by the temperature:
    mean over the batch of sum_c (softmax(z_s / T)_c - softmax(z_t / T)_c)^2.
    """

    id = "$name"
    full_name = "$title"
    formula = "mean_b sum_c (softmax(z_s / T)_c - softmax(z_t / T)_c)^2"

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """The unweighted value; kdrun multiplies it by the weight of the YAML.

        Also there: batch.targets [B] with reads_labels = True; student.features and
        teacher.features, by tap name, for a loss that passes `taps` to super().__init__; embeddings
        with reads_embedding = True.
        """
        p_student = (student.logits.float() / self.temperature).softmax(dim=1)
        p_teacher = (teacher.logits.float() / self.temperature).softmax(dim=1)
        return (p_student - p_teacher).square().sum(dim=1).mean()

    def symbol(self) -> str:
        """How the objective prints it, after the weight."""
        return f"$cls(T={self.temperature:g})"
'''

LOSS_YAML = """\
# $title: squared distance of the class probabilities (a loss of your own).
$name:
  _target_: loss_$name.$cls
  weight: 1.0
  temperature: 1.0           # T=... on the command line replaces it
"""

LOSS_TEST = '''\
"""$cls: its formula in plain loops, its gradients, its training."""

import math
from pathlib import Path

import torch
from kdrun.cli.main import run
from kdrun.types import Batch, Outputs

from loss_$name import $cls

HERE = Path(__file__).resolve().parent


def some(seed: int, classes: int = 5) -> torch.Tensor:
    """Logits [4, classes]."""
    return 3 * torch.randn(4, classes, generator=torch.Generator().manual_seed(seed))


def value(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    batch = Batch(torch.zeros(4, 1, 2, 2), torch.zeros(4, dtype=torch.int64), torch.arange(4))
    return $cls(temperature)(Outputs(student), Outputs(teacher), batch)


def by_hand(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> float:
    def probabilities(row: list[float]) -> list[float]:
        powers = [math.exp(z / temperature) for z in row]
        return [power / sum(powers) for power in powers]

    total = 0.0
    for row_s, row_t in zip(student.tolist(), teacher.tolist(), strict=True):
        pairs = zip(probabilities(row_s), probabilities(row_t), strict=True)
        total += sum((p - q) ** 2 for p, q in pairs)
    return total / len(student)


def test_value_is_the_formula() -> None:
    for temperature in (1.0, 4.0):
        found = value(some(0), some(1), temperature).item()
        assert math.isclose(found, by_hand(some(0), some(1), temperature), rel_tol=1e-5)


def test_gradient_agrees_with_finite_differences() -> None:
    student = some(0).requires_grad_()
    value(student, some(1), 2.0).backward()
    step = torch.zeros_like(student)
    step[1, 2] = 0.01
    with torch.no_grad():
        rise = by_hand(student + step, some(1), 2.0) - by_hand(student - step, some(1), 2.0)
    assert math.isclose(student.grad[1, 2].item(), rise / 0.02, rel_tol=1e-3, abs_tol=1e-6)


def test_a_student_like_its_teacher_loses_nothing() -> None:
    assert value(some(0), some(0), 1.0).item() == 0


def test_it_trains(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(HERE)
    small = ["epochs=1", "teacher.schedule.epochs=1", "alone=false", "ui=quiet"]
    words = ["--config-dir", "my_configs", "loss=[kd,$name]"]
    assert run(["distill", *words, f"output_root={tmp_path}", *small]) == 0
'''

MODEL = '''\
"""$title: a network of your own.

Change the layers; its test says when something does not fit.
"""

from torch import Tensor, nn


class $cls(nn.Module):
    """Three convolutions with batch normalisation, pooled between, and a linear classifier.

    images [B, in_channels, H, W], any size -> logits [B, num_classes].
    kdrun passes num_classes and in_channels (and image_size, for a constructor that names it);
    width comes from the YAML.
    """

    def __init__(self, num_classes: int, in_channels: int, width: int = 8) -> None:
        super().__init__()
        self.stage1 = _stage(in_channels, width)
        self.stage2 = _stage(width, 2 * width)
        self.stage3 = _stage(2 * width, 4 * width)
        self.pool = nn.MaxPool2d(2, ceil_mode=True)
        self.average = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(4 * width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.stage1(images)
        hidden = self.stage2(self.pool(hidden))
        hidden = self.stage3(self.pool(hidden))
        logits: Tensor = self.head(self.average(hidden).flatten(1))
        return logits


def _stage(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    )
'''

MODEL_YAML = """\
# $title: three convolutions (a network of your own).
name: $name
_target_: network_$name.$cls
width: 8                 # channels of the first stage
# Features for losses that read them are found by themselves; to name them:
# taps: {stage1: stage1, stage2: stage2}
"""

MODEL_TEST = '''\
"""$cls: its shapes, that all of it learns, its distillation."""

from pathlib import Path

import pytest
import torch
from kdrun.cli.main import run

from network_$name import $cls

HERE = Path(__file__).resolve().parent


@pytest.mark.parametrize(("channels", "size"), [(1, 8), (3, 32), (3, 33)])
def test_any_image_gives_logits(channels: int, size: int) -> None:
    network = $cls(num_classes=7, in_channels=channels)
    assert network(torch.zeros(2, channels, size, size)).shape == (2, 7)


def test_every_parameter_learns() -> None:
    torch.manual_seed(0)
    network = $cls(num_classes=4, in_channels=3)
    images, targets = torch.randn(16, 3, 16, 16), torch.arange(16) % 4
    optimiser = torch.optim.Adam(network.parameters(), lr=0.01)
    losses = []
    for _ in range(20):
        loss = torch.nn.functional.cross_entropy(network(images), targets)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_it_trains_as_teacher_and_as_student(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(HERE)
    small = ["epochs=1", "teacher.schedule.epochs=1", "alone=false", "ui=quiet"]
    words = ["--config-dir", "my_configs", "loss=[kd,sp]"]
    words += ["teacher=$name", "student=$name", "student.width=4"]
    assert run(["distill", *words, f"output_root={tmp_path}", *small]) == 0
'''

EXPERIMENT_YAML = """\
# @package _global_
# $title: what it asks, in a sentence.
# Source: yours. Command: kdrun distill --config-dir my_configs experiment=$name
# Expected: say what you expect before you run it.
# Time: not measured yet.
defaults:
  - override /dataset: digits
  - override /teacher: cnn_large
  - override /student: cnn_tiny
  - override /loss: [kd]
  - _self_
T: 4
alpha: 0.9
epochs: 30
teacher:
  schedule:
    epochs: 30
"""

EXPERIMENT_TEST = '''\
"""The experiment $name trains, with the objective it is meant to have."""

import json
from pathlib import Path

from kdrun.cli.main import run

HERE = Path(__file__).resolve().parent


def test_it_trains(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(HERE)
    small = ["epochs=1", "teacher.schedule.epochs=1", "alone=false", "ui=quiet"]
    words = ["--config-dir", "my_configs", "experiment=$name"]
    assert run(["distill", *words, f"output_root={tmp_path}", *small]) == 0
    (path,) = tmp_path.glob("distill/*/*/*/result.json")
    result = json.loads(path.read_text())
    assert result["status"] == "completed"
    assert result["objective"] == "0.1*CE + 0.9*16*KL(T=4)"
'''
