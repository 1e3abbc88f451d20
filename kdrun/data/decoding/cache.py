"""Cache of decoded images: a folder of arrays that later runs map into memory.

`<cache_root>/<name>-<key>/` holds `train.npy` (`val.npy`, `test.npy`), uint8 `[N, C, H, W]`, the
CRC-32 of each image (`train.crc.npy`, `[N]`), and `meta.json`. The key hashes the source and the
read settings; `meta.json` holds a digest of the files, so that changed files are decoded again. One
process at a time builds the folder under a temporary name and renames it, so a folder with its
final name is complete. An interrupted decoding is resumed (`unfinished`).
"""

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from kdrun.checksums import SUMS, is_intact, seal
from kdrun.data import measure
from kdrun.data.decoding.decode_pass import DecodePass, Decoding
from kdrun.data.decoding.image import Form
from kdrun.data.decoding.rules import PixelRules
from kdrun.data.decoding.survey import without
from kdrun.data.decoding.unfinished import (
    JOURNAL,
    DecodedSplits,
    can_resume,
    decode_into,
    finish,
)
from kdrun.data.images import RawDataset, Split, StoredImages
from kdrun.data.measure import Progress
from kdrun.data.tree import Tree
from kdrun.errors import ConfigError, DataError, MachineError, TimeLimitError
from kdrun.files import UNFINISHED_NAME, make_folder, read_json, require_locks, write_json
from kdrun.removal import remove
from kdrun.types import Normalisation

SCHEMA = 3
LONGEST_NAME = 200  # bytes of the root's name in its cache folder's name; most limits are 255
OWN_FILES = rf"(train|val|test)(\.crc)?\.npy|meta\.json|{JOURNAL}|{SUMS}|{UNFINISHED_NAME}.+"
# Errors after which the same command continues with what is decoded so far.
KEEPS_UNFINISHED = (KeyboardInterrupt, TimeLimitError, MachineError)


def folder_name(tree: Tree, settings: dict[str, Any]) -> str:
    """Name of the cache folder for a tree read with `settings` (size, channels, …)."""
    place = [str(tree.root.resolve()), *([tree.origin] if tree.origin else [])]
    text = json.dumps([SCHEMA, *place, settings], sort_keys=True)
    name = re.sub(r"[^\w.-]", "_", tree.root.resolve().name) or "images"
    while len(name.encode()) > LONGEST_NAME:
        name = name[: LONGEST_NAME - len(name.encode())]
    return f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def find(folder: Path, tree: Tree) -> dict[str, Any] | None:
    """Metadata of a valid cache of the current files; None if there is none."""
    try:
        if not all(is_intact(path) for path in (folder / "meta.json", *folder.glob("*.crc.npy"))):
            return None
        meta = read_json(folder / "meta.json")
        if meta["schema"] != SCHEMA or meta["files"] != tree.state:
            return None
        for name, size in meta["bytes"].items():
            if (folder / f"{name}.npy").stat().st_size != size:
                return None
            StoredImages(folder / f"{name}.npy")  # ValueError for a damaged header
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return dict(meta)


def load(folder: Path, tree: Tree, meta: dict[str, Any]) -> RawDataset:
    """Load a cache folder that `find` validated."""
    tree = without(tree, meta["broken"])
    splits = {
        name: Split(StoredImages(folder / f"{name}.npy", files.paths), torch.tensor(files.targets))
        for name, files in tree.splits.items()
    }
    return RawDataset(
        tree.classes,
        splits["train"],
        splits.get("val"),
        splits.get("test"),
        meta["fingerprint"],
        Normalisation(tuple(meta["mean"]), tuple(meta["std"])),
        tuple(meta["notes"]),
        PixelRules.from_dict(meta["rules"]),
    )


def cached_images(root: Path, decoding: Decoding, settings: dict[str, Any]) -> RawDataset:
    """The images of a tree from the cache below `root`, decoded first if necessary.

    settings: of the reader; part of the cache's name.
    Raises DataError naming all files that cannot be decoded, and for a folder that is not writable
    or lacks space.
    """
    folder = root / folder_name(decoding.tree, settings)
    meta = find(folder, decoding.tree) or _build_once(folder, decoding)
    return load(folder, decoding.tree, meta)


