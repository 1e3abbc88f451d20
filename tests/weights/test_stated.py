"""The order of the outputs and the normalisation that a weights file states."""

import argparse
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from kdrun.teachers.formats import read_any
from kdrun.types import Normalisation
from kdrun.vision import import_torchvision
from kdrun.weights.stated import IMAGENET

WEIGHTS = {"fc.weight": torch.zeros(3, 2)}
ORDER = ("cat", "ant", "bee")
NUMBERS = {"ant": 1, "bee": 2, "cat": 0}


@pytest.mark.parametrize(
    "stated",
    [
        {"class_to_idx": NUMBERS},
        {"classes": list(ORDER)},
        {"hyper_parameters": {"class_names": ORDER}},
        {"meta": {"dataset_meta": {"CLASSES": ORDER}}},
        {"idx_to_class": {0: "cat", 1: "ant", 2: "bee"}},
        {"config": {"id2label": {"2": "bee", "0": "cat", "1": "ant"}}},
        {"classes": list(ORDER), "class_to_idx": NUMBERS},
        {"class_to_idx": {"ant": 2, "bee": 3, "cat": 1}},
        {"meta": {"categories": ORDER}},
        {"names": {0: "cat", 1: "ant", 2: "bee"}},
        {"classes": NUMBERS},
        {"args": argparse.Namespace(class_to_idx=NUMBERS)},
        {"classes": ORDER, "config": {"id2label": {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}}},
    ],
)
def test_in_a_pytorch_file(tmp_path: Path, stated: dict[str, Any]) -> None:
    torch.save({"state_dict": WEIGHTS, **stated}, tmp_path / "a.pth")
    assert list(read_any(tmp_path / "a.pth").stated.class_orders.values()) == [ORDER]


def test_beside_and_in_safetensors(tmp_path: Path) -> None:
    save_file(WEIGHTS, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"label2id": NUMBERS}))
    assert read_any(tmp_path).stated.class_orders == {"config.json.label2id": ORDER}
    save_file(WEIGHTS, tmp_path / "a.safetensors", {"classes": json.dumps(ORDER)})
    assert read_any(tmp_path / "a.safetensors").stated.class_orders == {"classes": ORDER}


@pytest.mark.parametrize(
    "stated",
    [
        {},
        {"classes": 3},
        {"labels": [0, 1, 1]},
        {"class_to_idx": {"ant": 1, "bee": 2, "cat": 4}},
        {"class_to_idx": {"ant": [0], "bee": None}},
    ],
)
def test_nothing_usable(tmp_path: Path, stated: dict[str, Any]) -> None:
    torch.save({"state_dict": WEIGHTS, **stated}, tmp_path / "a.pth")
    assert not read_any(tmp_path / "a.pth").stated.class_orders


def test_two_orders_are_both_told(tmp_path: Path) -> None:
    stated = {"class_to_idx": NUMBERS, "config": {"classes": ["ant", "bee", "cat"]}}
    torch.save({"state_dict": WEIGHTS, **stated}, tmp_path / "a.pth")
    assert read_any(tmp_path / "a.pth").stated.class_orders == {
        "class_to_idx": ORDER,
        "config.classes": ("ant", "bee", "cat"),
    }


CIFAR = Normalisation((0.5, 0.25, 0.125), (0.25, 0.5, 0.75))
MEAN, STD = CIFAR.mean, CIFAR.std
SCRIPT = {"model": "resnet18", "train_crop_size": 176, "val_crop_size": 224, "ra_sampler": False}


