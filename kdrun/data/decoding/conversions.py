"""Notes about pixel conversions during decoding: one sentence per kind, with counts."""

from collections import Counter

from kdrun.data.decoding import rules as kind
from kdrun.data.decoding.rules import PixelRules, Range


def conversion_notes(kinds: Counter[str], total: int, rules: PixelRules) -> list[str]:
    """One note per kind of conversion: how many of `total` images, and what was done."""
    texts = _texts(rules)
    return [f"{kinds[name]:,} of {total:,} images: {texts[name]}." for name in texts if kinds[name]]


def changes_pixels(kinds: Counter[str]) -> bool:
    """Whether any image needed more than Pillow's own conversion to grey or RGB."""
    return any(
        kinds[name] for name in (kind.DEEP, kind.REAL, kind.TRANSPARENT, kind.PROFILE, kind.GAMMA)
    )


def _texts(rules: PixelRules) -> dict[str, str]:
    """Kind → what was done, in reporting order."""
    setting = "dataset.value_range=[low,high] sets another range"
    bits = 16 if rules.whole is None or (rules.whole[0] >= 0 and rules.whole[1] <= 65535) else 32
    return {
        kind.DEEP: f"{bits}-bit pixels scaled from {_span(rules.whole)} to 0…255 ({setting})",
        kind.REAL: f"floating-point pixels scaled from {_span(rules.real)} to 0…255 ({setting})",
        kind.CLIPPED: "pixel values outside that range clipped to it",
        kind.TRANSPARENT: (
            f"transparent parts filled with {colour_name(rules.background)} "
            "(dataset.background=COLOUR sets another colour)"
        ),
        kind.PALETTE: "palette colours expanded",
        "CMYK": "CMYK converted to RGB",
        "LAB": "CIELAB converted to RGB",
        "HSV": "HSV converted to RGB",
        "YCbCr": "YCbCr converted to RGB",
        kind.PROFILE: "colours converted from the embedded ICC profile to sRGB",
        kind.BAD_PROFILE: "embedded ICC profile ignored (damaged, or of another colour space)",
        kind.GAMMA: "converted from the PNG's gamma to sRGB",
        kind.TURNED: "rotated or mirrored by their EXIF orientation",
        kind.FRAMES: "only the first frame or page is read",
        kind.TO_COLOUR: "grey, expanded to three channels (dataset.channels=1 makes all grey)",
        kind.TO_GREY: "colour, converted to grey (dataset.channels=3 keeps colour)",
    }


def _span(value_range: Range | None) -> str:
    if value_range is None:
        return "the range of each image"
    return (
        f"{value_range[0]:g}…{value_range[1]:g}"
        if max(map(abs, value_range)) < 1e6
        else f"{value_range[0]:.0f}…{value_range[1]:.0f}"
    )


def colour_name(colour: tuple[int, int, int]) -> str:
    """`white`, `black`, or `[red, green, blue]`."""
    named = {(255, 255, 255): "white", (0, 0, 0): "black"}
    return named.get(colour, str(list(colour)))
