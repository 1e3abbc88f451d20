"""Mean, deviation and fingerprint against plain formulas."""

from pathlib import Path

import numpy as np
import pytest
import torch

from kdrun.data import images as images_module
from kdrun.data.images import Split, StoredImages
from kdrun.data.measure import fingerprint, mean_and_std


def split(dtype: torch.dtype = torch.uint8) -> Split:
    stream = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (37, 3, 6, 5), generator=stream)
    return Split(pixels.to(dtype), torch.arange(37) % 4)


@pytest.mark.parametrize(("dtype", "largest"), [(torch.uint8, 255), (torch.float32, 1)])
def test_mean_and_deviation_per_channel(
    dtype: torch.dtype, largest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images_module, "BLOCK_BYTES", 1000)
    data = split(dtype)
    values = data.in_memory().double() / largest
    found = mean_and_std(data)
    assert found.mean == pytest.approx(values.mean((0, 2, 3)).tolist(), rel=1e-12)
    expected = values.transpose(0, 1).flatten(1).std(1, correction=0)
    assert found.std == pytest.approx(expected.tolist(), rel=1e-10)


def test_a_constant_channel_is_not_divided_by_zero() -> None:
    images = torch.zeros(5, 2, 3, 3, dtype=torch.uint8)
    images[:, 0] = 9
    images[2:, 1] = 200
    found = mean_and_std(Split(images, torch.zeros(5, dtype=torch.int64)))
    assert found.std[0] == 1.0
    assert found.mean[0] == pytest.approx(9 / 255)
    assert 0 < found.std[1] < 1


def test_the_fingerprint_sees_pixels_labels_and_shape_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = split()
    expected = fingerprint([data])
    monkeypatch.setattr(images_module, "BLOCK_BYTES", 500)
    np.save(tmp_path / "x.npy", data.in_memory().numpy())
    assert fingerprint([Split(StoredImages(tmp_path / "x.npy"), data.targets)]) == expected
    changed = data.in_memory().clone()
    changed[20, 1, 2, 3] ^= 1
    assert fingerprint([Split(changed, data.targets)]) != expected
    assert fingerprint([Split(data.in_memory(), data.targets.roll(1))]) != expected
    assert fingerprint([Split(data.in_memory().view(37, 3, 5, 6), data.targets)]) != expected
    assert fingerprint([data, data]) != expected


def test_progress_ends_at_the_total() -> None:
    seen: list[tuple[str, int, int]] = []
    fingerprint([split()], lambda *report: seen.append(report))
    mean_and_std(split(), lambda *report: seen.append(report))
    assert [report[1:] for report in seen] == [(37, 37), (37, 37)]
