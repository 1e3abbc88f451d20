"""Splits over tensors, mapped files and selections give the same pixels."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from kdrun.data import images as module
from kdrun.data.images import Split, StoredImages
from kdrun.errors import DataError


@pytest.fixture
def pixels() -> torch.Tensor:
    stream = torch.Generator().manual_seed(0)
    return torch.randint(256, (11, 3, 4, 5), generator=stream).to(torch.uint8)


@pytest.fixture
def mapped(pixels: torch.Tensor, tmp_path: Path) -> Split:
    np.save(tmp_path / "train.npy", pixels.numpy())
    return Split(StoredImages(tmp_path / "train.npy"), torch.arange(11) % 3)


def test_a_mapped_split_equals_the_one_in_memory(pixels: torch.Tensor, mapped: Split) -> None:
    index = torch.tensor([7, 0, 7, 10])
    assert torch.equal(mapped.gather(index), pixels[index])
    assert torch.equal(mapped.in_memory(), pixels)
    assert mapped.shape == (3, 4, 5)
    assert mapped.nbytes == pixels.numel()
    assert mapped.images.dtype == torch.uint8


def test_a_selection_of_a_selection_is_read_lazily(pixels: torch.Tensor, mapped: Split) -> None:
    part = mapped.select(torch.tensor([9, 3, 1, 5])).select(torch.tensor([2, 0]))
    assert not isinstance(part.images, torch.Tensor)
    assert torch.equal(part.in_memory(), pixels[[1, 9]])
    assert part.targets.tolist() == [1, 0]


def test_blocks_cover_everything_in_order(
    pixels: torch.Tensor, mapped: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BLOCK_BYTES", 3 * 60)
    blocks = list(mapped.blocks())
    assert [len(block) for block in blocks] == [3, 3, 3, 2]
    assert torch.equal(torch.cat(blocks), pixels)


def test_a_mapped_split_is_sent_to_a_process_by_name(mapped: Split, tmp_path: Path) -> None:
    sent = pickle.dumps(mapped.images)
    assert len(sent) < 1000 + len(str(tmp_path))
    index = torch.arange(11)
    assert torch.equal(pickle.loads(sent).gather(index), mapped.gather(index))


@pytest.mark.parametrize("index", [[2, 3, 4], [10, 0], [5, 5, 6, 4], []])
def test_runs_and_single_images_are_read(
    pixels: torch.Tensor, mapped: Split, index: list[int]
) -> None:
    positions = torch.tensor(index, dtype=torch.int64)
    assert torch.equal(mapped.gather(positions), pixels[positions])


def test_a_position_outside_the_file_is_refused(mapped: Split) -> None:
    with pytest.raises(IndexError, match="11 images"):
        mapped.gather(torch.tensor([11]))


def test_a_file_that_is_truncated_after_opening_is_an_error(mapped: Split, tmp_path: Path) -> None:
    with open(tmp_path / "train.npy", "r+b") as file:
        file.truncate(200)
    with pytest.raises(DataError, match=r"train\.npy is truncated: delete the folder"):
        mapped.gather(torch.tensor([7]))


def test_reading_works_without_preadv(
    pixels: torch.Tensor, mapped: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(module.os, "preadv", raising=False)  # as on Windows
    index = torch.tensor([3, 4, 0])
    assert torch.equal(mapped.gather(index), pixels[index])
