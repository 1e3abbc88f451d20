"""Recognise split names: `train`, `Testing`, `training_set`, `seg_train`, `val2017`, …"""

import os
import re
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache

SYNONYMS = {
    "train": ("train", "training", "trn", "trainval"),
    "val": ("val", "valid", "validation", "validate", "dev", "eval", "evaluation"),
    "test": ("test", "testing", "tst", "holdout"),
}
SPLIT_OF = {word: split for split, words in SYNONYMS.items() for word in words}
# Words that may accompany a split's name (unlike in `test_tube`, which is not a split).
NEUTRAL = {
    *("data", "dataset", "dir", "files", "folder", "image", "images", "img", "imgs", "jpg"),
    *("part", "photos", "pictures", "png", "seg", "set", "split"),
}
PARTS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+|[^\W\d_]+")


@dataclass(frozen=True)
class SplitName:
    """A name that contains a split. affixes: its other parts, in lower case."""

    split: str
    affixes: tuple[str, ...]

    @property
    def exact(self) -> bool:
        """Whether the name has no other parts."""
        return not self.affixes

    @property
    def plain(self) -> bool:
        """Whether all other parts are neutral words or numbers."""
        return all(part in NEUTRAL or part.isdecimal() for part in self.affixes)


def split_names(names: Collection[str]) -> dict[str, SplitName]:
    """The names among sibling folders that mean a split.

    A name with affixes counts if these are neutral (`training_set`), or if a sibling for another
    split has the same ones (`signs_train`, `signs_test`).
    """
    matches = {name: match for name in names if (match := split_name(name)) is not None}
    splits_by_affixes: dict[tuple[str, ...], set[str]] = {}
    for match in matches.values():
        splits_by_affixes.setdefault(match.affixes, set()).add(match.split)
    return {
        name: match
        for name, match in matches.items()
        if match.plain or len(splits_by_affixes[match.affixes]) > 1
    }


def split_name(name: str) -> SplitName | None:
    """Parse one name; None unless exactly one part names a split."""
    parts = [part.lower() for part in PARTS.findall(name)]
    if "".join(parts) == "holdout":
        parts = ["holdout"]
    splits: list[str] = []
    affixes: list[str] = []
    for part in parts:
        stem = part.removesuffix("set") if part not in SPLIT_OF else part
        if stem in SPLIT_OF:
            splits.append(SPLIT_OF[stem])
            affixes += ["set"] if stem != part else []
        else:
            affixes.append(part)
    return SplitName(splits[0], tuple(affixes)) if len(splits) == 1 else None


@lru_cache(maxsize=1024)  # data sets name the same few splits in every row and path
def plain_split(name: str) -> str | None:
    """The split of a name in which nothing but neutral words and numbers accompanies it."""
    match = split_name(name)
    return match.split if match is not None and match.plain else None


def split_in_file_name(path: str) -> str | None:
    """The split that the name of a file contains: `train_3.png`, `cat-test-1.png`."""
    match = split_name(os.path.splitext(os.path.basename(path))[0])
    return None if match is None else match.split
