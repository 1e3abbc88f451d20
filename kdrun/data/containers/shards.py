"""Find the container files of a data set and the split of each."""

import itertools
import os
import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from glob import glob
from pathlib import Path

from kdrun.data.class_order import natural
from kdrun.data.containers.paths import REMOTE
from kdrun.data.containers.split_columns import Names
from kdrun.data.folders.folder import is_hidden
from kdrun.data.folders.split_names import split_name
from kdrun.data.images import SPLITS
from kdrun.data.paths import leaves
from kdrun.data.text import abbreviate
from kdrun.errors import ConfigError, DataError

MOST_SHARDS = 100_000
RANGE = re.compile(r"(\d+)\.\.(\d+)(?:\.\.(\d+))?")
DIVIDES = re.compile(r".*=.*|(part|shard|chunk|batch|block)?[-_]?\d+", re.IGNORECASE).fullmatch
OF = re.compile(r"(?P<start>.*?-)(?P<number>\d{5})-of-(?P<total>\d{5})(?P<end>.*)")


@dataclass(frozen=True)
class Shards:
    """The container files of each split, and their common folder."""

    base: Path
    splits: dict[str, list[Path]]

    def described(self) -> str:
        """`train from 8 files, test from 1 file`."""
        return ", ".join(
            f"{split} from {len(files):,} file{'' if len(files) == 1 else 's'}"
            for split, files in self.splits.items()
        )

    def relative_files(self) -> list[str]:
        """Paths of all files below the common folder."""
        return [os.path.relpath(path, self.base) for path in itertools.chain(*self.splits.values())]

    def tell_splits(self, setting: str, chosen: str | bool | None, what: str) -> bool:
        """Whether the names of the files tell their splits.

        setting, chosen: the setting that reads splits from their content, and its value. what: the
        files, for messages. Raises ConfigError if both tell the splits.
        """
        if set(self.splits) == {"train"}:
            return False
        if isinstance(chosen, str):
            raise ConfigError(
                f"{setting}={chosen}: the names of the {what} already tell their splits: leave it "
                f"out, or list all {what} in dataset.train."
            )
        return True


def find_shards(
    root: Names, patterns: dict[str, Names], endings: tuple[str, ...], follow_links: bool
) -> Shards:
    """The files that `root` and the patterns of single splits match.

    root: a folder (searched recursively), a file, or patterns with `{000..009}`, `{a,b}`, `*` and
    `?`. patterns: split → patterns, relative to `root` if that is a folder. Files that `root`
    matches belong to the split in their name (`train-000.tar`) or in a folder's name; without any
    such name, all are training images.

    Raises DataError for files that are missing, lie outside the folder, or whose split is unclear;
    ConfigError if both arguments are empty.
    """
    named = {split: value for split, value in patterns.items() if value is not None}
    if root is None and not named:
        raise ConfigError("dataset.root has no value: add dataset.root=... to the command.")
    folder = Path(root).expanduser() if isinstance(root, str) else None
    base = folder if folder is not None and folder.is_dir() else None
    if named:
        splits = {
            split: _expand(value, base, endings, f"dataset.{split}")
            for split, value in named.items()
        }
        files = [path for split in splits for path in splits[split]]
        if len(set(files)) < len(files):
            raise DataError("dataset.train, dataset.val and dataset.test share files.")
    else:
        files = _expand(root, None, endings, "dataset.root")
        splits = _by_name(files, base or _common_folder(files))
        if base is not None:
            _refuse_configurations(base, splits)
    splits = {split: splits[split] for split in SPLITS if splits.get(split)}
    common = base or _common_folder(list(itertools.chain(*splits.values())))
    if not follow_links:
        _check_links(common, splits)
    for files in splits.values():
        _check_complete(files)
    return Shards(common.absolute(), splits)


def _common_folder(files: list[Path]) -> Path:
    return Path(os.path.commonpath([path.parent for path in files]))


def _expand(value: Names, base: Path | None, endings: tuple[str, ...], where: str) -> list[Path]:
    """All files that patterns match, in natural order. Raises DataError for missing files."""
    patterns = [value] if isinstance(value, str) else [str(item) for item in value or []]
    files: list[Path] = []
    missing: list[str] = []
    for pattern in patterns:
        if pattern.lower().startswith(REMOTE):
            raise DataError(
                f"{where}={pattern[:120]} is a URL, and kdrun reads local files: download the "
                f"files and set {where} to their folder."
            )
        for text in braces(pattern, where):
            path = Path(text).expanduser()
            path = base / path if base is not None else path
            matches = _matches(path, endings)
            files += matches
            if not matches:
                missing.append(str(path))
    if missing:
        count = len(missing) + len(files)
        what = "there is no" if count == 1 else f"{len(missing):,} of {count:,} files do not exist:"
        hint = _hint(Path(missing[0]), endings)
        raise DataError(f"{where}: {what} {abbreviate(missing, 3)}{hint}.")
    return sorted(dict.fromkeys(path.absolute() for path in files), key=lambda p: natural(str(p)))


def _hint(path: Path, endings: tuple[str, ...]) -> str:
    kinds = " or ".join(f"*{ending}" for ending in endings)
    return f" (a folder without {kinds})" if path.is_dir() else ""


def _matches(path: Path, endings: tuple[str, ...]) -> list[Path]:
    if path.is_dir():
        return [
            entry
            for ending in endings
            for entry in path.rglob(f"*{ending}")
            if not any(is_hidden(part) for part in entry.relative_to(path).parts)
        ]
    if path.exists():
        return [path]
    if not any(letter in str(path) for letter in "*?["):
        return []
    return [Path(match) for match in glob(str(path), recursive=True)]


