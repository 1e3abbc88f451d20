"""A user's own arrays: the forms that are taken, and the sentence for the others."""

import numpy as np
import pytest
import torch
from PIL import Image

from kdrun.data.custom import as_raw_dataset
from kdrun.data.images import RawDataset, Split
from kdrun.errors import DataError

LABELS = [0, 1, 2, 0]


def images(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((4, 5, 6), (1, 5, 6)),
        ((4, 3, 5, 6), (3, 5, 6)),
        ((4, 5, 6, 3), (3, 5, 6)),
        ((4, 5, 6, 1), (1, 5, 6)),
        ((4, 1, 5, 3), (1, 5, 3)),
    ],
)
@pytest.mark.parametrize("make", [np.asarray, torch.from_numpy])
def test_shapes(shape: tuple[int, ...], expected: tuple[int, ...], make: object) -> None:
    pixels = images(*shape)
    raw = as_raw_dataset({"train": (make(pixels), LABELS)}, "f")  # type: ignore[operator]
    assert raw.train.shape == expected
    assert raw.train.images.dtype == torch.uint8
    assert raw.classes == ("0", "1", "2")
    assert raw.test is None
    assert raw.train.in_memory().numel() == pixels.size


def test_channels_last_is_turned() -> None:
    pixels = images(4, 5, 6, 3)
    raw = as_raw_dataset({"train": (pixels, LABELS)}, "f")
    assert np.array_equal(raw.train.in_memory().numpy(), pixels.transpose(0, 3, 1, 2))


def test_all_entries_and_a_pair() -> None:
    part = (images(4, 5, 5), np.array(LABELS, np.int32))
    raw = as_raw_dataset({"train": part, "val": part, "test": part, "classes": list("abc")}, "f")
    assert raw.classes == ("a", "b", "c")
    assert raw.val is not None
    assert raw.test is not None
    assert raw.train.targets.dtype == torch.int64
    pair = as_raw_dataset((part, part), "f")
    assert pair.test is not None
    assert pair.val is None


def test_raw_data_sets_and_splits_pass_through() -> None:
    split = Split(torch.zeros(2, 1, 3, 3), torch.tensor([0, 1]))
    raw = RawDataset(("a", "b"), split)
    assert as_raw_dataset(raw, "f") is raw
    assert as_raw_dataset({"train": split}, "f").train is split


@pytest.mark.parametrize(
    ("pixels", "words"),
    [
        (torch.zeros(4, 5, 5), r"shape \[4, 5, 5\]; a Split takes"),
        (torch.zeros(4, 1, 5, 5, dtype=torch.int64), r"int64 of shape .* uint8 or float32"),
        (torch.full((4, 1, 5, 5), torch.nan), "not finite"),
    ],
)
def test_splits_of_ones_own_are_checked(pixels: torch.Tensor, words: str) -> None:
    split = Split(pixels, torch.tensor(LABELS))
    for returned in ({"train": split}, RawDataset(("a", "b", "c"), split)):
        with pytest.raises(DataError, match=words):
            as_raw_dataset(returned, "f")


def test_values() -> None:
    for values, dtype in (
        (np.random.default_rng(0).random((4, 2, 2)), torch.float32),
        (np.array([[[0, 255]]] * 4, np.int64), torch.uint8),
        (np.array([[[True, False]]] * 4), torch.uint8),
    ):
        found = as_raw_dataset({"train": (values, LABELS)}, "f").train
        assert found.images.dtype == dtype
    assert found.in_memory().max() == 255


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        (None, "returned a NoneType: return a kdrun.data.RawDataset, or"),
        ({}, "returned no 'train'"),
        ({"train": images(4, 5, 5)}, "train must be a pair"),
        ({"trian": ()}, "unknown entry 'trian'. Did you mean 'train'"),
        ({"train": (images(4, 5, 5), [0, 1])}, "has 4 images and 2 targets"),
        ({"train": (images(4, 5), LABELS)}, r"images have shape \[4, 5\]; expected"),
        ({"train": ([[1, 2], [3]], [0, 1])}, "array or tensor of numbers"),
        ({"train": (images(4, 5, 5), [0.5] * 4)}, r"targets are float64 .* whole number"),
        ({"train": (images(4, 5, 5), [[0]] * 4)}, r"targets are int64 of shape \[4, 1\]"),
        ({"train": (images(4, 5, 5).astype(int) * 300, LABELS)}, "outside 0..255"),
        ({"train": (np.full((4, 5, 5), 65535, np.uint16), LABELS)}, "uint16 with values outside"),
        ({"train": (np.full((4, 5, 5), 2**32 - 1, np.uint32), LABELS)}, "outside 0..255"),
        ({"train": (np.full((4, 5, 5), 2**64 - 1, np.uint64), LABELS)}, "outside 0..255"),
        ({"train": (np.ones((4, 5, 5), np.complex64), LABELS)}, "complex64: give uint8 pixels"),
        ({"train": (np.full((4, 5, 5), np.nan), LABELS)}, "not finite"),
        ({"train": (images(4, 5, 5), LABELS), "classes": "abc"}, "must be a list of names"),
    ],
)
def test_mistakes_are_explained(returned: object, words: str) -> None:
    with pytest.raises(DataError, match=words):
        as_raw_dataset(returned, "f")


