"""Images decoded once: a folder of arrays that later runs map into memory.

`<cache_root>/<name>-<key>/` holds `train.npy` (`val.npy`, `test.npy`), uint8 `[N, C, H, W]`, the
CRC-32 of each image beside it (`train.crc.npy`, `[N]`), and `meta.json`. The key says what was
read and how; `meta.json` says from which state of the files, so that changed files are decoded
again. The folder is built under another name and renamed, by one process at a time: a folder of
the right name is complete.
"""

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from filelock import FileLock, Timeout

from kdrun.checksums import SUMS, is_intact, seal
from kdrun.data import measure
from kdrun.data.decoding.decode_pass import DecodePass, complete_pass
from kdrun.data.decoding.image import Form
from kdrun.data.decoding.rules import PixelRules
from kdrun.data.decoding.survey import Survey, without
from kdrun.data.images import MappedImages, RawDataset, Split, checksums, sums_file
from kdrun.data.measure import Progress
from kdrun.data.tree import Tree
from kdrun.errors import ConfigError, DataError
from kdrun.files import UNFINISHED_NAME, make_folder, read_json, require_locks, write_json
from kdrun.removal import remove
from kdrun.types import Normalisation

SCHEMA = 3
LONGEST_NAME = 200  # bytes of a root's name in the name of its cache folder
OWN_FILES = rf"(train|val|test)(\.crc)?\.npy|meta\.json|{SUMS}|{UNFINISHED_NAME}.+"
Choose = Callable[[Tree], Survey]


def folder_name(tree: Tree, settings: dict[str, Any]) -> str:
    """The cache folder's name for a tree read with `settings` (size, channels)."""
    place = [str(tree.root.resolve()), *([tree.origin] if tree.origin else [])]
    text = json.dumps([SCHEMA, *place, settings], sort_keys=True)
    name = re.sub(r"[^\w.-]", "_", tree.root.resolve().name) or "images"
    while len(name.encode()) > LONGEST_NAME:  # file systems allow 255 bytes
        name = name[: LONGEST_NAME - len(name.encode())]
    return f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def find(folder: Path, tree: Tree) -> dict[str, Any] | None:
    """The metadata of a complete cache of the files as they are now; None when there is none."""
    try:
        if not all(is_intact(path) for path in (folder / "meta.json", *folder.glob("*.crc.npy"))):
            return None
        meta = read_json(folder / "meta.json")
        if meta["schema"] != SCHEMA or meta["files"] != tree.digest():
            return None
        for name, size in meta["bytes"].items():
            if (folder / f"{name}.npy").stat().st_size != size:
                return None
            MappedImages(folder / f"{name}.npy")  # a damaged header is a ValueError
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return dict(meta)


def load(folder: Path, tree: Tree, meta: dict[str, Any]) -> RawDataset:
    """The data set in a cache folder that `find` approved."""
    tree = without(tree, meta["broken"])
    found = {
        name: Split(MappedImages(folder / f"{name}.npy", files.paths), torch.tensor(files.targets))
        for name, files in tree.splits.items()
    }
    return RawDataset(
        tree.classes,
        found["train"],
        found.get("val"),
        found.get("test"),
        meta["fingerprint"],
        Normalisation(tuple(meta["mean"]), tuple(meta["std"])),
        tuple(meta["notes"]),
        PixelRules.from_dict(meta["rules"]),
    )


def build_once(
    folder: Path,
    tree: Tree,
    choose: Choose,
    progress: Progress | None,
    skip_broken: bool | None = False,
) -> dict[str, Any]:
    """Decode the tree into `folder` unless another process just did; returns its metadata.

    choose: decides from the headers of a tree which form its images get.
    skip_broken: leave out files that cannot be decoded; None: there is no such setting.
    Raises DataError naming all files that cannot be decoded, and for a folder that cannot be
    written or has too little space.
    """
    try:
        make_folder(folder.parent)
    except ConfigError as error:
        raise DataError(
            f"The decoded images cannot be kept: {error} (dataset.cache=false keeps none.)"
        ) from None
    try:
        with _locked(folder, progress):
            return find(folder, tree) or _build(folder, tree, choose, progress, skip_broken)
    except OSError as error:
        fix = "free some space" if error.errno == errno.ENOSPC else "check its permissions"
        raise DataError(
            f"The decoded images cannot be kept in {folder} ({error.strerror}): {fix}, set "
            "output_root=... to another disk, or dataset.cache=false to keep none."
        ) from None