def braces(pattern: str, where: str) -> Iterator[str]:
    """Expand `{000..009}` and `{a,b}` as a shell does. Raises ConfigError for too many files."""
    expanded = list(itertools.islice(_braces(pattern), MOST_SHARDS + 1))
    if len(expanded) > MOST_SHARDS:
        raise ConfigError(f"{where}={pattern} expands to more than {MOST_SHARDS:,} files.")
    yield from expanded


def _braces(pattern: str) -> Iterator[str]:
    """Expand the first `{...}`, then nested ones, then those after it."""
    start = pattern.find("{")
    end = _closing(pattern, start)
    if start < 0 or end < 0:
        yield pattern
        return
    before, inside, after = pattern[:start], pattern[start + 1 : end], pattern[end + 1 :]
    parts = _alternatives(inside)
    for part in [f"{{{inside}}}"] if parts is None else parts:  # a shell keeps `{x}` unchanged
        for middle in [part] if parts is None else _braces(part):
            yield from (before + middle + end_part for end_part in _braces(after))


def _closing(pattern: str, start: int) -> int:
    """Position of the brace that closes the one at `start`; -1 if there is none."""
    depth = 0
    for position in range(max(start, 0), len(pattern)):
        depth += {"{": 1, "}": -1}.get(pattern[position], 0)
        if depth == 0 and position > start >= 0:
            return position
    return -1


def _alternatives(inside: str) -> Iterable[str] | None:
    """Alternatives between braces: a range or comma-separated parts; None for neither."""
    if (numbers := RANGE.fullmatch(inside)) is None:
        parts, depth = [""], 0
        for letter in inside:
            depth += {"{": 1, "}": -1}.get(letter, 0)
            if letter == "," and depth == 0:
                parts.append("")
            else:
                parts[-1] += letter
        return parts if len(parts) > 1 else None
    first, last, step = numbers[1], numbers[2], int(numbers[3] or 1) or 1
    width = max(len(first), len(last)) if first.startswith("0") or last.startswith("0") else 0
    low, high = int(first), int(last)
    order = range(low, high + 1, step) if low <= high else range(low, high - 1, -step)
    return (str(number).zfill(width) for number in order)


def _by_name(files: list[Path], base: Path) -> dict[str, list[Path]]:
    """Group files by the split in their name, or else in the name of a folder below `base`."""
    splits: dict[str, list[Path]] = {}
    unclear = []
    for path in files:
        folders = path.parent.relative_to(base.absolute()).parts
        names = (path.name.split(".")[0], *reversed(folders))
        matches = (match for name in names if (match := split_name(name)) is not None)
        match = next(matches, None)
        if match is None:
            unclear.append(path)
        else:
            splits.setdefault(match.split, []).append(path)
    if not splits:
        return {"train": unclear}
    if unclear:
        raise DataError(
            f"{len(unclear):,} of {len(files):,} file names contain no split "
            f"({abbreviate([path.name for path in unclear], 3)}): set dataset.train, dataset.val "
            "and dataset.test to the files of each."
        )
    return splits


def _refuse_configurations(base: Path, splits: dict[str, list[Path]]) -> None:
    """Raise DataError if sibling folders of a root hold the same files (`small/`, `full/`).

    Published data sets keep one such folder per configuration, often of the same images. Folders
    that merely divide many files (`part-1`, `000`, `year=2020`) are no configurations.
    """
    folders: dict[tuple[str, str], set[tuple[str, ...]]] = {}
    for split, files in splits.items():
        for path in files:
            parts = path.parent.relative_to(base.absolute()).parts
            names = tuple(name for name in parts if not split_name(name) and not DIVIDES(name))
            match = OF.fullmatch(path.name)
            folders.setdefault((split, match["start"] if match else path.name), set()).add(names)
    shared = [names for names in folders.values() if len(names) > 1]
    if shared:
        places = [str(base.joinpath(*names)) for names in sorted(shared[0])]
        both = shlex.quote(f"dataset.root=[{','.join(places[:2])}]")
        raise DataError(
            f"{base} holds several data sets with files of the same names, in "
            f"{abbreviate(places, 3)}: set dataset.root to one of them, or list those to be read "
            f"as one, {both}."
        )


def _check_links(base: Path, splits: dict[str, list[Path]]) -> None:
    real = os.path.realpath(base)
    for path in itertools.chain(*splits.values()):
        target = os.path.realpath(path)
        if leaves(real, target):
            raise DataError(
                f"{path} is a link that leaves {base}, for {target}: to follow such links, "
                "set dataset.follow_links=true."
            )


def _check_complete(files: list[Path]) -> None:
    """Raise DataError if a set such as `train-00000-of-00002` is incomplete or there twice."""
    sets: dict[tuple[str, int], set[int]] = {}
    for path in files:
        if (match := OF.fullmatch(path.name)) is not None:
            key = (str(path.parent / match["start"]), int(match["total"]))
            numbers = sets.setdefault(key, set())
            if int(match["number"]) in numbers:
                raise DataError(
                    f"{path.parent} has part {match['number']} of {path.name.split('-')[0]} twice, "
                    f"one of them in {path.name}: remove the older set, or name the files to read "
                    "in dataset.train and dataset.test."
                )
            numbers.add(int(match["number"]))
    for (start, total), numbers in sets.items():
        missing = sorted(set(range(total)) - numbers) if total < MOST_SHARDS else []
        if missing:
            names = [f"{start}{number:05d}-of-{total:05d}" for number in missing[:5]]
            raise DataError(
                f"{len(missing):,} of {total:,} files are missing: {abbreviate(names, 3)}; get "
                "them, or set dataset.train and dataset.test to the files to read."
            )
