"""Every kind of conversion against pixels computed another way."""

import io
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from kdrun.data.decoding import rules as kind
from kdrun.data.decoding.image import Form, decode_image, read_header, read_levels
from kdrun.data.decoding.levels import usual_range
from kdrun.data.decoding.rules import PixelRules, parse_background, parse_value_range
from kdrun.errors import BrokenImageError, ConfigError
from tests.data.image_files import assemble, png, tiff

COLOUR, GREY = Form((4, 6), 3), Form((4, 6), 1)
Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """write(image or bytes, name, **options of Image.save): the path."""

    def call(content: Any, name: str = "x.png", **options: Any) -> str:
        path = tmp_path / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            content.save(path, **options)
        return str(path)

    return call


def values(*shape: int, high: int = 65536, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, high, shape)


def scaled(levels: np.ndarray, low: float, high: float) -> np.ndarray:
    """0..255, halves up, in exact integers."""
    share = 510 * (np.clip(levels, low, high) - low) + (high - low)
    return np.floor_divide(share, 2 * (high - low)).astype(int)


def planes(pixels: np.ndarray) -> np.ndarray:
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def over(colour: np.ndarray, alpha: np.ndarray, background: tuple[int, int, int]) -> np.ndarray:
    share = alpha[..., None] / 255
    return colour * share + np.array(background) * (1 - share)


RULES = PixelRules(whole=(0, 65535))


@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bit_png_keeps_its_levels(write: Write, channels: int) -> None:
    levels = values(4, 6, high=4096) if channels == 1 else values(4, 6, 3, high=4096)
    path = write(png(levels))
    form = GREY if channels == 1 else COLOUR
    found = decode_image(path, form, PixelRules(whole=(0, 4095)))
    assert np.array_equal(found.pixels, planes(scaled(levels, 0, 4095)))
    assert found.kinds == {kind.DEEP}
    header = read_header(path)
    assert (header.deep, header.grey) == (True, channels == 1)
    assert read_levels(path) == (False, levels.min(), levels.max())


@pytest.mark.parametrize("channels", [2, 4])
def test_sixteen_bit_png_with_alpha(write: Write, channels: int) -> None:
    levels = values(4, 6, channels)
    levels[0, :, -1] = 65535
    path = write(png(levels))
    found = decode_image(path, COLOUR, RULES)
    alpha = levels[..., -1] // 256
    colour = scaled(levels[..., :-1], 0, 65535) * np.ones(3, int)
    expected = over(colour, alpha, (255, 255, 255)).transpose(2, 0, 1)
    assert np.abs(found.pixels - expected).max() <= 1
    assert np.array_equal(found.pixels[:, 0], colour[0].T)
    assert found.kinds >= {kind.DEEP, kind.TRANSPARENT}
    assert read_header(path).grey == (channels == 2)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bit_tiff_in_both_byte_orders(write: Write, order: str, channels: int) -> None:
    levels = values(4, 6) if channels == 1 else values(4, 6, 3)
    path = write(tiff(levels, order), "x.tif")
    form = GREY if channels == 1 else COLOUR
    assert np.array_equal(decode_image(path, form, RULES).pixels, planes(scaled(levels, 0, 65535)))


@pytest.mark.parametrize("order", ["<", ">"])
def test_compressed_sixteen_bit_colour_tiff(write: Write, order: str) -> None:
    levels = values(4, 6, 3)
    path = write(tiff(levels, order, packed=True), "x.tif")
    expected = planes(scaled(levels, 0, 65535))
    assert np.array_equal(decode_image(path, COLOUR, RULES).pixels, expected)


