"""Decode into a cache folder block by block, so that an interrupted decoding can be resumed.

While it is unfinished, the folder holds the growing `<split>.npy` and a journal. The first line of
the journal identifies files and form; each other line describes a block whose pixels are written.
A resumed decoding reads these blocks again, which their CRC-32 verify, and continues after the last
intact one. The finished folder has no journal and is byte-identical to one decoded at once.
"""

import json
import os
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from kdrun.data.decoding.decode_pass import DecodedBlock, DecodePass
from kdrun.data.decoding.image import Form
from kdrun.data.images import Split, StoredImages, checksums, sums_file
from kdrun.data.measure import Fingerprint, Moments
from kdrun.data.tree import FileList, Tree
from kdrun.errors import BrokenImageError
from kdrun.removal import remove

JOURNAL = "journal.jsonl"
JOURNAL_SCHEMA = 1


@dataclass
class DecodedSplits:
    """The splits in a folder, and statistics of their images.

    fingerprint: as `measure.fingerprint`; None if files were left out. moments: of `train`.
    """

    splits: dict[str, Split]
    fingerprint: str | None
    moments: Moments


def can_resume(folder: Path, tree: Tree) -> bool:
    """Whether `folder` holds an interrupted decoding of the tree's files."""
    if folder.is_symlink() or (folder / JOURNAL).is_symlink():
        return False
    head, _ = _read_journal(folder)
    return head is not None and head.get("files") == tree.state


def decode_into(folder: Path, tree: Tree, decoding: DecodePass) -> DecodedSplits:
    """Write `<split>.npy` for every split of the tree, without broken files.

    Continues an interrupted decoding in `folder` if its files and form are the same.
    """
    head = {
        "schema": JOURNAL_SCHEMA,
        "files": tree.state,
        "form": repr(decoding.form),
        "rules": repr(decoding.rules),
    }
    written, lines = _read_journal(folder)
    if written != head:
        remove(folder, [JOURNAL, *(f"{name}.npy" for name in tree.splits)])
        (folder / JOURNAL).write_bytes(_line(head))
        lines = []
    digest, form = Fingerprint(), decoding.form
    moments = Moments(form.channels, form.size, len(tree.splits["train"]))
    splits: dict[str, Split] = {}
    complete = True
    with open(folder / JOURNAL, "r+b") as journal:
        journal.seek(len(_line(head)))
        for name, files in tree.splits.items():
            digest.start(len(files), (form.channels, *form.size), torch.uint8)
            targets = array("q")
            sums = []
            for block in _blocks(folder, name, files, decoding, journal, lines):
                sums.append(block.sums)
                targets.extend(block.targets)
                if block.images is not None:
                    images = torch.from_numpy(block.images)
                    digest.add(images)
                    if name == "train":
                        moments.add(images)
            np.save(sums_file(folder / f"{name}.npy"), np.concatenate(sums))
            complete = complete and len(targets) == len(files)
            labels = torch.tensor(targets, dtype=torch.int64)
            digest.finish(labels)
            if len(targets):  # if all are broken, `DecodePass.verdict` reports it
                splits[name] = Split(StoredImages(folder / f"{name}.npy"), labels)
    return DecodedSplits(splits, digest.hexdigest() if complete else None, moments)


def finish(folder: Path) -> None:
    """Remove what only an unfinished folder contains."""
    remove(folder, [JOURNAL])


def _blocks(
    folder: Path,
    name: str,
    files: FileList,
    decoding: DecodePass,
    journal: BinaryIO,
    lines: list[dict[str, Any]],
) -> Iterator[DecodedBlock]:
    """The blocks of a split: those that are written and intact, then newly decoded ones.

    lines: what the journal has beyond its current position; consumes those of this split.
    """
    path = folder / f"{name}.npy"
    path.touch()
    done = count = 0
    with open(path, "r+b") as file:  # not mapped, so that a full disk raises an error
        _write_header(file, decoding.form, len(files))
        end = file.tell()  # of the intact blocks
        while lines and lines[0]["split"] == name:
            block = _read_block(file, lines[0], decoding.form)
            if block is None:
                lines.clear()
                break
            journal.seek(len(_line(lines.pop(0))), os.SEEK_CUR)
            done, count, end = done + block.files, count + len(block.targets), file.tell()
            decoding.count(block)
            yield block
        if done < len(files):
            lines.clear()
        if not lines:
            journal.truncate()
        file.seek(end)
        for block in decoding.blocks(files, done):
            if block.images is not None:
                file.write(block.images.data.cast("B"))
                file.flush()
            journal.write(_line(_describe(name, block)))
            journal.flush()
            count += len(block.targets)
            yield block
        file.truncate()
        file.seek(0)
        _write_header(file, decoding.form, count)
        file.flush()
        os.fsync(file.fileno())


def _describe(split: str, block: DecodedBlock) -> dict[str, Any]:
    return {
        "split": split,
        "files": block.files,
        "targets": block.targets,
        "sums": block.sums.tolist(),
        "kinds": dict(block.kinds),
        "broken": [[error.source, error.reason, str(error)] for error in block.broken],
    }


def _read_block(file: BinaryIO, line: dict[str, Any], form: Form) -> DecodedBlock | None:
    """A block that an earlier process wrote; None unless its pixels are intact."""
    try:
        sums = np.array(line["sums"], np.uint32)
        block = DecodedBlock(
            int(line["files"]),
            None,
            [int(target) for target in line["targets"]],
            sums,
            Counter({str(kind): int(number) for kind, number in line["kinds"].items()}),
            [BrokenImageError(*error) for error in line["broken"]],
        )
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    if block.files != len(block.targets) + len(block.broken) or len(sums) != len(block.targets):
        return None
    if len(sums):
        pixels = file.read(len(sums) * form.nbytes)
        if len(pixels) < len(sums) * form.nbytes:
            return None
        block.images = np.frombuffer(bytearray(pixels), np.uint8).reshape(
            len(sums), form.channels, *form.size
        )
        if checksums(block.images) != sums.tolist():
            return None
    return block


def _read_journal(folder: Path) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
    """Head and other complete lines of the journal; None without a readable one."""
    values: list[dict[str, Any]] = []
    try:
        with open(folder / JOURNAL, "rb") as file:
            for text in file:
                value = json.loads(text)
                if not text.endswith(b"\n") or not isinstance(value, dict):
                    break
                if text != _line(value) or (values and "split" not in value):
                    break
                values.append(value)
    except (OSError, ValueError):
        pass
    return (values[0], values[1:]) if values else (None, [])


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


def _write_header(file: BinaryIO, form: Form, count: int) -> None:
    """Write a `.npy` header for `count` images; a smaller count has the same header length."""
    shape = (count, form.channels, *form.size)
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
