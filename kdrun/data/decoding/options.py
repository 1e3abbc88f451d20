"""Settings that all sources of image files share."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from kdrun.data.class_order import NATURAL
from kdrun.data.decoding.image import LARGEST_PIXELS, Form
from kdrun.data.decoding.rules import WHITE, Range, parse_background, parse_value_range
from kdrun.data.images import RawDataset
from kdrun.data.measure import Progress
from kdrun.data.splits import TEST_FRACTION, check_test_fraction
from kdrun.errors import ConfigError

BeforeDecoding = Callable[[tuple[str, ...], Form], None]
Source = Callable[..., RawDataset]


@dataclass(frozen=True)
class ReadOptions:
    """How a source reads its image files. Each field is a key of `dataset`.

    image_size: side in pixels, or [height, width]. None keeps the size that all images share; if
    sizes differ, it takes the median of the shorter sides, at most 224. Images are resized to cover
    the size and cropped at the centre.
    channels: 1 (grey) or 3 (colour). None: 1 if every file is stored as grey.
    test_fraction: share of each class held out for testing if the source has no test split.
    cache: decode once into `cache_root`. False decodes on every access, which is slow and meant for
    data larger than the disk. Without a cache, the fingerprint covers file names, sizes and the
    decoded form instead of pixels, and every call decodes all files once to find broken ones.
    follow_links: follow links that leave the data set's folder. Off by default because an untrusted
    folder could link to any file.
    background, value_range: see `parse_background` and `parse_value_range`.
    skip_broken: leave out files that cannot be decoded instead of raising DataError.
    class_order: `natural` (`class2` before `class10`), `lexicographic` (torchvision's order), a
    list of all class names, or the path of a text file that lists them.
    cache_root: folder of decoded images; None disables the cache.
    before_decoding: called with the classes and the form once all headers are read.
    """

    image_size: int | list[int] | None = None
    channels: int | None = None
    test_fraction: float = TEST_FRACTION
    cache: bool = True
    follow_links: bool = False
    background: str | int | list[int] = "white"
    value_range: str | list[float] = "auto"
    skip_broken: bool = False
    class_order: str | list[str | int] = NATURAL
    cache_root: Path | None = None
    split_seed: int = 0
    progress: Progress | None = None
    before_decoding: BeforeDecoding | None = None

    def __post_init__(self) -> None:
        check_test_fraction(self.test_fraction)
        self.read_settings()

    def read_settings(self) -> "ReadSettings":
        """The validated pixel settings. Raises ConfigError for an invalid value."""
        if self.channels not in (None, 1, 3):
            raise ConfigError(
                f"dataset.channels={self.channels} must be 1 (grey), 3 (colour) or null."
            )
        return ReadSettings(
            _parse_size(self.image_size),
            self.channels,
            parse_background(self.background),
            parse_value_range(self.value_range),
            self.skip_broken,
        )


@dataclass(frozen=True)
class ReadSettings:
    """Validated pixel settings.

    size: (height, width); None chooses it. channels: 1, 3, or None (grey if every file is grey).
    background: RGB behind transparent parts. value_range: of pixels with more than 8 bits; None
    measures it. skip_broken: leave out files that cannot be read.
    """

    size: tuple[int, int] | None = None
    channels: int | None = None
    background: tuple[int, int, int] = WHITE
    value_range: Range | None = None
    skip_broken: bool = False

    def key(self) -> dict[str, object]:
        """Part of the cache key. Omits defaults of newer settings so that old caches stay valid."""
        key: dict[str, object] = {"image_size": self.size, "channels": self.channels}
        if self.background != WHITE:
            key["background"] = self.background
        if self.value_range is not None:
            key["value_range"] = self.value_range
        if self.skip_broken:
            key["skip_broken"] = True
        return key


def takes_options(*names: str) -> Callable[[Source], Source]:
    """Let a source take fields of `ReadOptions` as its keyword arguments.

    The decorated function declares only its specific arguments and `options: ReadOptions`; its
    signature then lists both, so that argument checks, `kdrun ls` and configs see one flat set.

    names: the fields to take; none means all.
    """
    shared = [field for field in fields(ReadOptions) if not names or field.name in names]

    def decorate(source: Source) -> Source:
        signature = inspect.signature(source)
        specific = {k: p for k, p in signature.parameters.items() if k != "options"}
        added = [field for field in shared if field.name not in specific]

        @functools.wraps(source)
        def read(**kwargs: Any) -> RawDataset:
            passed = {field.name for field in added} & kwargs.keys()
            options = ReadOptions(**{name: kwargs.pop(name) for name in passed})
            return source(**kwargs, options=options)

        keyword = inspect.Parameter.KEYWORD_ONLY
        parameters = [
            inspect.Parameter(field.name, keyword, default=field.default, annotation=field.type)
            for field in added
        ]
        setattr(  # noqa: B010 - mypy does not know the attribute
            read, "__signature__", signature.replace(parameters=[*specific.values(), *parameters])
        )
        hints = {name: hint for name, hint in source.__annotations__.items() if name != "options"}
        read.__annotations__ = {**{field.name: field.type for field in added}, **hints}
        return read

    return decorate


def _parse_size(value: int | list[int] | None) -> tuple[int, int] | None:
    if value is None:
        return None
    pair = [value, value] if isinstance(value, int) else list(value)
    if len(pair) != 2 or not all(type(side) is int and side >= 1 for side in pair):
        raise ConfigError(
            f"dataset.image_size={value} must be a number of pixels, [height, width] or null."
        )
    if pair[0] * pair[1] > LARGEST_PIXELS:
        raise ConfigError(
            f"dataset.image_size={value} makes images of more than {LARGEST_PIXELS:,} pixels: set "
            "a smaller size."
        )
    return pair[0], pair[1]
