"""Any folder of images as a data set: `train/<class>/…`, with `test/` or `val/`, or alone."""

import statistics
from pathlib import Path

import torch

from kdrun.data import cache as caches
from kdrun.data.decode import DecodedImages, Form, in_blocks, read_header
from kdrun.data.images import RawDataset, Split
from kdrun.data.measure import Progress
from kdrun.data.splits import TEST_FRACTION, check_test_fraction, hold_out_test
from kdrun.data.tree import Tree, read_tree
from kdrun.errors import ConfigError

LARGEST_MEDIAN = 224


def imagefolder(
    *,
    root: str,
    image_size: int | list[int] | None = None,
    channels: int | None = None,
    test_fraction: float = TEST_FRACTION,
    cache: bool = True,
    follow_links: bool = False,
    cache_root: Path,
    split_seed: int = 0,
    progress: Progress | None = None,
) -> RawDataset:
    """The images below `root`; see `tree.read_tree` for the folders it understands.

    image_size: side in pixels, or [height, width]; None keeps the size that all images share, or
    else takes the median of their shorter sides, at most 224. Other sizes are resized until they
    cover it and cut at the centre.
    channels: 1 (grey) or 3 (colour); None: 1 when every file is stored as grey.
    test_fraction: share of each class held out as the test images where there is neither a
    `test/` nor a `val/` folder.
    cache: keep the decoded images below `cache_root`; false decodes them whenever they are asked
    for, which is slow and meant for data larger than the disk. Without a cache the fingerprint is
    one of the files' names and sizes, and of the form they are given.
    follow_links: also links that lead out of `root`; a folder from elsewhere could name any file.

    Raises DataError for a folder or file that cannot be used, ConfigError for a wrong setting.
    """
    check_test_fraction(test_fraction)
    tree = read_tree(Path(root).expanduser(), follow_links)
    raw = from_tree(tree, image_size, channels, cache, cache_root, progress)
    return raw if raw.test is not None else hold_out_test(raw, test_fraction, split_seed)


def from_tree(
    tree: Tree,
    image_size: int | list[int] | None,
    channels: int | None,
    cache: bool,
    cache_root: Path,
    progress: Progress | None,
) -> RawDataset:
    """The images of a tree in one form, from the cache where it holds them; see `imagefolder`."""
    size = _size(image_size)
    if channels not in (None, 1, 3):
        raise ConfigError(f"dataset.channels={channels} must be 1 (grey), 3 (colour) or null.")

    def choose() -> tuple[Form, list[str]]:
        return choose_form(tree, size, channels, progress)

    if not cache:
        return _undecoded(tree, *choose())
    settings = {"image_size": size, "channels": channels}
    folder = Path(cache_root) / caches.folder_name(tree, settings)
    meta = caches.find(folder, tree)
    if meta is None:
        meta = caches.build_once(folder, tree, choose, progress)
    return caches.load(folder, tree, meta)


def choose_form(
    tree: Tree, size: tuple[int, int] | None, channels: int | None, progress: Progress | None
) -> tuple[Form, list[str]]:
    """The form all images get, and a sentence when it is not their own size.

    Reads the header of every file when size or channels are left open.
    """
    if size is not None and channels is not None:
        return Form(size, channels), []
    sizes: dict[tuple[int, int], int] = {}
    grey = True
    done, total = 0, sum(len(files) for files in tree.splits.values())
    for files in tree.splits.values():
        for block in in_blocks(read_header, files):
            for header in block:
                sizes[header.size] = sizes.get(header.size, 0) + 1
                grey = grey and header.grey
            done += len(block)
            if progress is not None:
                progress("reading image sizes", done, total)
    channels = channels or (1 if grey else 3)
    if size is not None:
        return Form(size, channels), []
    if len(sizes) == 1:
        return Form(next(iter(sizes)), channels), []
    shorter = [min(shape) for shape, count in sizes.items() for _ in range(count)]
    side = min(int(statistics.median_low(shorter)), LARGEST_MEDIAN)
    note = (
        f"The images have {len(sizes)} different sizes (shorter sides {min(shorter)} to "
        f"{max(shorter)} pixels): all are resized and cut to {side}×{side}; "
        "dataset.image_size=N chooses another size."
    )
    return Form((side, side), channels), [note]


def _size(value: int | list[int] | None) -> tuple[int, int] | None:
    if value is None:
        return None
    pair = [value, value] if isinstance(value, int) else list(value)
    if len(pair) != 2 or not all(isinstance(side, int) and side >= 1 for side in pair):
        raise ConfigError(
            f"dataset.image_size={value} must be a number of pixels, [height, width] or null."
        )
    return pair[0], pair[1]


def _undecoded(tree: Tree, form: Form, notes: list[str]) -> RawDataset:
    found = {
        name: Split(DecodedImages(files.paths, form), torch.tensor(files.targets))
        for name, files in tree.splits.items()
    }
    return RawDataset(
        tree.classes,
        found["train"],
        found.get("val"),
        found.get("test"),
        fingerprint=tree.digest(times=False, form=repr(form)),
        notes=tuple(notes),
    )
