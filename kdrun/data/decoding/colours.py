"""Convert any 8-bit Pillow image to grey or RGB, as an image viewer shows it.

Beyond `Image.convert`, this composites transparent parts over a background and converts embedded
ICC profiles and unusual PNG gammas to sRGB.
"""

import math
from functools import lru_cache
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image, ImageCms

from kdrun.data.decoding import rules as kind
from kdrun.data.decoding.levels import deep_colour_mode
from kdrun.data.decoding.rules import SPACES, PixelRules

GREY_MODES = {"1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N", "F"}
SRGB_GAMMA = 1 / 2.2
LIKE_SRGB = 2  # levels; a profile that changes colours by at most this counts as sRGB


def is_grey(image: Image.Image) -> bool:
    """Whether an image is stored as grey, or its palette holds only greys."""
    if image.mode in ("P", "PA"):
        palette = np.array(image.getpalette("RGB") or [0, 0, 0]).reshape(-1, 3)
        return bool((palette == palette[:, :1]).all())
    return image.mode in GREY_MODES or (deep_colour_mode(image) or "").startswith("LA")


def flatten(image: Image.Image, channels: int, rules: PixelRules, kinds: set[str]) -> Image.Image:
    """Convert an 8-bit image of any mode to `L` (1 channel) or `RGB` (3); adds to `kinds`.

    Order: undo premultiplied alpha, expand the palette, convert to sRGB, composite transparency.
    """
    mode = "L" if channels == 1 else "RGB"
    grey = is_grey(image)
    profile, gamma = image.info.get("icc_profile"), _unusual_gamma(image)
    if image.mode in ("P", "PA"):
        kinds.add(kind.PALETTE)
    elif image.mode in SPACES:
        kinds.add(image.mode)
    if image.mode in ("La", "RGBa"):
        image = image.convert("LA" if image.mode == "La" else "RGBA")
    alpha = None
    if image.has_transparency_data:
        image = image.convert("RGBA")
        alpha = image.getchannel("A")
        image = image.convert("RGB")
    if image.mode == "LAB":
        image = _from_lab(image)
    elif profile:
        image = _from_profile(image, profile, grey, kinds)
    elif gamma is not None:
        kinds.add(kind.GAMMA)
        image = image.convert("L" if image.mode in ("1", "L") else "RGB")
        image = image.point(_gamma_table(gamma) * len(image.getbands()))
    if alpha is not None and np.asarray(alpha).min() < 255:
        kinds.add(kind.TRANSPARENT)
        base = Image.new("RGBA", image.size, (*rules.background, 255))
        image = image.convert("RGB")
        image.putalpha(alpha)
        image = Image.alpha_composite(base, image).convert("RGB")
    if grey != (channels == 1):
        kinds.add(kind.TO_COLOUR if grey else kind.TO_GREY)
    if image.mode == "HSV":
        image = image.convert("RGB")
    return image if image.mode == mode else image.convert(mode)


def _unusual_gamma(image: Image.Image) -> float | None:
    """Exponent that converts a PNG to sRGB; None unless its gamma differs from sRGB."""
    gamma = image.info.get("gamma")
    if not isinstance(gamma, float) or gamma <= 0 or "srgb" in image.info:
        return None
    exponent = SRGB_GAMMA / gamma
    return exponent if abs(exponent - 1) > 0.05 else None  # libpng's own threshold


@lru_cache(maxsize=16)
def _gamma_table(exponent: float) -> list[int]:
    return [math.floor(255 * (level / 255) ** exponent + 0.5) for level in range(256)]


def _from_profile(image: Image.Image, profile: bytes, grey: bool, kinds: set[str]) -> Image.Image:
    """The image in sRGB; unchanged if the profile is sRGB, damaged or of another colour space."""
    mode = "CMYK" if image.mode == "CMYK" else "L" if image.mode in ("1", "L") else "RGB"
    if grey and image.mode == "RGB" and profile_space(profile) == "GRAY":
        mode, image = "L", image.convert("L")  # grey with alpha, expanded for compositing
    transform = _transform(profile, mode)
    if transform is None:
        kinds.add(kind.BAD_PROFILE)
        return image
    if transform == "same":
        return image
    kinds.add(kind.PROFILE)
    if isinstance(transform, list):
        return image.convert("L").point(transform)
    converted = ImageCms.applyTransform(
        image if mode == "CMYK" else image.convert("RGB"), transform
    )
    assert converted is not None
    return converted


def profile_space(profile: bytes) -> str:
    """Device colour space of an ICC profile, e.g. `RGB`; empty if the profile is too short."""
    return profile[16:20].decode("latin-1").strip() if len(profile) >= 128 else ""


@lru_cache(maxsize=16)
def _transform(profile: bytes, mode: str) -> Any:
    """An ImageCms transform to sRGB, or a table of 256 levels for L.

    "same" for a profile that is sRGB, None for an unusable one.
    """
    if profile_space(profile) != {"L": "GRAY"}.get(mode, mode):
        return None
    try:
        source = ImageCms.ImageCmsProfile(BytesIO(profile))
        transform = ImageCms.buildTransform(source, srgb(), mode, "RGB")
        if mode == "CMYK":
            return transform
        probe = _probe(mode)
        after = np.asarray(ImageCms.applyTransform(probe, transform)).astype(int)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None
    before = np.asarray(probe.convert("RGB")).astype(int)
    if np.abs(after - before).max() <= LIKE_SRGB:
        return "same"
    return after[0, :, 1].tolist() if mode == "L" else transform


def _probe(mode: str) -> Image.Image:
    """All grey levels, or a grid over the RGB cube, as an image of one row."""
    if mode == "L":
        return Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    steps = np.linspace(0, 255, 9).round().astype(np.uint8)
    cube = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(1, -1, 3)
    return Image.fromarray(cube)


@lru_cache(maxsize=1)
def srgb() -> Any:
    """The sRGB profile."""
    return ImageCms.createProfile("sRGB")


def _from_lab(image: Image.Image) -> Image.Image:
    lab = ImageCms.createProfile("LAB")
    converted = ImageCms.profileToProfile(image, lab, srgb(), outputMode="RGB")
    assert converted is not None
    return converted
