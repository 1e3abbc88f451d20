"""One decoding pass over all files of a data set; counts conversions and broken files."""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np

from kdrun.data.decoding.conversions import conversion_notes
from kdrun.data.decoding.image import Decoded, decode_image, in_blocks
from kdrun.data.decoding.survey import Survey, broken_error, format_broken, tolerant, without
from kdrun.data.measure import Progress
from kdrun.data.tree import FileList, Source, Tree
from kdrun.errors import BrokenImageError

ResultT = TypeVar("ResultT")


class DecodePass:
    """Decodes the splits of a tree in turn.

    kinds: number of images per kind of conversion. broken: files that could not be decoded.
    """

    def __init__(
        self,
        tree: Tree,
        plan: Survey,
        progress: Progress | None,
        activity: str = "decoding images",
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

    def blocks(self, files: FileList) -> Iterator[tuple[np.ndarray, list[int]]]:
        """Blocks of readable images of a split, uint8 `[b, C, H, W]`, and their class numbers."""
        position = 0
        for block in in_blocks(tolerant(self._decode), files):
            images, targets = [], []
            for target, result in zip(files.targets[position:], block, strict=False):
                if isinstance(result, BrokenImageError):
                    self.broken.append(result)
                else:
                    images.append(result.pixels)
                    targets.append(target)
                    self.kinds.update(result.kinds)
            position += len(block)
            self._done += len(block)
            if self._progress is not None:
                self._progress(self._activity, self._done, self.total)
            if images:
                yield np.stack(images), targets

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

    def _decode(self, source: Source) -> Decoded:
        return decode_image(source, self.form, self.rules)


def complete_pass(
    tree: Tree,
    choose: Callable[[Tree], Survey],
    run: Callable[[DecodePass], ResultT],
    skip_broken: bool | None,
    progress: Progress | None,
    activity: str = "decoding images",
) -> tuple[DecodePass, ResultT, tuple[str, ...]]:
    """Decode a tree in the form that `choose` selects; returns (pass, result of `run`, notes).

    Broken files must not influence the form: if it changes without them, the pass is repeated.
    Raises DataError as `DecodePass.verdict` does.
    """
    plan = choose(tree)
    decoding = DecodePass(tree, plan, progress, activity)
    result = run(decoding)
    notes = decoding.verdict(skip_broken)
    if len(decoding.broken) > len(plan.broken):
        plan_without = choose(without(tree, decoding.broken_names))
        if (plan_without.form, plan_without.rules) != (plan.form, plan.rules):
            decoding = DecodePass(tree, plan_without, progress, activity)
            result = run(decoding)
            notes = decoding.verdict(skip_broken)
        plan = plan_without
    return decoding, result, (*plan.notes, *notes)