def _build_once(folder: Path, decoding: Decoding) -> dict[str, Any]:
    """Decode the tree into `folder` unless another process just did; returns the metadata."""
    try:
        make_folder(folder.parent)
    except ConfigError as error:
        raise DataError(
            f"Cannot cache the decoded images: {error} (dataset.cache=false disables the cache.)"
        ) from None
    try:
        with _locked(folder, decoding.progress):
            return find(folder, decoding.tree) or _build(folder, decoding)
    except OSError as error:
        fix = "free some space" if error.errno == errno.ENOSPC else "check its permissions"
        raise DataError(
            f"Cannot cache the decoded images in {folder} ({error.strerror}): {fix}, set "
            "output_root=... to another disk, or dataset.cache=false to disable the cache."
        ) from None


@contextmanager
def _locked(folder: Path, progress: Progress | None) -> Iterator[None]:
    """Hold the lock of a cache folder; reports if another process has it."""
    lock = FileLock(folder.with_name(f".{folder.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if progress is not None:
            progress("waiting: another run decodes these images", 0, 1)
        require_locks(folder.with_name(f".{folder.name}.lock"))
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _build(folder: Path, decoding: Decoding) -> dict[str, Any]:
    unfinished = folder.with_name(f".{folder.name}.tmp")
    outdated = folder.with_name(f".{folder.name}.old")
    _retire(outdated, folder)  # left by a killed run; this process holds the lock
    if not can_resume(unfinished, decoding.tree):
        if not remove(unfinished, like=OWN_FILES, folder_too=True):
            unfinished = _free_name(unfinished)
        unfinished.mkdir()
    try:
        _fill(unfinished, decoding)
        if folder.exists():
            outdated = _free_name(outdated)
            folder.rename(outdated)
        unfinished.rename(folder)
        _retire(outdated, folder)
    except BaseException as error:
        if not isinstance(error, KEEPS_UNFINISHED):
            remove(unfinished, like=OWN_FILES, folder_too=True)
        elif (unfinished / JOURNAL).is_file():
            error.add_note("The decoded images are kept: the same command decodes the others.")
        raise
    return dict(read_json(folder / "meta.json"))


def _fill(unfinished: Path, decoding: Decoding) -> None:
    """Decode the tree into `unfinished`, or continue an interrupted decoding there."""
    tree = decoding.tree

    def work(decode_pass: DecodePass) -> DecodedSplits:
        _require_space(unfinished, tree, decode_pass.form)
        return decode_into(unfinished, tree, decode_pass)

    decode_pass, decoded, notes = decoding.run(work)
    splits = decoded.splits
    normalisation = decoded.moments.normalisation()
    meta = {
        "schema": SCHEMA,
        "files": tree.state,
        "fingerprint": decoded.fingerprint
        or measure.fingerprint(list(splits.values()), decoding.progress),
        "classes": list(tree.classes),
        "shape": [decode_pass.form.channels, *decode_pass.form.size],
        "counts": {name: len(split) for name, split in splits.items()},
        "bytes": {name: (unfinished / f"{name}.npy").stat().st_size for name in splits},
        "mean": normalisation.mean,
        "std": normalisation.std,
        "notes": notes,
        "broken": decode_pass.broken_names,
        "rules": decode_pass.rules.to_dict(),
    }
    write_json(unfinished / "meta.json", meta)
    seal(unfinished, ["meta.json", *(f"{name}.crc.npy" for name in splits)])
    finish(unfinished)


def _free_name(path: Path) -> Path:
    """`path`, or a numbered variant if files that kdrun did not write occupy it."""
    candidates = [path, *(path.with_name(f"{path.name}-{number}") for number in range(1, 100))]
    return next((name for name in candidates if not os.path.lexists(name)), path)


def _retire(outdated: Path, folder: Path) -> None:
    """Delete an outdated cache; files that kdrun did not write move to the new one, `folder`."""
    if outdated.is_symlink() or not outdated.is_dir():
        return
    if remove(outdated, like=OWN_FILES, folder_too=True) or not folder.exists():
        return  # a run was killed before the final rename; the next decoding moves them
    for entry in sorted(outdated.iterdir()):
        if not os.path.lexists(folder / entry.name):
            entry.rename(folder / entry.name)
    remove(outdated, folder_too=True)


def _require_space(folder: Path, tree: Tree, form: Form) -> None:
    """Raise DataError if the decoded images exceed the free disk space."""
    count = sum(len(files) for files in tree.splits.values())
    height, width = form.size
    needed, free = count * form.nbytes, shutil.disk_usage(folder).free
    written = sum(path.stat().st_size for path in folder.glob("*.npy"))
    if needed > free + written:
        raise DataError(
            f"{count:,} images of {form.channels}×{height}×{width} take {needed / 2**30:,.1f} GiB "
            f"decoded, and {folder.parent} has {free / 2**30:,.1f} GiB free: set a smaller "
            "dataset.image_size, output_root=... to another disk, or dataset.cache=false."
        )
