"""Sets read through torchvision: layout, labels, downloads, and what is said when they fail."""

import hashlib
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.io import savemat

from kdrun.data.torchvision_sets import cifar10, cifar100, dtd, stl10, svhn
from kdrun.errors import ConfigError, DataError
from kdrun.vision import import_torchvision

Save = Callable[..., Path]
datasets = import_torchvision().datasets


def put(path: Path, content: bytes) -> str:
    """Write a file; its md5, which torchvision checks."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return hashlib.md5(content).hexdigest()


@pytest.fixture
def tiny_cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """A CIFAR-100 of four training and three test images in the published layout; their bytes."""
    base = tmp_path / "cifar-100-python"
    rows = np.random.default_rng(0).integers(0, 256, (7, 3072), dtype=np.uint8)
    files = {
        "train": {"data": rows[:4], "fine_labels": [0, 1, 2, 1]},
        "test": {"data": rows[4:], "fine_labels": [2, 0, 1]},
        "meta": {"fine_label_names": ["apple", "bear", "cup"]},
    }
    md5 = {name: put(base / name, pickle.dumps(value)) for name, value in files.items()}
    monkeypatch.setattr(datasets.CIFAR100, "train_list", [["train", md5["train"]]])
    monkeypatch.setattr(datasets.CIFAR100, "test_list", [["test", md5["test"]]])
    meta = datasets.CIFAR100.meta | {"md5": md5["meta"]}
    monkeypatch.setattr(datasets.CIFAR100, "meta", meta)
    return rows


def test_cifar_is_read_in_planes(tmp_path: Path, tiny_cifar: np.ndarray) -> None:
    raw = cifar100(root=str(tmp_path), download=False)
    assert raw.test is not None
    assert raw.classes == ("apple", "bear", "cup")
    assert np.array_equal(raw.train.in_memory().numpy(), tiny_cifar[:4].reshape(4, 3, 32, 32))
    assert np.array_equal(raw.test.in_memory().numpy(), tiny_cifar[4:].reshape(3, 3, 32, 32))
    assert raw.train.in_memory().is_contiguous()
    assert raw.train.targets.tolist() == [0, 1, 2, 1]


def test_svhn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 3), dtype=np.uint8)
    entries = {}
    for split in ("train", "test"):
        path = tmp_path / f"{split}_32x32.mat"
        savemat(path, {"X": pixels, "y": np.array([[10], [1], [9]])})
        entries[split] = ["", path.name, hashlib.md5(path.read_bytes()).hexdigest()]
    monkeypatch.setattr(datasets.SVHN, "split_list", entries)
    raw = svhn(root=str(tmp_path), download=False)
    assert raw.test is not None
    assert np.array_equal(raw.train.in_memory().numpy(), pixels.transpose(3, 2, 0, 1))
    assert raw.train.targets.tolist() == [0, 1, 9]  # the file calls zero 10
    assert len(raw.test) == 3


def test_stl10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 96, 96), dtype=np.uint8)
    base = tmp_path / "stl10_binary"
    columns_first = pixels.transpose(0, 1, 3, 2).tobytes()
    lists: dict[str, list[list[str]]] = {"train": [], "test": []}
    for split, files in lists.items():
        files.append([f"{split}_X.bin", put(base / f"{split}_X.bin", columns_first)])
        files.append([f"{split}_y.bin", put(base / f"{split}_y.bin", bytes([2, 1]))])
    put(base / "class_names.txt", b"airplane\nbird\n")
    monkeypatch.setattr(datasets.STL10, "train_list", lists["train"])
    monkeypatch.setattr(datasets.STL10, "test_list", lists["test"])
    raw = stl10(root=str(tmp_path), download=False)
    assert raw.test is not None
    assert raw.classes == ("airplane", "bird")
    assert np.array_equal(raw.train.in_memory().numpy(), pixels)
    assert raw.test.targets.tolist() == [1, 0]


@pytest.fixture
def textures(save: Save, tmp_path: Path) -> Path:
    """A DTD of two classes with one image per class and split, of different sizes."""
    base = tmp_path / "dtd" / "dtd"
    for number, split in enumerate(("train", "val", "test")):
        lines = []
        for name in ("banded", "woven"):
            save(f"dtd/dtd/images/{name}/{split}.jpg", size=(30 + number, 20))
            lines.append(f"{name}/{split}.jpg")
        put(base / "labels" / f"{split}1.txt", "\n".join(lines).encode())
    return tmp_path


def test_dtd_keeps_its_three_splits_in_one_size(textures: Path) -> None:
    settings = {"root": str(textures), "download": False, "cache_root": textures / "cache"}
    raw = dtd(image_size=16, **settings)  # type: ignore[arg-type]
    assert raw.val is not None
    assert raw.test is not None
    assert [len(split) for split in (raw.train, raw.val, raw.test)] == [2, 2, 2]
    assert raw.train.shape == (3, 16, 16)
    assert raw.classes == ("banded", "woven")
    with pytest.raises(ConfigError, match="partition=11 must lie between 1 and 10"):
        dtd(partition=11, **settings)  # type: ignore[arg-type]
    (textures / "dtd" / "dtd" / "images" / "woven" / "val.jpg").unlink()
    with pytest.raises(DataError, match=r"woven/val\.jpg is missing"):
        dtd(image_size=16, **settings)  # type: ignore[arg-type]


SOURCES = {
    "CIFAR10": (cifar10, "cifar-10-batches-py"),
    "CIFAR100": (cifar100, "cifar-100-python"),
    "SVHN": (svhn, "train_32x32.mat"),
    "STL10": (stl10, "stl10_binary"),
    "DTD": (dtd, "dtd/dtd"),
}


def call(name: str, root: Path, download: bool) -> Any:
    source: Any = SOURCES[name][0]
    extra = {"cache_root": root / "cache"} if name == "DTD" else {}
    return source(root=str(root), download=download, **extra)


@pytest.mark.parametrize("name", SOURCES)
def test_absent_data_names_the_folder_and_both_remedies(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError) as caught:
        call(name, tmp_path, download=False)
    text = str(caught.value)
    for words in (name, str(tmp_path), SOURCES[name][1], "dataset.root", "dataset.download=true"):
        assert words in text


@pytest.mark.parametrize("name", SOURCES)
def test_a_failed_download_is_one_sentence_with_the_layout(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = getattr(datasets, name)

    class Offline(original):  # type: ignore[misc,valid-type]
        def __init__(self, *args: Any, download: bool = False, **kwargs: Any) -> None:
            if download:
                raise OSError("no route\nto host")
            super().__init__(*args, download=False, **kwargs)

    Offline.__name__ = original.__name__
    monkeypatch.setattr(datasets, name, Offline)
    with pytest.raises(DataError) as caught:
        call(name, tmp_path, download=True)
    text = str(caught.value)
    assert "could not be downloaded (no route to host)" in text
    assert SOURCES[name][1] in text
    assert "\n" not in text


def test_present_data_are_not_downloaded(
    tmp_path: Path, tiny_cifar: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Any) -> None:
        raise AssertionError("downloaded although present")

    monkeypatch.setattr(datasets.CIFAR100, "download", fail)
    assert len(cifar100(root=str(tmp_path), download=True).train) == 4


def test_absent_data_are_downloaded(
    tmp_path: Path, tiny_cifar: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tmp_path / "cifar-100-python"
    base.rename(tmp_path / "elsewhere")
    calls = []

    def fetch(self: Any) -> None:
        calls.append(1)
        if not base.exists():
            (tmp_path / "elsewhere").rename(base)

    monkeypatch.setattr(datasets.CIFAR100, "download", fetch)
    raw = cifar100(root=str(tmp_path))
    assert calls
    assert torch.equal(
        raw.train.in_memory(), torch.from_numpy(tiny_cifar[:4].reshape(4, 3, 32, 32))
    )