@pytest.mark.parametrize(
    ("stated", "place", "constants"),
    [
        ({"default_cfg": {"mean": MEAN, "std": STD}}, "default_cfg.mean", CIFAR),
        ({"mean": list(MEAN), "std": list(STD)}, "mean", CIFAR),
        ({"data": {"normalize": [MEAN, STD]}}, "data.normalize", CIFAR),
        ({"mean": torch.tensor(MEAN), "std": torch.tensor(STD)}, "mean", CIFAR),
        ({"args": argparse.Namespace(mean=MEAN, std=STD)}, "args.mean", CIFAR),
        ({"hyper_parameters": {"norm": {"MEAN": MEAN, "STD": STD}}}, None, CIFAR),
        ({"cfg": {"pixel_mean": [x * 255 for x in MEAN], "pixel_std": [x * 255 for x in STD]}},
         "cfg.pixel_mean", CIFAR),
        ({"args": {"mean": 0.5, "std": 0.25}}, "args.mean", Normalisation((0.5,), (0.25,))),
        ({"mean": [0.5], "std": [0.25]}, "mean", Normalisation((0.5,), (0.25,))),
        ({"args": argparse.Namespace(val_resize_size=256, **SCRIPT)}, None, IMAGENET),
    ],
)  # fmt: skip
def test_normalisation(
    tmp_path: Path, stated: dict[str, Any], place: str | None, constants: Normalisation
) -> None:
    torch.save({"state_dict": WEIGHTS, **stated}, tmp_path / "a.pth")
    found = read_any(tmp_path / "a.pth").stated.constants
    assert list(found.values()) == [constants]
    assert place in (None, *found)


def test_normalisation_of_a_pickled_transform(tmp_path: Path) -> None:
    transforms = import_torchvision().transforms
    both = transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
    torch.save({"state_dict": WEIGHTS, "transform": both}, tmp_path / "a.pth")
    assert list(read_any(tmp_path / "a.pth").stated.constants.values()) == [CIFAR]


def test_normalisation_beside_and_in_safetensors(tmp_path: Path) -> None:
    save_file(WEIGHTS, tmp_path / "model.safetensors")
    beside = tmp_path / "preprocessor_config.json"
    beside.write_text(json.dumps({"do_normalize": True, "image_mean": MEAN, "image_std": STD}))
    place = "preprocessor_config.json.image_mean"
    assert read_any(tmp_path).stated.constants == {place: CIFAR}
    beside.write_text(json.dumps({"do_normalize": False, "image_mean": MEAN, "image_std": STD}))
    assert read_any(tmp_path).stated.constants == {place: Normalisation((0.0,) * 3, (1.0,) * 3)}
    beside.unlink()
    config = {"architecture": "a", "pretrained_cfg": {"mean": MEAN, "std": STD}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert list(read_any(tmp_path).stated.constants.values()) == [CIFAR]
    save_file(WEIGHTS, tmp_path / "a.safetensors", {"mean": str(list(MEAN)), "std": str(list(STD))})
    assert read_any(tmp_path / "a.safetensors").stated.constants["mean"] == CIFAR


class _OwnNormalisation(nn.Module):
    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(2, 3)
        self.register_buffer("mean", torch.tensor(MEAN))
        self.register_buffer("std", torch.tensor(STD))


@pytest.mark.parametrize(
    "stated",
    [
        {},
        {"accuracy": {"mean": 0.931, "std": 0.002}},
        {"mean": 0.931, "std": 0.02},
        {"mean": 93.1, "std": 0.2},
        {"args": {"mean": None, "std": None}},
        {"model": _OwnNormalisation().state_dict()},
        {"mean": torch.zeros(64), "std": torch.ones(64)},
    ],
)
def test_no_normalisation(tmp_path: Path, stated: dict[str, Any]) -> None:
    torch.save({"state_dict": WEIGHTS, **stated}, tmp_path / "a.pth")
    assert not read_any(tmp_path / "a.pth").stated.constants


@pytest.mark.parametrize(
    ("stated", "sizes"),
    [
        ({"pretrained_cfg": {"input_size": [3, 24, 32]}}, [(24, 32)]),
        ({"args": argparse.Namespace(img_size=224, val_crop_size=224)}, [(224, 224)]),
        ({"config": {"crop_size": {"height": 32, "width": 48}}}, [(32, 48)]),
        ({"args": {"img_size": None, "input_size": "large"}}, []),
    ],
)
def test_image_sizes(tmp_path: Path, stated: dict[str, Any], sizes: list[tuple[int, int]]) -> None:
    torch.save({"state_dict": WEIGHTS, **stated}, tmp_path / "a.pth")
    assert list(read_any(tmp_path / "a.pth").stated.sizes.values()) == sizes