def test_a_cut_sixteen_bit_file_is_named(write: Write) -> None:
    for content, name in ((png(values(40, 60, 3)), "x.png"), (tiff(values(40, 60, 3)), "x.tif")):
        path = write(content[: len(content) // 2], name)
        with pytest.raises(BrokenImageError, match=name):
            decode_image(path, COLOUR, RULES)
    content = tiff(values(40, 60, 3), packed=True)
    content = content[:200] + bytes(200) + content[400:]
    with pytest.raises(BrokenImageError, match=r"x\.tif"):
        decode_image(write(content, "x.tif"), COLOUR, RULES)


def test_white_is_zero_in_a_sixteen_bit_tiff(write: Write) -> None:
    levels = values(4, 6)
    path = write(tiff(levels, photometric=0), "x.tif")
    expected = planes(scaled(65535 - levels, 0, 65535))
    assert np.array_equal(decode_image(path, GREY, RULES).pixels, expected)


def test_int32_and_negative_values(write: Write) -> None:
    levels = values(4, 6, high=4096) - 1024
    path = write(Image.fromarray(levels.astype(np.int32)), "x.tif")
    found = decode_image(path, GREY, PixelRules(whole=(-1024, 3071)))
    assert np.array_equal(found.pixels[0], scaled(levels, -1024, 3071))


def test_values_outside_the_range_are_clipped_and_counted(write: Write) -> None:
    levels = np.array([[0, 100, 200, 300, 400, 500]] * 4)
    path = write(png(levels))
    found = decode_image(path, GREY, PixelRules(whole=(100, 400)))
    assert found.pixels[0, 0].tolist() == [0, 0, 85, 170, 255, 255]
    assert found.kinds == {kind.DEEP, kind.CLIPPED}


@pytest.mark.parametrize("high", [1.0, 65535.0, 0.37])
def test_float_tiff(write: Write, high: float) -> None:
    levels = (np.random.default_rng(0).random((4, 6)) * high).astype(np.float32)
    path = write(Image.fromarray(levels), "x.tif")
    found = decode_image(path, GREY, PixelRules(real=(0, high)))
    expected = np.floor(levels.astype(np.float64) * 255 / high + 0.5)
    assert np.array_equal(found.pixels[0], expected)
    assert found.kinds == {kind.REAL}


def test_float_pixels_that_are_no_numbers(write: Write) -> None:
    levels = np.full((4, 6), np.nan, np.float32)
    with pytest.raises(BrokenImageError, match=r"x\.tif .*NaN"):
        decode_image(write(Image.fromarray(levels), "x.tif"), GREY)


@pytest.mark.parametrize(
    ("low", "high", "real", "expected"),
    [
        (0, 4095, False, (0, 4095)),
        (3, 4000, False, (0, 4095)),
        (0, 65535, False, (0, 65535)),
        (7, 60000, False, (0, 65535)),
        (0, 255, False, (0, 255)),
        (0, 1, False, (0, 1)),
        (0, 300, False, (0, 300)),  # 10 bits would waste most of their range
        (900, 1400, False, (900, 1400)),
        (-1024, 3071, False, (-1024, 3071)),
        (0, 2**31 - 1, False, (0, 2**31 - 1)),
        (5, 5, False, (0, 255)),
        (-5, -5, False, (-6, -5)),
        (0.0, 1.0, True, (0, 1)),
        (0.0, 0.3, True, (0, 0.3)),
        (-0.9, 0.95, True, (-1, 1)),
        (-1, 1, False, (-1, 1)),
        (0.0, 255.0, True, (0, 255)),
        (0.0, 65000.0, True, (0, 65535)),
    ],
)
def test_the_range_that_files_use(
    low: float, high: float, real: bool, expected: tuple[float, float]
) -> None:
    assert usual_range(low, high, real) == expected


BACKGROUNDS = [(255, 255, 255), (0, 0, 0), (10, 200, 30)]


@pytest.mark.parametrize("background", BACKGROUNDS)
@pytest.mark.parametrize("ending", ["png", "webp", "tif", "tga", "ico"])
def test_alpha_is_composited(write: Write, background: tuple[int, int, int], ending: str) -> None:
    rgba = values(4, 6, 4, high=256).astype(np.uint8)
    options = {"lossless": True, "exact": True} if ending == "webp" else {}
    path = write(Image.fromarray(rgba), f"x.{ending}", **options)
    with Image.open(path) as image:
        size = image.size[::-1]
        rgba = np.asarray(image.convert("RGBA"))  # an icon has a size of its own
    found = decode_image(path, Form(size, 3), PixelRules(background))
    expected = over(rgba[..., :3], rgba[..., 3], background).transpose(2, 0, 1)
    assert np.abs(found.pixels - expected).max() <= 1
    assert kind.TRANSPARENT in found.kinds


def test_premultiplied_alpha(write: Write) -> None:
    rgba = np.full((4, 6, 4), (200, 100, 50, 255), np.uint8)
    rgba[2:] = (100, 50, 25, 128)
    path = write(tiff(rgba, premultiplied=True), "x.tif")
    found = decode_image(path, COLOUR)
    assert found.pixels[:, 0, 0].tolist() == [200, 100, 50]
    expected = np.array([100, 50, 25]) + 255 * (1 - 128 / 255)
    assert np.abs(found.pixels[:, 3, 0] - expected).max() <= 2
    assert found.kinds == {kind.TRANSPARENT}


def test_opaque_alpha_is_no_conversion(write: Write) -> None:
    rgba = values(4, 6, 4, high=256).astype(np.uint8)
    rgba[..., 3] = 255
    found = decode_image(write(Image.fromarray(rgba)), COLOUR)
    assert np.array_equal(found.pixels, planes(rgba[..., :3]))
    assert not found.kinds


def test_grey_with_alpha_stays_grey(write: Write) -> None:
    la = values(4, 6, 2, high=256).astype(np.uint8)
    path = write(Image.fromarray(la, "LA"))
    found = decode_image(path, GREY)
    share = la[..., 1] / 255
    assert np.abs(found.pixels[0] - (la[..., 0] * share + 255 * (1 - share))).max() <= 1
    assert found.kinds == {kind.TRANSPARENT}


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_a_transparent_grey_level(write: Write, bits: int) -> None:
    top = 2**bits - 1
    levels = np.array([[0, top] * 3] * 4)
    packed = "".join(f"{level:0{bits}b}" for level in levels[0])
    packed = packed.ljust(-(-len(packed) // 8) * 8, "0")
    row = b"\0" + int(packed, 2).to_bytes(len(packed) // 8, "big")
    content = assemble(6, 4, bits, 0, row * 4, (b"tRNS", struct.pack(">H", top)))
    found = decode_image(write(content), GREY, PixelRules((90, 90, 90), (0, 65535)))
    assert found.pixels[0, 0].tolist() == [0, 90] * 3
    assert kind.TRANSPARENT in found.kinds


@pytest.mark.parametrize("bits", [8, 16])
def test_a_transparent_colour(write: Write, bits: int) -> None:
    factor = 257 if bits == 16 else 1
    colour = values(4, 6, 3, high=256)
    clear = tuple(int(level) * factor for level in colour[1, 2])
    content = png(colour * factor, bits, (b"tRNS", struct.pack(">HHH", *clear)))
    found = decode_image(write(content), COLOUR, PixelRules((0, 0, 0), (0, 65535)))
    expected = colour.copy()
    expected[1, 2] = 0
    assert np.array_equal(found.pixels, planes(expected))


def test_palette(write: Write) -> None:
    image = Image.fromarray(values(4, 6, high=4).astype(np.uint8), "P")
    image.putpalette([250, 0, 0, 0, 250, 0, 0, 0, 250, 9, 9, 9])
    found = decode_image(write(image), COLOUR)
    table = np.array([[250, 0, 0], [0, 250, 0], [0, 0, 250], [9, 9, 9]])
    assert np.array_equal(found.pixels, planes(table[np.asarray(image)]))
    assert found.kinds == {kind.PALETTE}


def test_one_bit(write: Write) -> None:
    bits = values(4, 6, high=2)
    found = decode_image(write(Image.fromarray(bits.astype(bool))), GREY)
    assert np.array_equal(found.pixels[0], bits * 255)


def test_cmyk_jpeg_of_an_adobe_program(write: Write) -> None:
    """Adobe stores ink inverted; a viewer shows (255 - ink) · (255 - black) / 255."""
    ink = np.full((4, 6, 4), (200, 30, 90, 40), np.uint8)
    path = write(Image.fromarray(ink, "CMYK"), "x.jpg", quality=100)
    assert b"Adobe" in Path(path).read_bytes()
    found = decode_image(path, COLOUR)
    expected = (255 - ink[0, 0, :3].astype(int)) * (255 - 40) / 255
    assert np.abs(found.pixels[:, 2, 2] - expected).max() <= 3
    assert found.kinds == {"CMYK"}


def test_lab_and_ycbcr_tiff(write: Write) -> None:
    rgb = Image.fromarray(np.full((4, 6, 3), (180, 60, 30), np.uint8))
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    image = ImageCms.profileToProfile(rgb, srgb, lab, outputMode="LAB")
    found = decode_image(write(image, "lab.tif"), COLOUR)
    assert np.abs(found.pixels[:, 1, 1].astype(int) - [180, 60, 30]).max() <= 3
    assert found.kinds == {"LAB"}
    found = decode_image(write(rgb.convert("YCbCr"), "y.tif"), COLOUR)
    assert np.abs(found.pixels[:, 1, 1].astype(int) - [180, 60, 30]).max() <= 2


def rgb_profile(gamma: float, primaries: list[tuple[float, float, float]]) -> bytes:
    """An ICC v2 matrix profile, from a curve and the XYZ of its primaries."""

    def fixed(value: float) -> bytes:
        return struct.pack(">i", round(value * 65536))

    def xyz(triple: tuple[float, float, float]) -> bytes:
        return b"XYZ \0\0\0\0" + b"".join(map(fixed, triple))

    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    name = b"desc\0\0\0\0" + struct.pack(">I", 2) + b"x\0" + bytes(78)
    tags = {b"desc": name + b"\0" * (-len(name) % 4), b"wtpt": xyz((0.9642, 1, 0.8249))}
    tags |= {
        key: xyz(value) for key, value in zip((b"rXYZ", b"gXYZ", b"bXYZ"), primaries, strict=True)
    }
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    return _profile(b"RGB ", tags)


def grey_profile(gamma: float) -> bytes:
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    white = b"XYZ \0\0\0\0" + struct.pack(">iii", 63190, 65536, 54061)
    return _profile(b"GRAY", {b"wtpt": white, b"kTRC": curve})


def _profile(space: bytes, tags: dict[bytes, bytes]) -> bytes:
    offset = 128 + 4 + 12 * len(tags)
    table, body = struct.pack(">I", len(tags)), b""
    for name, content in tags.items():
        table += name + struct.pack(">II", offset + len(body), len(content))
        body += content
    size = offset + len(body)
    head = struct.pack(">I4sI4s4s4s", size, b"lcms", 0x02400000, b"mntr", space, b"XYZ ")
    head += bytes(12) + b"acsp" + bytes(28) + struct.pack(">iii", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + table + body


ADOBE = rgb_profile(
    2.2, [(0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457)]
)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_colours_of_a_profile_become_srgb(write: Write, mode: str) -> None:
    rgb = np.full((4, 6, 3), (90, 180, 60), np.uint8)
    image = Image.fromarray(rgb)
    image = image.quantize(4) if mode == "P" else image.convert(mode)
    found = decode_image(write(image, icc_profile=ADOBE), COLOUR)
    linear = (np.array([90, 180, 60]) / 255) ** (563 / 256)
    to_xyz = np.array(
        [[0.60974, 0.20528, 0.14919], [0.31111, 0.62567, 0.06322], [0.01947, 0.06087, 0.74457]]
    )
    srgb = np.array(
        [[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.7141]]
    )
    light = np.clip(np.linalg.solve(srgb, to_xyz @ linear), 0, 1)
    expected = 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    assert np.abs(found.pixels[:, 1, 1] - expected).max() <= 2
    assert kind.PROFILE in found.kinds


def test_a_profile_as_image_cms_converts_it(write: Write) -> None:
    image = Image.fromarray(values(4, 6, 3, high=256).astype(np.uint8))
    found = decode_image(write(image, icc_profile=ADOBE), COLOUR)
    source = ImageCms.ImageCmsProfile(io.BytesIO(ADOBE))
    expected = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"))
    assert np.array_equal(found.pixels, planes(np.asarray(expected)))


def test_an_srgb_profile_changes_nothing(write: Write) -> None:
    image = Image.fromarray(values(4, 6, 3, high=256).astype(np.uint8))
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    found = decode_image(write(image, icc_profile=profile), COLOUR)
    assert np.array_equal(found.pixels, planes(np.asarray(image)))
    assert not found.kinds


def test_a_grey_profile(write: Write) -> None:
    levels = np.array([[0, 20, 80, 128, 200, 255]] * 4, np.uint8)
    path = write(Image.fromarray(levels), icc_profile=grey_profile(1.0))
    found = decode_image(path, GREY)
    light = levels[0] / 255
    expected = 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    assert np.abs(found.pixels[0, 0] - expected).max() <= 1
    assert found.kinds == {kind.PROFILE}
    la = np.stack([levels, np.full_like(levels, 255)], -1)
    path = write(Image.fromarray(la, "LA"), icc_profile=grey_profile(1.0))
    assert np.array_equal(decode_image(path, GREY).pixels, found.pixels)


@pytest.mark.parametrize("profile", [b"nonsense", ADOBE[:200], grey_profile(1.0)])
def test_a_profile_of_no_use_is_ignored_and_counted(write: Write, profile: bytes) -> None:
    image = Image.fromarray(values(4, 6, 3, high=256).astype(np.uint8))
    found = decode_image(write(image, icc_profile=profile), COLOUR)
    assert np.array_equal(found.pixels, planes(np.asarray(image)))
    assert found.kinds == {kind.BAD_PROFILE}


def test_png_gamma(write: Write) -> None:
    levels = values(4, 6, 3, high=256)
    linear = decode_image(write(png(levels, 8, (b"gAMA", struct.pack(">I", 100_000)))), COLOUR)
    expected = np.floor(255 * (levels / 255) ** (1 / 2.2) + 0.5)
    assert np.array_equal(linear.pixels, planes(expected))
    assert linear.kinds == {kind.GAMMA}
    usual = decode_image(write(png(levels, 8, (b"gAMA", struct.pack(">I", 45_455)))), COLOUR)
    assert np.array_equal(usual.pixels, planes(levels))
    assert not usual.kinds


@pytest.mark.parametrize("ending", ["png", "jpg", "tif", "webp"])
@pytest.mark.parametrize("turn", range(1, 9))
def test_orientation_in_every_direction(write: Write, ending: str, turn: int) -> None:
    levels = np.linspace(0, 250, 32).reshape(4, 8).astype(np.uint8)
    shown = {
        1: levels,
        2: levels[:, ::-1],
        3: levels[::-1, ::-1],
        4: levels[::-1],
        5: levels.T,
        6: np.rot90(levels, -1),
        7: levels[::-1, ::-1].T,
        8: np.rot90(levels),
    }[turn]
    exif = Image.Exif()
    exif[0x0112] = turn
    options = (
        {"lossless": True} if ending == "webp" else {"quality": 100} if ending == "jpg" else {}
    )
    path = write(Image.fromarray(levels), f"x.{ending}", exif=exif, **options)
    assert read_header(path).size == shown.shape
    found = decode_image(path, Form(shown.shape, 1))  # type: ignore[arg-type]
    assert np.abs(found.pixels[0].astype(int) - shown).max() <= (4 if ending == "jpg" else 1)
    assert (kind.TURNED in found.kinds) == (turn > 1)


@pytest.mark.parametrize("ending", ["gif", "webp", "png", "tif", "mpo"])
def test_the_first_frame_is_read_and_counted(write: Write, ending: str) -> None:
    first = Image.fromarray(np.full((4, 6, 3), 200, np.uint8))
    rest = [Image.fromarray(np.full((4, 6, 3), level, np.uint8)) for level in (90, 20)]
    options = {"lossless": True} if ending == "webp" else {}
    path = write(first, f"x.{ending}", save_all=True, append_images=rest, **options)
    found = decode_image(path, COLOUR)
    assert np.abs(found.pixels.astype(int) - 200).max() <= 1
    assert kind.FRAMES in found.kinds


def test_jpeg_2000_of_sixteen_bits(write: Write) -> None:
    levels = values(4, 6).astype(np.uint16)
    path = write(Image.fromarray(levels), "x.jp2")
    found = decode_image(path, GREY, RULES)
    assert np.array_equal(found.pixels[0], scaled(levels.astype(int), 0, 65535))


def test_a_jpeg_called_png_is_a_jpeg(write: Write) -> None:
    stream = io.BytesIO()
    Image.new("RGB", (6, 4), (10, 200, 30)).save(stream, "JPEG", quality=100)
    found = decode_image(write(stream.getvalue(), "x.png"), COLOUR)
    assert np.abs(found.pixels[:, 2, 2].astype(int) - [10, 200, 30]).max() <= 3


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "an empty file"),
        (b"\n<!DOCTYPE html><html><body>Not found</body></html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull"),
        (b"some words", "not an image of any known format"),
    ],
)
def test_what_is_no_image_is_recognised(write: Write, content: bytes, reason: str) -> None:
    with pytest.raises(BrokenImageError, match=reason) as caught:
        decode_image(write(content, "x.jpg"), COLOUR)
    assert caught.value.source.endswith("x.jpg")


def test_a_lack_of_file_handles_is_no_broken_image(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    from kdrun.errors import MachineError

    def refuse(_: str) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    path = write(Image.new("RGB", (6, 4)))
    monkeypatch.setattr("kdrun.data.decoding.image.open_source", refuse)
    with pytest.raises(MachineError, match="Too many open files"):
        decode_image(path, COLOUR)


@pytest.mark.parametrize(
    ("value", "colour"),
    [
        ("white", (255, 255, 255)),
        ("black", (0, 0, 0)),
        ("#0a141e", (10, 20, 30)),
        (128, (128, 128, 128)),
        ([7], (7, 7, 7)),
        ([1, 2, 3], (1, 2, 3)),
    ],
)
def test_background_colours(value: Any, colour: tuple[int, int, int]) -> None:
    assert parse_background(value) == colour


@pytest.mark.parametrize("value", ["whit", "", None, 256, -1, [1, 2], [1, 2, 300], [1.5] * 3, True])
def test_wrong_backgrounds(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"dataset\.background="):
        parse_background(value)


@pytest.mark.parametrize(
    "value", [None, "all", [1], [5, 5], [9, 1], [0, float("inf")], [0, "x"], [True, 5], 4095]
)
def test_wrong_value_ranges(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"dataset\.value_range="):
        parse_value_range(value)
    assert parse_value_range([0, 4095]) == (0, 4095)
    assert parse_value_range("auto") is None


def test_rules_survive_json() -> None:
    rules = PixelRules((1, 2, 3), (0, 4095), None)
    assert PixelRules.from_dict(rules.to_dict()) == rules
