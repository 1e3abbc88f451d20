"""torchvision can be imported whatever torch it finds, by kdrun and by a user's own module."""

import subprocess
import sys
from pathlib import Path

import torch

from kdrun.vision import ABSENT, import_torchvision, repair_torchvision

OWN = """
import torchvision
from torchvision.models.resnet import BasicBlock

def network():
    return torchvision.models.squeezenet1_1(num_classes=3)
"""
PROGRAM = """
import sys
from kdrun.config import build, trust
trust.name(["own_net.network"])
build.locate("own_net.network", "student")()
import torchvision as plain
from kdrun.vision import import_torchvision
assert plain is import_torchvision() is sys.modules["torchvision"]
from torchvision import datasets, transforms
assert plain.models.resnet18 and datasets.CIFAR100 and transforms.ToTensor
"""


def test_a_user_s_module_is_the_first_to_import_it(tmp_path: Path) -> None:
    (tmp_path / "own_net.py").write_text(OWN)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr


def test_the_models_run() -> None:
    network = import_torchvision().models.squeezenet1_1(num_classes=3).eval()
    with torch.no_grad():
        assert network(torch.zeros(1, 3, 32, 32)).shape == (1, 3)


def test_it_is_said_how_the_operators_stand() -> None:
    assert repair_torchvision() != ABSENT
