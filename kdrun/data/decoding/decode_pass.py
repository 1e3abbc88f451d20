"""One decoding pass over all files of a data set; counts conversions and broken files."""

import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from kdrun.data.decoding.conversions import conversion_notes
from kdrun.data.decoding.image import Decoded, decode_image, in_blocks
from kdrun.data.decoding.survey import Survey, broken_error, format_broken, tolerant, without
from kdrun.data.measure import Progress
from kdrun.data.tree import FileList, Source, Tree
from kdrun.errors import BrokenImageError

ResultT = TypeVar("ResultT")


@dataclass
class DecodedBlock:
    """Consecutive files of a split.

    files: their number. images: the readable ones, uint8 `[b, C, H, W]`; None if there are none.
    targets: `[b]` class numbers. sums: `[b]` CRC-32 of each image. kinds: number of images per kind
    of conversion.
    """

    files: int
    images: np.ndarray | None = None
    targets: list[int] = field(default_factory=list)
    sums: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint32))
    kinds: Counter[str] = field(default_factory=Counter)
    broken: list[BrokenImageError] = field(default_factory=list)


class DecodePass:
    """Decodes the splits of a tree in turn.

    kinds: number of images per kind of conversion. broken: files that could not be decoded.
    """

    def __init__(
        self,
        tree: Tree,
        plan: Survey,
        progress: Progress | None,
        activity: str,
    ) -> None:
        self.tree = tree
        self.form = plan.form
        self.rules = plan.rules
        self.kinds: Counter[str] = Counter()
        self.broken: list[BrokenImageError] = []
        self.total = sum(len(files) for files in tree.splits.values())
        self._progress = progress
        self._activity = activity
        self._done = 0

    def blocks(self, files: FileList, position: int = 0) -> Iterator[DecodedBlock]:
        """The images of a split from `position` on, one block at a time."""
        length = self.form.block
        for results in in_blocks(tolerant(self._decode), files, length, first=position):
            images, sums = [], []
            targets = files.targets[position : position + len(results)]
            block = DecodedBlock(len(results))
            for target, result in zip(targets, results, strict=True):
                if isinstance(result, BrokenImageError):
                    block.broken.append(result)
                    continue
                decoded, checksum = result
                images.append(decoded.pixels)
                sums.append(checksum)
                block.targets.append(target)
                block.kinds.update(decoded.kinds)
            block.sums = np.array(sums, np.uint32)
            if images:
                block.images = np.stack(images)
            position += len(results)
            self.count(block)
            yield block

    def count(self, block: DecodedBlock) -> None:
        """Add the conversions and broken files of a block, decoded now or by an earlier run."""
        self.broken += block.broken
        self.kinds.update(block.kinds)
        self._done += block.files
        if self._progress is not None:
            self._progress(self._activity, self._done, self.total)

    def verdict(self, skip_broken: bool | None) -> list[str]:
        """Notes on skipped files and conversions, after the pass.

        skip_broken: None if the caller has no such setting. Raises DataError for broken files
        unless they are skipped, and for a class that loses all its images.
        """
        if self.broken and not skip_broken:
            raise broken_error(self.broken, self.total, can_skip=skip_broken is not None)
        notes = conversion_notes(self.kinds, self.total - len(self.broken), self.rules)
        if self.broken:
            without(self.tree, self.broken_names)
            skipped = (
                f"{len(self.broken):,} of {self.total:,} images cannot be decoded and are left out "
                f"(dataset.skip_broken=true): {format_broken(self.broken)}."
            )
            notes.insert(0, skipped)
        return notes

    @property
    def broken_names(self) -> list[str]:
        """`str(source)` of each broken file."""
        return [error.source for error in self.broken]

    def _decode(self, source: Source) -> tuple[Decoded, int]:
        decoded = decode_image(source, self.form, self.rules)
        return decoded, zlib.crc32(decoded.pixels.data)


@dataclass(frozen=True)
class Decoding:
    """All that determines how a tree is decoded.

    choose: maps the headers of a tree to the form of its images. skip_broken: leave out files that
    cannot be decoded; None if the caller has no such setting.
    """

    tree: Tree
    choose: Callable[[Tree], Survey]
    progress: Progress | None
    skip_broken: bool | None

    def run(
        self, work: Callable[[DecodePass], ResultT], activity: str = "decoding images"
    ) -> tuple[DecodePass, ResultT, tuple[str, ...]]:
        """Do `work` in the form that `choose` selects; returns (pass, result of `work`, notes).

        Broken files must not influence the form: if it changes without them, the work is repeated.
        Raises DataError as `DecodePass.verdict` does.
        """
        plan = self.choose(self.tree)
        decoded, result, notes = self._run_once(work, plan, activity)
        if len(decoded.broken) > len(plan.broken):
            plan_without = self.choose(without(self.tree, decoded.broken_names))
            if (plan_without.form, plan_without.rules) != (plan.form, plan.rules):
                decoded, result, notes = self._run_once(work, plan_without, activity)
            plan = plan_without
        return decoded, result, (*plan.notes, *notes)

    def _run_once(
        self, work: Callable[[DecodePass], ResultT], plan: Survey, activity: str
    ) -> tuple[DecodePass, ResultT, list[str]]:
        decoded = DecodePass(self.tree, plan, self.progress, activity)
        result = work(decoded)
        return decoded, result, decoded.verdict(self.skip_broken)
