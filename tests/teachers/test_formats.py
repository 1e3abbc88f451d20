"""Reading foreign checkpoints."""

from pathlib import Path

import pytest
import torch

from kdrun.errors import CheckpointError
from kdrun.teachers.formats import read_any

WEIGHTS = {"conv1.weight": torch.randn(4, 3, 3, 3), "fc.bias": torch.zeros(10)}


def test_a_file_gives_its_tensors_and_no_card(tmp_path: Path) -> None:
    torch.save({"epoch": 240, "model": WEIGHTS}, tmp_path / "teacher.pth")
    found = read_any(tmp_path / "teacher.pth")
    assert found.card is None
    assert list(found.weights) == [f"model.{name}" for name in WEIGHTS]
    assert all(torch.equal(found.weights[f"model.{k}"], t) for k, t in WEIGHTS.items())


@pytest.mark.parametrize(
    ("content", "text"),
    [({"a": 1}, "no state dict"), ([1, 2], "no state dict"), ({}, "no state dict")],
)
def test_files_without_weights_say_what_was_looked_for(
    tmp_path: Path, content: object, text: str
) -> None:
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=text):
        read_any(tmp_path / "x.pth")


@pytest.mark.parametrize("name", ["x.pth", "x.safetensors"])
def test_noise_is_not_a_checkpoint(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x00\x01not a checkpoint" * 100)
    with pytest.raises(CheckpointError, match=name):
        read_any(tmp_path / name)


def test_an_unfinished_run_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"and no weights file\.$"):
        read_any(tmp_path)
    (tmp_path / "config.yaml").write_text("T: 4")
    with pytest.raises(CheckpointError, match=rf"kdrun resume {tmp_path} continues an interrupted"):
        read_any(tmp_path)


def test_a_missing_path_says_what_it_could_be(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"run=.*nothing does not exist.*kdrun ls"):
        read_any(tmp_path / "nothing", what="run")


def test_a_path_in_the_home_folder_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    torch.save(WEIGHTS, tmp_path / "teacher.pth")
    assert read_any(Path("~/teacher.pth")).tensors.keys() == WEIGHTS.keys()
