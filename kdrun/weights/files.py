"""Any weights file or folder → what is in it, recognised by its bytes rather than its name.

PyTorch's archives and legacy files, plain pickles, safetensors, and both in several shards as
transformers and timm write them (`model.safetensors.index.json`).
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from kdrun.errors import CheckpointError
from kdrun.files import read_json
from kdrun.weights.archive import read_archive
from kdrun.weights.lazy import UnreadableError
from kdrun.weights.legacy import read_legacy

# What a folder of the Hugging Face hub calls its weights, the preferred first.
IN_FOLDERS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "open_clip_model.safetensors",
)
SUFFIXES = (".safetensors", ".pth", ".pt", ".th", ".ckpt", ".bin", ".tar", ".pkl")
# How files that are no weights begin, and what to say of them.
OTHER_FILES = (
    (
        b"version https://git-lfs",
        "is a pointer of Git LFS, not the file itself: run `git lfs pull`",
    ),
    (b"<!doctype html", "is a web page: the download went wrong, fetch the file itself"),
    (b"<html", "is a web page: the download went wrong, fetch the file itself"),
    (b"\x89hdf\r\n", "is an HDF5 file (Keras), not PyTorch weights"),
    (b"\x1f\x8b", "is packed with gzip: unpack it first"),
    (b"bzh", "is packed with bzip2: unpack it first"),
    (b"\xfd7zxz", "is packed with xz: unpack it first"),
    (b"7z\xbc\xaf", "is packed with 7-Zip: unpack it first"),
    (b"\x93numpy", "is a NumPy array, not a set of named weights"),
)


@dataclass(frozen=True)
class FileContent:
    """What a weights file holds. inert: classes and functions of it that were not called."""

    path: Path
    values: Any
    inert: frozenset[str] = frozenset()


def read_file(path: Path) -> FileContent:
    """The content of a weights file; its tensors may be read later.

    Raises CheckpointError with the reason for everything else.
    """
    try:
        return _read(path)
    except UnreadableError as error:
        raise CheckpointError(f"{path} cannot be read as weights: {error}.") from None
    except RecursionError:
        raise CheckpointError(f"{path} cannot be read as weights: it is nested too deep.") from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}.") from None


def _read(path: Path) -> FileContent:
    with path.open("rb") as file:
        head = file.read(512)
    if not head:
        raise CheckpointError(f"{path} is empty.")
    low = head.lstrip().lower()
    for start, what in OTHER_FILES:
        if low.startswith(start):
            raise CheckpointError(f"{path} {what}.")
    if path.name.endswith(".index.json"):
        return FileContent(path, _shards(path))
    if _is_safetensors(path, head):
        return FileContent(path, read_safetensors(path))
    if head.startswith(b"PK\x03\x04"):
        values, inert = read_archive(path)
        return FileContent(path, values, frozenset(inert))
    if head[257:262] == b"ustar":
        raise CheckpointError(
            f"{path} is a tar archive: unpack it and name the weights in it. (PyTorch before 0.2 "
            "wrote such files; a newer PyTorch loads and saves them again.)"
        )
    if low.startswith(b"{"):
        raise CheckpointError(f"{path} is a text (JSON), not weights: name the file beside it.")
    size = path.stat().st_size
    try:
        values, inert = read_legacy(path.open("rb"), size)  # stays open: tensors are read later
    except UnreadableError:
        if _is_text(head):
            raise CheckpointError(
                f"{path} is a text file, not weights: name the file that holds the weights."
            ) from None
        raise
    return FileContent(path, values, frozenset(inert))


def _is_text(head: bytes) -> bool:
    """Whether the start of a file is UTF-8 text; a multi-byte character may be cut at its end."""
    try:
        text = head.decode()
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:
            return False
        text = head[: error.start].decode()
    return all(letter.isprintable() or letter in "\t\n\r" for letter in text)


def _is_safetensors(path: Path, head: bytes) -> bool:
    length = int.from_bytes(head[:8], "little")
    return head[8:9] == b"{" and 2 <= length <= path.stat().st_size


def read_safetensors(path: Path) -> dict[str, Any]:
    """Name → tensor. Raises CheckpointError for damaged files."""
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}.") from None


def _shards(index: Path) -> dict[str, Any]:
    """The tensors of all files that an index names; they lie beside it."""
    try:
        places = read_json(index)["weight_map"]
        files = sorted({str(name) for name in places.values()})
    except (OSError, ValueError, KeyError, AttributeError, TypeError, json.JSONDecodeError):
        raise CheckpointError(f"{index} is no index of weights: it has no weight_map.") from None
    found: dict[str, Any] = {}
    for name in files:
        if "/" in name or "\\" in name or name in ("", ".", ".."):
            raise CheckpointError(f"{index} names {name[:60]}, which is not beside it.")
        part = index.with_name(name)
        if not part.is_file():
            raise CheckpointError(f"{index} names {name}, which does not exist beside it.")
        values = read_file(part).values
        if isinstance(values, dict):
            found |= values
    return found


def weights_in(folder: Path) -> Path | None:
    """The weights in a folder that is no run: those of the hub's names, or its only file.

    Raises CheckpointError for several, which it lists.
    """
    for name in IN_FOLDERS:
        if (folder / name).is_file():
            return folder / name
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    files = [path for path in files if path.is_file()]
    if len(files) > 1:
        shown = ", ".join(path.name for path in files[:6]) + (", ..." if len(files) > 6 else "")
        raise CheckpointError(f"{folder} holds {len(files)} weights files: name one of {shown}.")
    return files[0] if files else None
