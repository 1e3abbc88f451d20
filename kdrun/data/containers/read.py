"""The last steps that tables and containers share: from listed images to a data set."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kdrun.data.decoding.survey import ReadSettings
from kdrun.data.imagefolder import BeforeDecoding, from_tree
from kdrun.data.images import RawDataset
from kdrun.data.measure import Progress
from kdrun.data.splits import check_test_fraction, hold_out_test
from kdrun.data.tree import Tree


@dataclass(frozen=True)
class Reading:
    """How listed images are read; the arguments of `imagefolder`, those of files in `files`."""

    files: ReadSettings
    test_fraction: float
    split_seed: int
    cache: bool
    cache_root: Path
    progress: Progress | None = None
    before_decoding: BeforeDecoding | None = None

    def __post_init__(self) -> None:
        check_test_fraction(self.test_fraction)


def read_listed(tree: Tree, notes: Sequence[str], reading: Reading) -> RawDataset:
    """The images of a tree, decoded and cached as those of an image folder.

    notes: what was decided so far; they come first. Test images are held out where there are none.
    """
    raw = from_tree(
        tree,
        reading.files,
        reading.cache,
        reading.cache_root,
        reading.progress,
        reading.before_decoding,
    )
    raw = dataclasses.replace(raw, notes=(*notes, *raw.notes))
    if raw.test is not None:
        return raw
    return hold_out_test(raw, reading.test_fraction, reading.split_seed)
