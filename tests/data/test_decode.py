"""Formats, colour modes, sizes and damage, against pixels computed by hand."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from kdrun.data.decoding.image import DecodedImages, Form, in_blocks, read_header, read_image
from kdrun.data.tree import FileList
from kdrun.errors import DataError

Save = Callable[..., Path]
COLOUR, GREY = Form((6, 6), 3), Form((6, 6), 1)


def ramp(height: int = 6, width: int = 6) -> np.ndarray:
    return (np.arange(height * width) * 7 % 256).reshape(height, width).astype(np.uint8)


@pytest.mark.parametrize("ending", ["png", "bmp", "tiff", "ppm", "gif", "webp", "tga", "pcx"])
def test_formats_without_loss_give_their_pixels(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"x.{ending}"
    options: dict[str, Any] = {"lossless": True} if ending == "webp" else {}
    Image.fromarray(ramp()).convert("RGB" if ending != "gif" else "L").save(path, **options)
    assert np.array_equal(read_image(str(path), COLOUR), np.stack([ramp()] * 3))


def test_jpeg(tmp_path: Path) -> None:
    smooth = np.linspace(0, 255, 36).reshape(6, 6).astype(np.uint8)
    Image.fromarray(smooth).save(tmp_path / "x.jpg", quality=98)
    found = read_image(str(tmp_path / "x.jpg"), GREY)[0]
    assert np.abs(found.astype(int) - smooth).max() < 10


@pytest.mark.parametrize(
    ("mode", "grey"),
    [
        ("1", True),
        ("L", True),
        ("LA", True),
        ("RGB", False),
        ("RGBA", False),
        ("P", False),
        ("CMYK", False),
    ],
)
def test_every_mode_is_read_as_grey_and_as_colour(save: Save, mode: str, grey: bool) -> None:
    path = str(save("x.tiff", mode=mode))
    assert read_header(path).grey is grey
    colour, plain = read_image(path, COLOUR), read_image(path, GREY)
    assert (colour.shape, colour.dtype) == ((3, 6, 6), np.uint8)
    assert (plain.shape, plain.dtype) == ((1, 6, 6), np.uint8)
    if grey:
        assert np.array_equal(colour, np.concatenate([plain] * 3))


def test_transparency_is_filled_with_white(tmp_path: Path) -> None:
    pixels = np.full((6, 6, 4), 200, np.uint8)
    pixels[:3, :, 3] = 0
    pixels[3:, :, 3] = 255
    Image.fromarray(pixels).save(tmp_path / "x.png")
    found = read_image(str(tmp_path / "x.png"), COLOUR)
    assert (found[:, :3] == 255).all()
    assert (found[:, 3:] == 200).all()


def test_a_transparent_palette_colour_is_white(tmp_path: Path) -> None:
    image = Image.new("P", (6, 6), 1)
    image.putpalette([0, 0, 0, 250, 120, 10])
    image.paste(0, (0, 0, 3, 6))
    image.putpalette([90, 90, 90, 250, 120, 10])
    image.save(tmp_path / "x.png", transparency=0)
    found = read_image(str(tmp_path / "x.png"), COLOUR)
    assert (found[:, :, :3] == 255).all()
    assert found[:, 0, 4].tolist() == [250, 120, 10]


def test_a_grey_palette_counts_as_grey(tmp_path: Path) -> None:
    Image.fromarray(ramp()).convert("P").save(tmp_path / "x.png")
    assert read_header(str(tmp_path / "x.png")).grey
    assert np.array_equal(read_image(str(tmp_path / "x.png"), GREY)[0], ramp())


def test_sixteen_bit_grey_is_scaled(tmp_path: Path) -> None:
    levels = np.array([0, 128, 129, 257, 32768, 65535], np.uint16)
    for name in ("x.png", "x.tiff"):
        Image.fromarray(np.tile(levels, (6, 1))).save(tmp_path / name)
        found = read_image(str(tmp_path / name), GREY)
        assert found[0, 0].tolist() == [0, 0, 1, 1, 128, 255]
        assert read_header(str(tmp_path / name)).grey


def test_orientation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90° clockwise
    Image.fromarray(ramp(4, 8)).save(tmp_path / "x.png", exif=exif)
    path = str(tmp_path / "x.png")
    assert read_header(path).size == (8, 4)
    assert np.array_equal(read_image(path, Form((8, 4), 1))[0], np.rot90(ramp(4, 8), -1))


@pytest.mark.parametrize("size", [(12, 20), (20, 12), (3, 5), (6, 30)])
def test_other_sizes_are_covered_and_cut_at_the_centre(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    height, width = size
    rising = np.linspace(0, 240, max(size))
    pixels = np.tile(rising, (height, 1)) if width > height else np.tile(rising, (width, 1)).T
    Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "x.png")
    found = read_image(str(tmp_path / "x.png"), GREY)[0].astype(float)
    along = found.mean(0) if width > height else found.mean(1)
    assert found.shape == (6, 6)
    assert along.mean() == pytest.approx(120, abs=4)
    share = min(size) / max(size)  # the cut shows this much of the longer side
    step = (along[-1] - along[0]) / 5 * 6
    assert step == pytest.approx(240 * share, rel=0.25)


def test_a_large_jpeg_keeps_its_look(tmp_path: Path) -> None:
    smooth = np.linspace(0, 255, 400)[None].repeat(400, 0).astype(np.uint8)
    Image.fromarray(smooth).save(tmp_path / "x.jpg", quality=95)
    found = read_image(str(tmp_path / "x.jpg"), Form((20, 20), 1))[0, 10].astype(float)
    expected = smooth[0].reshape(20, 20).mean(1)
    assert np.abs(found - expected).max() < 4


def test_the_first_of_several_frames(tmp_path: Path) -> None:
    frames = [Image.fromarray(ramp() // factor) for factor in (1, 2)]
    frames[0].save(tmp_path / "x.gif", save_all=True, append_images=frames[1:])
    assert np.array_equal(read_image(str(tmp_path / "x.gif"), GREY)[0], ramp())


def test_damaged_files_are_named(tmp_path: Path) -> None:
    stream = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(stream, "PNG")
    cases = {
        "cut.png": stream.getvalue()[:4000],
        "text.jpg": b"this is no image",
        "empty.png": b"",
    }
    for name, content in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=f"{name} cannot be decoded"):
            read_image(str(tmp_path / name), COLOUR)
    with pytest.raises(DataError, match=r"text\.jpg .*not an image"):
        read_header(str(tmp_path / "text.jpg"))


def test_a_decompression_bomb_is_refused(save: Save, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(save("x.png", size=(50, 50)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(DataError, match=r"x\.png is too large"):
        read_image(path, COLOUR)


@pytest.mark.parametrize("size", [100, 100_000])
def test_blocks_keep_the_order_with_and_without_threads(size: int) -> None:
    paths = [str(number) for number in range(600)]
    files = FileList(paths, [0] * 600, [size] * 600, [0] * 600)
    blocks = list(in_blocks(int, files))
    assert [number for block in blocks for number in block] == list(range(600))


def test_decoded_images_are_read_when_asked_for(save: Save) -> None:
    paths = [str(save(f"{number}.png", seed=number)) for number in range(3)]
    lazy = DecodedImages(paths, COLOUR)
    assert lazy.shape == (3, 3, 6, 6)
    found = lazy.gather(torch.tensor([2, 0]))
    expected = np.stack([read_image(paths[2], COLOUR), read_image(paths[0], COLOUR)])
    assert np.array_equal(found.numpy(), expected)
