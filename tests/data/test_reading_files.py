"""Image folders whose files need converting or are broken: one range, counts, one error."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from kdrun.data.imagefolder import imagefolder
from kdrun.data.images import RawDataset
from kdrun.errors import ConfigError, DataError
from tests.data.image_files import png

Read = Callable[..., RawDataset]
CACHE = pytest.mark.parametrize("cache", [True, False], ids=["cached", "streamed"])


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def call(root: Path, **changes: object) -> RawDataset:
        settings = {"root": str(root), "cache_root": tmp_path / "cache"} | changes
        return imagefolder(**settings)  # type: ignore[arg-type]

    return call


def grey_set(root: Path, levels: dict[str, int], ending: str = "png") -> Path:
    """A folder of 16-bit images of one level each: `levels` by `split/class/name`."""
    for name, level in levels.items():
        path = root / f"{name}.{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        values = np.full((4, 4), level)
        if ending == "png":
            path.write_bytes(png(values))
        else:
            Image.fromarray(values.astype(np.int32)).save(path)
    return root


@CACHE
@pytest.mark.parametrize("ending", ["png", "tif"])
def test_one_range_for_all_splits_keeps_brightness(
    tmp_path: Path, read: Read, cache: bool, ending: str
) -> None:
    levels = {
        "train/dark/0": 0,
        "train/dark/1": 819,
        "train/light/0": 1638,
        "train/light/1": 3276,
        "test/dark/0": 819,
        "test/light/0": 4095,
    }
    raw = read(grey_set(tmp_path / "set", levels, ending), cache=cache)
    assert raw.test is not None
    assert raw.train.in_memory()[:, 0, 0, 0].tolist() == [0, 51, 102, 204]
    assert raw.test.in_memory()[:, 0, 0, 0].tolist() == [51, 255]
    assert raw.train.shape == (1, 4, 4)
    assert raw.notes[0].startswith("6 of 6 images: 16-bit pixels scaled from 0…4095 to 0…255")
    chosen = read(tmp_path / "set", cache=cache, value_range=[0, 8190])
    assert chosen.train.in_memory()[:, 0, 0, 0].tolist() == [0, 26, 51, 102]
    assert chosen.fingerprint != raw.fingerprint
    clipped = read(tmp_path / "set", cache=cache, value_range=[0, 2000])
    assert any(note.startswith("2 of 6 images: pixel values outside") for note in clipped.notes)


@CACHE
def test_background_is_a_setting_and_changes_the_fingerprint(
    tmp_path: Path, read: Read, cache: bool
) -> None:
    for name in ("train/a/0", "train/b/0", "test/a/0", "test/b/0"):
        path = tmp_path / "set" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGBA", (4, 4), (9, 9, 9, 0 if "/a/" in name else 255)).save(path)
    white = read(tmp_path / "set", cache=cache)
    assert white.train.in_memory()[:, 0, 0, 0].tolist() == [255, 9]
    assert white.notes == (
        "2 of 4 images: transparent parts filled with white (dataset.background=COLOUR sets "
        "another colour).",
    )
    black = read(tmp_path / "set", cache=cache, background="black")
    assert black.train.in_memory()[:, 0, 0, 0].tolist() == [0, 9]
    assert "filled with black" in black.notes[0]
    assert white.fingerprint != black.fingerprint


def test_eight_bit_files_beside_deep_ones_keep_their_pixels(tmp_path: Path, read: Read) -> None:
    root = grey_set(tmp_path / "set", {"a/0": 0, "a/1": 4095, "b/0": 2048})
    Image.new("L", (4, 4), 77).save(root / "b" / "1.png")
    raw = read(root, test_fraction=0.5)
    assert raw.test is not None
    pixels = torch.cat([raw.train.in_memory(), raw.test.in_memory()])[:, 0, 0, 0]
    assert sorted(pixels.tolist()) == [0, 77, 128, 255]
    assert raw.notes[0].startswith("3 of 4 images: 16-bit")


@pytest.fixture
def damaged(tree: Path) -> tuple[Path, dict[str, str]]:
    """The folder `tree` with broken files in both splits: name → why."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tree / "whole.png")
    content = (tree / "whole.png").read_bytes()
    (tree / "whole.png").unlink()
    files = {
        "train/cat/empty.png": (b"", "an empty file"),
        "train/cat/page.jpg": (b"<html>404</html>", "a web page (HTML)"),
        "train/dog/cut.png": (content[:4000], "truncated"),
        "test/dog/text.gif": (b"text", "not an image"),
    }
    for name, (broken, _) in files.items():
        (tree / name).write_bytes(broken)
    return tree, {name: why for name, (_, why) in files.items()}


