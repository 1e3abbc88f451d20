"""Survey image files before decoding: sizes, colours, value ranges, broken files."""

import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from kdrun.data.decoding.image import PLAIN, Form, Header, in_blocks, read_header, read_levels
from kdrun.data.decoding.levels import usual_range
from kdrun.data.decoding.options import ReadSettings
from kdrun.data.decoding.rules import PixelRules, Range
from kdrun.data.measure import Progress
from kdrun.data.text import abbreviate
from kdrun.data.tree import FileList, Source, Tree
from kdrun.errors import BrokenImageError, DataError

LARGEST_MEDIAN = 224
EXAMPLES = 10
ResultT = TypeVar("ResultT")


@dataclass(frozen=True)
class Survey:
    """Result of a survey.

    broken: files whose header cannot be read. notes: one sentence each, for the user.
    """

    form: Form
    rules: PixelRules = PLAIN
    broken: tuple[BrokenImageError, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass
class _Headers:
    """Headers of all files. deep: files with more than 8 bits per channel, and their bytes."""

    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    grey: bool = True
    deep: list[tuple[Source, int]] = field(default_factory=list)
    broken: list[BrokenImageError] = field(default_factory=list)

    def add(self, header: Header, files: FileList, position: int) -> None:
        """Count the header of the file at `position` of a split."""
        self.sizes[header.size] += 1
        self.grey = self.grey and header.grey
        if header.deep:
            self.deep.append((files.paths[position], files.sizes[position]))


def survey(tree: Tree, settings: ReadSettings, progress: Progress | None) -> Survey:
    """Read the header of every file, and the pixels of those with more than 8 bits.

    Raises DataError if no file can be read.
    """
    headers = _read_headers(tree, progress)
    if not headers.sizes:
        raise broken_error(headers.broken, sum(map(len, tree.splits.values())), False)
    rules = PixelRules(settings.background, settings.value_range, settings.value_range)
    if headers.deep and settings.value_range is None:
        whole, real, broken = _ranges(headers.deep, progress)
        rules = replace(rules, whole=whole, real=real)
        headers.broken += broken
    form, notes = _form(headers, settings)
    return Survey(form, rules, tuple(headers.broken), tuple(notes))


def _read_headers(tree: Tree, progress: Progress | None) -> _Headers:
    headers = _Headers()
    done, total = 0, sum(len(files) for files in tree.splits.values())
    for files in tree.splits.values():
        start = 0
        for block in in_blocks(tolerant(read_header), files):
            for position, header in enumerate(block, start):
                if isinstance(header, BrokenImageError):
                    headers.broken.append(header)
                    continue
                headers.add(header, files, position)
            start += len(block)
            done += len(block)
            if progress is not None:
                progress("reading image sizes", done, total)
    return headers


def _ranges(
    deep: Sequence[tuple[Source, int]], progress: Progress | None
) -> tuple[Range | None, Range | None, list[BrokenImageError]]:
    """Value ranges of integer and of float images with more than 8 bits, and broken files."""
    lows: dict[bool, float] = {}
    highs: dict[bool, float] = {}
    broken: list[BrokenImageError] = []
    files = FileList([path for path, _ in deep], [], [size for _, size in deep], [])
    done = 0
    for block in in_blocks(tolerant(read_levels), files):
        for result in block:
            if isinstance(result, BrokenImageError):
                broken.append(result)
                continue
            real, low, high = result
            lows[real] = min(low, lows.get(real, low))
            highs[real] = max(high, highs.get(real, high))
        done += len(block)
        if progress is not None:
            progress("reading the range of pixel values", done, len(files))
    whole, real_range = (
        usual_range(lows[real], highs[real], real) if real in lows else None
        for real in (False, True)
    )
    return whole, real_range, broken


def _form(headers: _Headers, settings: ReadSettings) -> tuple[Form, list[str]]:
    """The form of all images, and a note if they are resized."""
    channels = settings.channels or (1 if headers.grey else 3)
    if settings.size is not None:
        return Form(settings.size, channels), []
    if len(headers.sizes) == 1:
        return Form(next(iter(headers.sizes)), channels), []
    shorter = sorted(min(size) for size, count in headers.sizes.items() for _ in range(count))
    side = min(int(statistics.median_low(shorter)), LARGEST_MEDIAN)
    note = (
        f"The images have {len(headers.sizes)} different sizes (shorter sides {shorter[0]} to "
        f"{shorter[-1]} pixels): all are resized and cropped to {side}×{side}; "
        "dataset.image_size=N sets another size."
    )
    return Form((side, side), channels), [note]


def tolerant(
    function: Callable[[Source], ResultT],
) -> Callable[[Source], ResultT | BrokenImageError]:
    """Wrap `function` to return the error of a broken image instead of raising it."""

    def call(source: Source) -> ResultT | BrokenImageError:
        try:
            return function(source)
        except BrokenImageError as error:
            return error

    return call


def broken_error(
    broken: Sequence[BrokenImageError], total: int, can_skip: bool = True
) -> DataError:
    """One error for all broken files: their number, and the first ten with reasons."""
    if len(broken) == 1 and can_skip is False:
        return broken[0]
    advice = "Replace or remove them"
    if can_skip:
        advice += ", or set dataset.skip_broken=true to continue without them"
    if len(broken) == 1:
        text = str(broken[0]).removesuffix(": replace the file or remove it.")
        advice = advice.replace("them", "it")
        return DataError(f"{text}. {advice}.")
    return DataError(
        f"{len(broken):,} of {total:,} images cannot be decoded: {format_broken(broken)}. {advice}."
    )


def format_broken(broken: Sequence[BrokenImageError]) -> str:
    """`a.png (an empty file), b.jpg (…) and 7 more`."""
    return abbreviate([f"{error.source} ({error.reason})" for error in broken], EXAMPLES)


def without(tree: Tree, broken: Sequence[str]) -> Tree:
    """The tree without the files named in `broken`.

    Raises DataError for a class of which a split loses all images.
    """
    names = set(broken)
    if not names:
        return tree
    splits = {}
    for split, files in tree.splits.items():
        readable = [row for row, path in enumerate(files.paths) if str(path) not in names]
        splits[split] = files if len(readable) == len(files) else files.select(readable)
        lost = sorted(set(files.targets) - set(splits[split].targets))
        if lost:
            classes = abbreviate([tree.classes[number] for number in lost], EXAMPLES)
            raise DataError(
                f"{tree.root}: every {split} image of {classes} is broken: replace them, or remove "
                "the class."
            )
    return replace(tree, splits=splits)
