"""MNIST's original file format, where it is looked for, and what is said when it is not there."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from kdrun.data import idx
from kdrun.data.idx import FILES, fashion_mnist, mnist, read_idx
from kdrun.errors import DataError


def encode(array: np.ndarray) -> bytes:
    shape = struct.pack(f">{array.ndim}I", *array.shape)
    return bytes([0, 0, 8, array.ndim]) + shape + array.astype(np.uint8).tobytes()


def write(folder: Path, packed: bool = False) -> list[np.ndarray]:
    """The four files of a set of 20 and 10 images of 28×28, plain or gzipped."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    shapes = [(20, 28, 28), (20,), (10, 28, 28), (10,)]
    arrays = [random.integers(0, 256 if len(s) == 3 else 10, s, dtype=np.uint8) for s in shapes]
    for name, array in zip(FILES, arrays, strict=True):
        content = encode(array)
        if packed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (folder / name).write_bytes(content)
    return arrays


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("below", ["MNIST/raw", "."])
def test_mnist_is_read_from_its_files(tmp_path: Path, below: str, packed: bool) -> None:
    arrays = write(tmp_path / "data" / below, packed)
    raw = mnist(root=str(tmp_path / "data"), download=False)
    assert raw.test is not None
    assert raw.classes == tuple("0123456789")
    assert np.array_equal(raw.train.in_memory()[:, 0].numpy(), arrays[0])
    assert raw.train.targets.tolist() == arrays[1].tolist()
    assert np.array_equal(raw.test.in_memory()[:, 0].numpy(), arrays[2])
    assert raw.test.targets.dtype == torch.int64


def test_fashion_mnist_has_its_own_folder_and_debians(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idx, "DEBIAN_FASHION", tmp_path / "debian")
    write(tmp_path / "a" / "MNIST" / "raw")
    with pytest.raises(DataError, match="FashionMNIST was not found"):
        fashion_mnist(root=str(tmp_path / "a"), download=False)
    write(tmp_path / "debian", packed=True)
    raw = fashion_mnist(root=str(tmp_path / "a"), download=False)
    assert raw.classes[9] == "ankle boot"
    assert raw.notes == (
        f"Fashion-MNIST is not in {tmp_path / 'a'}: read from Debian's package, "
        f"{tmp_path / 'debian'}.",
    )
    write(tmp_path / "b" / "FashionMNIST" / "raw")
    assert len(fashion_mnist(root=str(tmp_path / "b"), download=False).train) == 20


def test_absent_files_and_both_remedies(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        mnist(root=str(tmp_path), download=False)
    text = str(caught.value)
    for words in (str(tmp_path / "MNIST" / "raw"), "dataset.root", "dataset.download=true"):
        assert words in text


def test_absent_files_are_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(name: str, root: Path, layout: str, arguments: dict[str, bool]) -> None:
        write(root / name / "raw")

    monkeypatch.setattr(idx, "download_once", fetch)
    assert len(mnist(root=str(tmp_path)).train) == 20
    monkeypatch.setattr(idx, "download_once", None)  # a second call would fail
    assert len(mnist(root=str(tmp_path)).train) == 20


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0\0",
        encode(np.zeros((3, 4)))[:-1],
        encode(np.zeros((3, 4))) + b"x",
        b"\0\0\x0d\x01" + bytes(8),
        b"<html>404</html>",
    ],
)
@pytest.mark.parametrize("ending", ["", ".gz"])
def test_damaged_files_are_named(tmp_path: Path, content: bytes, ending: str) -> None:
    path = tmp_path / f"images{ending}"
    path.write_bytes(gzip.compress(content) if ending else content)
    with pytest.raises(DataError, match=r"images.* replace it, or remove it"):
        read_idx(path)


def test_a_gz_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "x.gz").write_bytes(b"plain")
    with pytest.raises(DataError, match=r"x\.gz is damaged"):
        read_idx(tmp_path / "x.gz")


def test_swapped_files_are_noticed(tmp_path: Path) -> None:
    folder = tmp_path / "MNIST" / "raw"
    write(folder)
    (folder / FILES[1]).write_bytes((folder / FILES[3]).read_bytes())
    with pytest.raises(DataError, match="not the files of MNIST"):
        mnist(root=str(tmp_path), download=False)


@pytest.mark.needs_data
def test_original_mnist(data_dir: Path) -> None:
    raw = mnist(root=str(data_dir), download=False)
    assert raw.test is not None
    assert (len(raw.train), len(raw.test)) == (60000, 10000)
    assert torch.bincount(raw.train.targets)[:3].tolist() == [5923, 6742, 5958]
    assert raw.train.in_memory().double().mean().item() / 255 == pytest.approx(0.1307, abs=1e-4)
