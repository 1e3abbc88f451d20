"""torchvision can be imported whatever torch it finds."""

import subprocess
import sys

import torch

from kdrun.vision import import_torchvision

PROGRAM = """
from kdrun.vision import import_torchvision
torchvision = import_torchvision()
import torchvision as plain
assert plain is torchvision is import_torchvision()
from torchvision import datasets, transforms
assert torchvision.models.resnet18 and datasets.CIFAR100 and transforms.ToTensor
"""


def test_in_a_fresh_process() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_models_run() -> None:
    network = import_torchvision().models.squeezenet1_1(num_classes=3).eval()
    with torch.no_grad():
        assert network(torch.zeros(1, 3, 32, 32)).shape == (1, 3)
