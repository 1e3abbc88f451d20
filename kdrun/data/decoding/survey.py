"""What the files of a data set are before they are decoded: sizes, colours, ranges, broken ones."""

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
from kdrun.data.tree import FileList, Source, Tree
from kdrun.errors import BrokenImageError, DataError

LARGEST_MEDIAN = 224
EXAMPLES = 10
ResultT = TypeVar("ResultT")


@dataclass(frozen=True)
class Survey:
    """What is decided from the headers of all files.

    broken: files whose header cannot be read. notes: what the user should know, one sentence each.
    """

    form: Form
    rules: PixelRules = PLAIN
    broken: tuple[BrokenImageError, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass
class _Headers:
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    grey: bool = True
    deep: list[tuple[Source, int]] = field(default_factory=list)  # and its bytes
    broken: list[BrokenImageError] = field(default_factory=list)


def survey(tree: Tree, settings: ReadSettings, progress: Progress | None) -> Survey:
    """Read the header of every file, and the pixels of those with more than 8 bits.

    Raises DataError where no file can be read.
    """
    headers = _headers(tree, progress)
    if not headers.sizes:
        raise broken_error(headers.broken, sum(map(len, tree.splits.values())), False)
    rules = PixelRules(settings.background, settings.value_range, settings.value_range)
    if headers.deep and settings.value_range is None:
        whole, real, broken = _ranges(headers.deep, progress)
        rules = replace(rules, whole=whole, real=real)
        headers.broken += broken
    form, notes = _form(headers, settings)
    return Survey(form, rules, tuple(headers.broken), tuple(notes))


def _headers(tree: Tree, progress: Progress | None) -> _Headers:
    found = _Headers()
    done, total = 0, sum(len(files) for files in tree.splits.values())
    for files in tree.splits.values():
        start = 0
        for block in in_blocks(tolerant(read_header), files):
            for position, header in enumerate(block, start):
                if isinstance(header, BrokenImageError):
                    found.broken.append(header)
                    continue
                _note_header(found, header, files, position)
            start += len(block)
            done += len(block)
            if progress is not None:
                progress("reading image sizes", done, total)
    return found


def _note_header(found: _Headers, header: Header, files: FileList, position: int) -> None:
    found.sizes[header.size] += 1
    found.grey = found.grey and header.grey
    if header.deep:
        found.deep.append((files.paths[position], files.sizes[position]))


def _ranges(
    deep: Sequence[tuple[Source, int]], progress: Progress | None
) -> tuple[Range | None, Range | None, list[BrokenImageError]]:
    """The ranges of integers and of floats over all images with more than 8 bits."""
    lows: dict[bool, float] = {}
    highs: dict[bool, float] = {}
    broken: list[BrokenImageError] = []
    files = FileList([path for path, _ in deep], [], [size for _, size in deep], [])
    done = 0
    for block in in_blocks(tolerant(read_levels), files):
        for found in block:
            if isinstance(found, BrokenImageError):
                broken.append(found)
                continue
            real, low, high = found
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
    """The form all images get, and a sentence when it is not their own size."""
    channels = settings.channels or (1 if headers.grey else 3)
    if settings.size is not None:
        return Form(settings.size, channels), []
    if len(headers.sizes) == 1:
        return Form(next(iter(headers.sizes)), channels), []
    shorter = sorted(min(size) for size, count in headers.sizes.items() for _ in range(count))
    side = min(int(statistics.median_low(shorter)), LARGEST_MEDIAN)
    note = (
        f"The images have {len(headers.sizes)} different sizes (shorter sides {shorter[0]} to "
        f"{shorter[-1]} pixels): all are resized and cut to {side}×{side}; "
        "dataset.image_size=N chooses another size."
    )
    return Form((side, side), channels), [note]


def tolerant(
    function: Callable[[Source], ResultT],
) -> Callable[[Source], ResultT | BrokenImageError]:
    """`function`, returning the error of a broken image instead of raising it."""

    def call(source: Source) -> ResultT | BrokenImageError:
        try:
            return function(source)
        except BrokenImageError as error:
            return error

    return call


def broken_error(
    broken: Sequence[BrokenImageError], total: int, can_skip: bool = True
) -> DataError:
    """One error for all broken files: the first ten with reasons, and how many there are."""
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
        f"{len(broken):,} of {total:,} images cannot be decoded: {listed(broken)}. {advice}."
    )


def listed(broken: Sequence[BrokenImageError]) -> str:
    """`a.png (an empty file), b.jpg (…) and 7 more`."""
    shown = ", ".join(f"{one.source} ({one.reason})" for one in broken[:EXAMPLES])
    more = len(broken) - EXAMPLES
    return f"{shown} and {more:,} more" if more > 0 else shown


def without(tree: Tree, broken: Sequence[str]) -> Tree:
    """The tree without the files whose names are in `broken`.

    Raises DataError for a class that a split loses with them.
    """
    names = set(broken)
    splits = {}
    for split, files in tree.splits.items():
        keep = [at for at, path in enumerate(files.paths) if str(path) not in names]
        if len(keep) == len(files):
            splits[split] = files
            continue
        kept = files.select(keep)
        lost = sorted(set(files.targets) - set(kept.targets))
        if lost:
            shown = ", ".join(tree.classes[number] for number in lost[:EXAMPLES])
            more = f" and {len(lost) - EXAMPLES} more" if len(lost) > EXAMPLES else ""
            raise DataError(
                f"{tree.root}: every {split} image of {shown}{more} is broken: replace them, or "
                "remove the class."
            )
        splits[split] = kept
    return replace(tree, splits=splits)
