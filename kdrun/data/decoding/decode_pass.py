"""One pass over all files of a data set, in which conversions and broken files are counted."""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np

from kdrun.data.decoding.conversions import conversion_notes
from kdrun.data.decoding.image import Decoded, decode_image, in_blocks
from kdrun.data.decoding.survey import Survey, broken_error, listed, tolerant, without
from kdrun.data.measure import Progress
from kdrun.data.tree import FileList, Source, Tree
from kdrun.errors import BrokenImageError

ResultT = TypeVar("ResultT")


class DecodePass:
    """Decodes the splits of a tree, one after the other, and collects what the user should know.

    kinds: how many images took each kind of conversion. broken: the files that were left out.
    """

    def __init__(
        self,
        tree: Tree,
        plan: Survey,
        progress: Progress | None,
        what: str = "decoding images",
    ) -> None:
        self.tree = tree
        self.form = plan.form
        self.rules = plan.rules
        self.kinds: Counter[str] = Counter()
        self.broken: list[BrokenImageError] = []
        self.total = sum(len(files) for files in tree.splits.values())
        self._progress = progress
        self._what = what
        self._done = 0

    def blocks(self, files: FileList) -> Iterator[tuple[np.ndarray, list[int]]]:
        """The readable images of a split, uint8 `[b, C, H, W]`, and their class numbers."""
        position = 0
        for block in in_blocks(tolerant(self._decode), files):
            images, targets = [], []
            for target, found in zip(files.targets[position:], block, strict=False):
                if isinstance(found, BrokenImageError):
                    self.broken.append(found)
                else:
                    images.append(found.pixels)
                    targets.append(target)
                    self.kinds.update(found.kinds)
            position += len(block)
            self._done += len(block)
            if self._progress is not None:
                self._progress(self._what, self._done, self.total)
            if images:
                yield np.stack(images), targets

    def verdict(self, skip_broken: bool | None) -> list[str]:
        """After the pass: sentences about broken files that are left out, and conversions.

        skip_broken: None where there is no such setting. Raises DataError for broken files, unless
        they are skipped, and for a class that they leave empty.
        """
        if self.broken and not skip_broken:
            raise broken_error(self.broken, self.total, can_skip=skip_broken is not None)
        notes = conversion_notes(self.kinds, self.total - len(self.broken), self.rules)
        if self.broken:
            without(self.tree, self.broken_names)
            skipped = (
                f"{len(self.broken):,} of {self.total:,} images cannot be decoded and are left out "
                f"(dataset.skip_broken=true): {listed(self.broken)}."
            )
            notes.insert(0, skipped)
        return notes

    @property
    def broken_names(self) -> list[str]:
        """The broken files, as `str(source)`."""
        return [error.source for error in self.broken]

    def _decode(self, source: Source) -> Decoded:
        return decode_image(source, self.form, self.rules)


def complete_pass(
    tree: Tree,
    choose: Callable[[Tree], Survey],
    run: Callable[[DecodePass], ResultT],
    skip_broken: bool | None,
    progress: Progress | None,
    what: str = "decoding images",
) -> tuple[DecodePass, ResultT, tuple[str, ...]]:
    """A pass over a tree in the form that `choose` gives it: the pass, what `run` made, the notes.

    Files that turn out to be broken have no say in the form: where it would be another one without
    them, the pass is repeated. Raises DataError as `DecodePass.verdict` does.
    """
    plan = choose(tree)
    decoding = DecodePass(tree, plan, progress, what)
    result = run(decoding)
    notes = decoding.verdict(skip_broken)
    if len(decoding.broken) > len(plan.broken):
        better = choose(without(tree, decoding.broken_names))
        if (better.form, better.rules) != (plan.form, plan.rules):
            decoding = DecodePass(tree, better, progress, what)
            result = run(decoding)
            notes = decoding.verdict(skip_broken)
        plan = better
    return decoding, result, (*plan.notes, *notes)
