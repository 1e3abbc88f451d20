"""Folder names that mean a split: `train`, `Testing`, `training_set`, `seg_train`, `val2017`, …"""

import re
from collections.abc import Collection
from dataclasses import dataclass

WORDS = {
    "train": ("train", "training", "trn", "trainval"),
    "val": ("val", "valid", "validation", "validate", "dev", "eval", "evaluation"),
    "test": ("test", "testing", "tst", "holdout"),
}
SPLIT_OF = {word: split for split, words in WORDS.items() for word in words}
# What may stand beside such a word without giving it another meaning (`test_tube` is no split).
PLAIN = {
    *("data", "dataset", "dir", "files", "folder", "image", "images", "img", "imgs", "jpg"),
    *("part", "photos", "pictures", "png", "seg", "set", "split"),
}
PARTS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+|[^\W\d_]+")


@dataclass(frozen=True)
class SplitName:
    """What a folder name says. rest: its parts beside the split's word, in lower case."""

    split: str
    rest: tuple[str, ...]

    @property
    def exact(self) -> bool:
        """Whether the name is the word alone."""
        return not self.rest

    @property
    def plain(self) -> bool:
        """Whether nothing in the name says anything else."""
        return all(part in PLAIN or part.isdecimal() for part in self.rest)


def split_names(names: Collection[str]) -> dict[str, SplitName]:
    """Those of sibling folders' names that mean a split.

    A word with other parts counts when these are plain (`training_set`), or when a sibling for
    another split has the same ones (`signs_train`, `signs_test`).
    """
    found = {name: meaning for name in names if (meaning := split_name(name)) is not None}
    splits_by_rest: dict[tuple[str, ...], set[str]] = {}
    for meaning in found.values():
        splits_by_rest.setdefault(meaning.rest, set()).add(meaning.split)
    return {
        name: meaning
        for name, meaning in found.items()
        if meaning.plain or len(splits_by_rest[meaning.rest]) > 1
    }


def split_name(name: str) -> SplitName | None:
    """What one name says by itself; None when no word, or more than one, names a split."""
    parts = [part.lower() for part in PARTS.findall(name)]
    if "".join(parts) == "holdout":
        parts = ["holdout"]
    split: list[str] = []
    rest: list[str] = []
    for part in parts:
        stem = part.removesuffix("set") if part not in SPLIT_OF else part
        if stem in SPLIT_OF:
            split.append(SPLIT_OF[stem])
            rest += ["set"] if stem != part else []
        else:
            rest.append(part)
    return SplitName(split[0], tuple(rest)) if len(split) == 1 else None