@contextmanager
def _locked(folder: Path, progress: Progress | None) -> Iterator[None]:
    """Hold the lock of a cache folder; says so when another process has it."""
    lock = FileLock(folder.with_name(f".{folder.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if progress is not None:
            progress("waiting for another run that decodes these images", 0, 1)
        require_locks(folder.with_name(f".{folder.name}.lock"))
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _build(
    folder: Path,
    tree: Tree,
    choose: Choose,
    progress: Progress | None,
    skip_broken: bool | None,
) -> dict[str, Any]:
    unfinished = folder.with_name(f".{folder.name}.tmp")
    outdated = folder.with_name(f".{folder.name}.old")
    _retire(outdated, folder)  # of a run that was killed; the lock is ours
    if not remove(unfinished, like=OWN_FILES, folder_too=True):
        unfinished = _free_name(unfinished)
    unfinished.mkdir()
    try:

        def run(decoding: DecodePass) -> dict[str, Split]:
            _require_space(unfinished, tree, decoding.form)
            return _decode(unfinished, tree, decoding)

        decoding, splits, notes = complete_pass(tree, choose, run, skip_broken, progress)
        normalisation = measure.mean_and_std(splits["train"], progress)
        meta = {
            "schema": SCHEMA,
            "files": tree.digest(),
            "fingerprint": measure.fingerprint(list(splits.values()), progress),
            "classes": list(tree.classes),
            "shape": [decoding.form.channels, *decoding.form.size],
            "counts": {name: len(split) for name, split in splits.items()},
            "bytes": {name: (unfinished / f"{name}.npy").stat().st_size for name in splits},
            "mean": normalisation.mean,
            "std": normalisation.std,
            "notes": notes,
            "broken": decoding.broken_names,
            "rules": decoding.rules.to_dict(),
        }
        write_json(unfinished / "meta.json", meta)
        seal(unfinished, ["meta.json", *(f"{name}.crc.npy" for name in splits)])
        if folder.exists():
            outdated = _free_name(outdated)
            folder.rename(outdated)
        unfinished.rename(folder)
        _retire(outdated, folder)
    finally:
        remove(unfinished, like=OWN_FILES, folder_too=True)
    return meta


def _free_name(path: Path) -> Path:
    """`path`, or a name like it where something is left there that is not kdrun's."""
    names = [path, *(path.with_name(f"{path.name}-{number}") for number in range(1, 100))]
    return next((one for one in names if not os.path.lexists(one)), path)


def _retire(outdated: Path, folder: Path) -> None:
    """Delete an older decoding; what is not kdrun's in it moves to the new one, `folder`."""
    if outdated.is_symlink() or not outdated.is_dir():
        return
    if remove(outdated, like=OWN_FILES, folder_too=True) or not folder.exists():
        return  # a run was killed before the new one had its name: after the next decoding
    for entry in sorted(outdated.iterdir()):
        if not os.path.lexists(folder / entry.name):
            entry.rename(folder / entry.name)
    remove(outdated, folder_too=True)


def _require_space(folder: Path, tree: Tree, form: Form) -> None:
    """Raise DataError when the decoded images are larger than the free space."""
    count = sum(len(files) for files in tree.splits.values())
    height, width = form.size
    needed, free = count * form.channels * height * width, shutil.disk_usage(folder).free
    if needed > free:
        raise DataError(
            f"{count:,} images of {form.channels}×{height}×{width} take {needed / 2**30:,.1f} GiB "
            f"decoded, and {folder.parent} has {free / 2**30:,.1f} GiB free: set a smaller "
            "dataset.image_size, output_root=... to another disk, or dataset.cache=false."
        )


def _decode(folder: Path, tree: Tree, found: DecodePass) -> dict[str, Split]:
    """Write `<split>.npy` for every split of the tree, without broken files."""
    splits = {}
    for name, files in tree.splits.items():
        path = folder / f"{name}.npy"
        sums: list[int] = []
        targets: list[int] = []
        with open(path, "wb") as file:  # written, not mapped: a full disk is then an error
            _write_header(file, found.form, len(files))
            for images, labels in found.blocks(files):
                file.write(images.tobytes())
                sums += checksums(images)
                targets += labels
            file.seek(0)
            _write_header(file, found.form, len(targets))
            file.flush()
            os.fsync(file.fileno())
        np.save(sums_file(path), np.array(sums, dtype=np.uint32))
        if targets:  # else all are broken, which `verdict` reports
            splits[name] = Split(MappedImages(path), torch.tensor(targets))
    return splits


def _write_header(file: BinaryIO, form: Form, count: int) -> None:
    """The header of a `.npy` file of `count` images; equally long for any smaller count."""
    shape = (count, form.channels, *form.size)
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
