"""Networks as people write them: used as they are, or refused with the reason before training."""

from collections.abc import Callable
from pathlib import Path

import pytest
from support import SMALL, results

Run = Callable[..., int]
Refused = Callable[..., str]

NETS = """
from dataclasses import dataclass

import torch
from torch import nn

@dataclass
class Output:
    logits: torch.Tensor
    hidden: torch.Tensor

class Base(nn.Module):
    def __init__(self, num_classes, in_channels):
        super().__init__()
        self.body = nn.Conv2d(in_channels, 6, 3, padding=1)
        self.head = nn.Linear(6, num_classes)

    def features(self, x):
        return torch.relu(self.body(x)).mean((2, 3))

    def forward(self, x):
        return self.head(self.features(x))

class Object(Base):
    def forward(self, x):
        hidden = self.features(x)
        return Output(self.head(hidden), hidden)

class PlainTensor(Base):
    def __init__(self, num_classes, in_channels):
        super().__init__(num_classes, in_channels)
        self.mixing = torch.randn(6, 6)

    def features(self, x):
        return super().features(x) @ self.mixing

class NotPersistent(PlainTensor):
    def __init__(self, num_classes, in_channels):
        super().__init__(num_classes, in_channels)
        del self.mixing
        self.register_buffer("mixing", torch.randn(6, 6), persistent=False)

class Constant(PlainTensor):
    def __init__(self, num_classes, in_channels):
        super().__init__(num_classes, in_channels)
        self.mixing = torch.eye(6)

class Listed(Base):
    def __init__(self, num_classes, in_channels):
        super().__init__(num_classes, in_channels)
        self.more = [nn.Linear(6, 6)]

    def features(self, x):
        return self.more[0](super().features(x))

class Running(Base):
    def __init__(self, num_classes, in_channels):
        super().__init__(num_classes, in_channels)
        self.mean = torch.zeros(6)

    def features(self, x):
        x = super().features(x)
        if self.training:
            self.mean = self.mean + 0.1 * x.detach().mean(0)
        return x - self.mean

class Dropped(Base):
    def features(self, x):
        return nn.functional.dropout(super().features(x), 0.5)

class Auxiliary(Base):
    def forward(self, x):
        logits = super().forward(x)
        return (logits, logits) if self.training else logits

class InPlace(Base):
    def forward(self, x):
        x.sub_(0.5).div_(0.5)
        return super().forward(x)

class ReluFirst(Base):
    def forward(self, x):
        return super().forward(nn.functional.relu(x, inplace=True))

class TrainReturnsNothing(Base):
    def train(self, mode=True):
        super().train(mode)

class Empty(nn.Module):
    def forward(self, x):
        return x.flatten(1)[:, :4]

def scripted(num_classes, in_channels):
    return torch.jit.script(Base(num_classes, in_channels))
"""


@pytest.fixture
def nets(workdir: Path) -> None:
    (workdir / "nets_as_written.py").write_text(NETS)


def words(name: str, role: str = "student") -> list[str]:
    return [*SMALL, f"{role}=custom", f"{role}._target_=nets_as_written.{name}", "epochs=1"]


@pytest.mark.parametrize("role", ["student", "teacher"])
@pytest.mark.parametrize("name", ["Object", "Constant", "TrainReturnsNothing"])
def test_used_as_they_are(kdrun: Run, workdir: Path, nets: None, name: str, role: str) -> None:
    assert kdrun("distill", *words(name, role), "loss=[kd,sp]", "alone=false") == 0
    (run,) = results(workdir)
    assert kdrun("evaluate", f"run={run['folder']}", "ui=quiet", "threads=1") == 0
    (again,) = results(workdir, "evaluate")
    assert again["student"]["test"]["top1"] == run["student"]["test"]["top1"]


@pytest.mark.parametrize("role", ["student", "teacher"])
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("PlainTensor", "outside of its state_dict"),
        ("NotPersistent", "outside of its state_dict"),
        ("Listed", "outside of its state_dict"),
        ("Dropped", "different logits for the same images"),
        ("Auxiliary", "returns a tuple in training mode"),
        ("InPlace", "changes its input in place"),
        ("ReluFirst", "changes its input in place"),
        ("Empty", "has no trainable parameters"),
        ("scripted", "returns a TorchScript module"),
    ],
)
def test_refused_before_training(
    refused: Refused, workdir: Path, nets: None, name: str, said: str, role: str
) -> None:
    assert said in refused("distill", *words(name, role))
    assert not (workdir / "outputs" / "teachers").exists()


def test_values_that_only_training_changes_are_warned_of(
    kdrun: Run, workdir: Path, nets: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert kdrun("distill", *words("Running"), "alone=false", "ui=plain") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "student.safetensors will not answer as measured here" in said


LOSSES = """
from torch import nn
from torch.nn.functional import mse_loss
from kdrun.losses.base import DistillationLoss

class Lazy(DistillationLoss):
    id = "mine"
    full_name = "a lazy one"

    def __init__(self):
        super().__init__()
        self.layer = nn.LazyLinear(4)

    def forward(self, student, teacher, batch):
        return mse_loss(self.layer(student.logits), teacher.logits)

class InPlace(Lazy):
    def __init__(self):
        DistillationLoss.__init__(self)

    def forward(self, student, teacher, batch):
        logits = teacher.logits
        logits /= 4
        return mse_loss(student.logits, logits)
"""


@pytest.mark.parametrize(
    ("name", "said"),
    [("Lazy", "layer.weight of Lazy has no shape yet"), ("InPlace", "in place")],
)
def test_losses_that_cannot_be_used(refused: Refused, workdir: Path, name: str, said: str) -> None:
    (workdir / "losses_as_written.py").write_text(LOSSES)
    folder = workdir / "my" / "loss"
    folder.mkdir(parents=True)
    target = f"losses_as_written.{name}"
    (folder / "mine.yaml").write_text(f"mine:\n  _target_: {target}\n  weight: 1.0\n")
    assert said in refused("distill", *SMALL, "--config-dir", "my", "loss=[mine,kd]")