@CACHE
def test_all_broken_files_are_named_in_one_error(
    damaged: tuple[Path, dict[str, str]], read: Read, cache: bool, tmp_path: Path
) -> None:
    root, files = damaged
    with pytest.raises(DataError, match=r"4 of 14 images .*dataset\.skip_broken=true") as caught:
        read(root, cache=cache)
    for name, why in files.items():
        assert re.search(rf"{re.escape(name)} \([^)]*{re.escape(why)}", str(caught.value))
    assert not [path for path in (tmp_path / "cache").glob("*") if path.is_dir()]


@CACHE
def test_broken_files_are_skipped_when_asked(
    damaged: tuple[Path, dict[str, str]], read: Read, cache: bool
) -> None:
    root, files = damaged
    raw = read(root, cache=cache, skip_broken=True)
    assert raw.test is not None
    assert (len(raw.train), len(raw.test)) == (6, 4)
    assert raw.train.targets.tolist() == [0, 0, 0, 1, 1, 1]
    assert raw.train.shape == (3, 6, 6)  # the cut file has another size, and no say
    assert raw.notes[0].startswith("4 of 14 images cannot be decoded and are left out")
    expected = np.asarray(Image.open(root / "train" / "dog" / "0.png")).transpose(2, 0, 1)
    assert np.array_equal(raw.train.in_memory()[3].numpy(), expected)
    again = read(root, cache=cache, skip_broken=True)
    assert again.notes == raw.notes
    for name in files:
        (root / name).unlink()
    clean = read(root, cache=cache)
    assert clean.fingerprint == raw.fingerprint
    assert clean.normalisation == raw.normalisation


@CACHE
def test_the_first_ten_broken_files_and_how_many_more(tree: Path, read: Read, cache: bool) -> None:
    for number in range(23):
        (tree / "train" / "cat" / f"broken{number:02}.png").touch()
    with pytest.raises(DataError, match=r"23 of 33 images") as caught:
        read(tree, cache=cache)
    assert "broken09.png" in str(caught.value)
    assert "broken10.png" not in str(caught.value)
    assert "and 13 more" in str(caught.value)


@CACHE
def test_a_class_without_a_readable_image(tree: Path, read: Read, cache: bool) -> None:
    for path in (tree / "train" / "dog").iterdir():
        path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(DataError, match="every train image of dog is broken"):
        read(tree, cache=cache, skip_broken=True)
    for path in tree.rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match="10 of 10 images cannot be decoded"):
        read(tree, cache=cache)


def test_sizes_are_refused_before_anything_is_decoded(
    tree: Path, read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match=r"dataset\.image_size=100000 makes images of more than"):
        read(tree, image_size=100_000)
    monkeypatch.setattr("kdrun.data.decoding.decode_pass.decode_image", lambda *_: 1 / 0)
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 900})())
    with pytest.raises(DataError, match=r"10 images of 3×6×6 .*set a smaller dataset\.image_size"):
        read(tree)


def test_classes_and_form_are_known_before_decoding(
    tree: Path, read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def refuse(classes: tuple[str, ...], form: object) -> None:
        seen.append((classes, form))
        raise ConfigError("does not fit")

    monkeypatch.setattr("kdrun.data.decoding.decode_pass.decode_image", lambda *_: 1 / 0)
    for cache in (True, False):
        with pytest.raises(ConfigError, match="does not fit"):
            read(tree, before_decoding=refuse, cache=cache)
    assert seen[0][0] == ("cat", "dog")
    assert str(seen[0][1]) == "Form(size=(6, 6), channels=3)"