def test_more_than_four_channels_in_the_last_place_are_noted() -> None:
    (note,) = as_raw_dataset({"train": (images(4, 9, 9, 8), LABELS)}, "f").notes
    assert "9 channels of 8×9 pixels" in note
    assert "images.transpose(0, 3, 1, 2)" in note
    last = Split(torch.from_numpy(images(4, 9, 9, 3)), torch.tensor(LABELS))
    for returned in ({"train": last}, RawDataset(("a", "b", "c"), last)):
        assert "9 channels of 3×9 pixels" in as_raw_dataset(returned, "f").notes[0]
    for shape in ((4, 8, 9, 9), (4, 9, 9, 9), (4, 9, 9, 3)):
        assert as_raw_dataset({"train": (images(*shape), LABELS)}, "f").notes == ()


@pytest.mark.parametrize("odd", ["train", "val", "test"])
@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_splits_of_another_range_are_refused(odd: str, kind: type) -> None:
    pixels = images(4, 5, 5).astype(kind)
    small = pixels // 128 if kind is np.uint8 else pixels / 255
    parts = {name: (small if name == odd else pixels, LABELS) for name in ("train", "val", "test")}
    with pytest.raises(DataError, match=r"the \w+ images have values of about .* in one range"):
        as_raw_dataset(parts, "f")
    black = (np.zeros_like(pixels), LABELS)
    dark = (pixels / 20 if kind is np.float32 else pixels // 20, LABELS)
    as_raw_dataset({"train": (pixels, LABELS), "val": dark, "test": black}, "f")


@pytest.mark.parametrize("empty", ["train", "val", "test"])
@pytest.mark.parametrize("images", [[], np.zeros((0, 4, 4)), torch.zeros(0, 3, 4, 4)])
def test_an_empty_split_is_refused_by_name(empty: str, images: object) -> None:
    full = (np.zeros((2, 4, 4), np.uint8), [0, 1])
    returned = {"train": full, "val": full, "test": full} | {empty: (images, [])}
    with pytest.raises(DataError, match=f"f, {empty} has no images"):
        as_raw_dataset(returned, "f")


def test_images_with_a_palette_are_refused() -> None:
    """Their numbers are those of colours in the palette."""
    images = [Image.new("RGB", (8, 8), (number * 20, 0, 0)).convert("P") for number in range(8)]
    with pytest.raises(DataError, match=r"have a palette: convert each"):
        as_raw_dataset({"train": (images, [0, 1] * 4)}, "mine")
    colours = [image.convert("RGB") for image in images]
    assert as_raw_dataset({"train": (colours, [0, 1] * 4)}, "mine").train.shape == (3, 8, 8)


@pytest.mark.parametrize("shape", [(8, 9, 9, 103), (8, 25, 25, 30)])
def test_many_channels_in_the_last_place_are_noted(shape: tuple[int, ...]) -> None:
    raw = as_raw_dataset({"train": (np.zeros(shape, np.float32), [0, 1] * 4)}, "mine")
    assert any("if they are [N, H, W, C]" in note for note in raw.notes)
