"""Read any weights file, recognised by its content rather than its name.

Supports PyTorch archives and legacy files, plain pickles, safetensors, and sharded files as written
by transformers and timm (`model.safetensors.index.json`).
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

# Names of weights in a folder of the Hugging Face hub, in order of preference.
IN_FOLDERS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "open_clip_model.safetensors",
)
SUFFIXES = (".safetensors", ".pth", ".pt", ".th", ".ckpt", ".bin", ".tar", ".pkl")
# First bytes of other files, and the message for each.
OTHER_FILES = (
    (
        b"version https://git-lfs",
        "is a Git LFS pointer, not the file itself: run `git lfs pull`",
    ),
    (b"<!doctype html", "is a web page: the download failed, download the file itself"),
    (b"<html", "is a web page: the download failed, download the file itself"),
    (b"\x89hdf\r\n", "is an HDF5 file (Keras), not PyTorch weights"),
    (b"\x1f\x8b", "is compressed with gzip: unpack it first"),
    (b"bzh", "is compressed with bzip2: unpack it first"),
    (b"\xfd7zxz", "is compressed with xz: unpack it first"),
    (b"7z\xbc\xaf", "is a 7-Zip archive: unpack it first"),
    (b"\x93numpy", "is a NumPy array, not a set of named weights"),
)


@dataclass(frozen=True)
class FileContent:
    """Content of a weights file. inert: names of classes and functions that were not called."""

    path: Path
    values: Any
    inert: frozenset[str] = frozenset()


def read_file(path: Path) -> FileContent:
    """Read a weights file; its tensors may stay lazy.

    Raises CheckpointError with the reason for any other file.
    """
    try:
        return _read(path)
    except UnreadableError as error:
        raise CheckpointError(f"{path} cannot be read as weights: {error}.") from None
    except RecursionError:
        raise CheckpointError(
            f"{path} cannot be read as weights: it is nested too deeply."
        ) from None
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
            f"{path} is a tar archive: unpack it and use the weights in it. (PyTorch before 0.2 "
            "wrote such files; convert them with a newer PyTorch.)"
        )
    if low.startswith(b"{"):
        raise CheckpointError(
            f"{path} is a JSON file, not weights: use the weights file next to it."
        )
    size = path.stat().st_size
    try:
        values, inert = read_legacy(path.open("rb"), size)  # stays open for lazy tensors
    except UnreadableError:
        if _is_text(head):
            raise CheckpointError(
                f"{path} is a text file, not weights: use the weights file."
            ) from None
        raise
    return FileContent(path, values, frozenset(inert))


def _is_text(head: bytes) -> bool:
    """Whether the start of a file is UTF-8 text; its last character may be incomplete."""
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
    """The tensors of all shards that an index lists, in the same folder."""
    try:
        places = read_json(index)["weight_map"]
        files = sorted({str(name) for name in places.values()})
    except (OSError, ValueError, KeyError, AttributeError, TypeError, json.JSONDecodeError):
        raise CheckpointError(f"{index} is not a weights index: it has no weight_map.") from None
    tensors: dict[str, Any] = {}
    for name in files:
        if "/" in name or "\\" in name or name in ("", ".", ".."):
            raise CheckpointError(f"{index} lists {name[:60]}, which is not in its folder.")
        part = index.with_name(name)
        if not part.is_file():
            raise CheckpointError(f"{index} lists {name}, which does not exist in its folder.")
        values = read_file(part).values
        if isinstance(values, dict):
            tensors |= values
    return tensors


def weights_in(folder: Path) -> Path | None:
    """The weights in a folder that is not a run: a file with a hub name, or the only file.

    Raises CheckpointError listing several candidates.
    """
    for name in IN_FOLDERS:
        if (folder / name).is_file():
            return folder / name
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    files = [path for path in files if path.is_file()]
    if len(files) > 1:
        shown = ", ".join(path.name for path in files[:6]) + (", ..." if len(files) > 6 else "")
        raise CheckpointError(f"{folder} contains {len(files)} weights files: use one of {shown}.")
    return files[0] if files else None
