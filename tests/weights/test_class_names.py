"""The order of the outputs that a weights file states."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from kdrun.teachers.formats import read_any

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
    ],
)
def test_in_a_pytorch_file(tmp_path: Path, stated: dict[str, Any]) -> None:
    torch.save({"state_dict": WEIGHTS, **stated}, tmp_path / "a.pth")
    assert read_any(tmp_path / "a.pth").class_names == ORDER


def test_beside_and_in_safetensors(tmp_path: Path) -> None:
    save_file(WEIGHTS, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"label2id": NUMBERS}))
    assert read_any(tmp_path).class_names == ORDER
    save_file(WEIGHTS, tmp_path / "a.safetensors", {"classes": json.dumps(ORDER)})
    assert read_any(tmp_path / "a.safetensors").class_names == ORDER


@pytest.mark.parametrize(
    "stated",
    [
        {},
        {"classes": 3},
        {"labels": [0, 1, 1]},
        {"class_to_idx": {"ant": 1, "bee": 2, "cat": 3}},
        {"class_to_idx": NUMBERS, "classes": ["ant", "bee", "cat"]},
        {"class_to_idx": {"ant": [0], "bee": None}},
    ],
)
def test_nothing_usable(tmp_path: Path, stated: dict[str, Any]) -> None:
    torch.save({"state_dict": WEIGHTS, **stated}, tmp_path / "a.pth")
    assert read_any(tmp_path / "a.pth").class_names is None
