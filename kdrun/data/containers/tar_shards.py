"""Images in tar shards with the WebDataset layout: `key.jpg` next to `key.cls` or `key.json`."""

import itertools
import json
import lzma
import re
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import Any

from kdrun.data.containers.compressed import is_compressed, read_part
from kdrun.data.containers.json_splits import JsonSplits
from kdrun.data.containers.listing import Listing
from kdrun.data.decoding.formats import image_extensions
from kdrun.data.text import abbreviate
from kdrun.data.tree import Member, changed_at
from kdrun.errors import DataError

SAMPLE = re.compile(r"((?:.*/)?[^/.]+)\.([^/]+)")  # key and extension, split at the first dot
LARGEST_LABEL = 2**20  # bytes of a .cls or .json
JSON_LABELS = ("label", "cls", "class", "target", "category", "class_id", "class_name")
ZSTANDARD = b"\x28\xb5\x2f\xfd"


@dataclass(frozen=True, slots=True)
class TarImage(Member):
    """The image at an offset of a plain tar file."""

    shard: str
    name: str
    offset: int
    size: int

    def __str__(self) -> str:
        return f"{self.shard}::{self.name}"

    def read(self) -> bytes:
        """Bytes of the image file. Raises ValueError if the shard ends before them."""
        content = self._read_part()
        if len(content) < self.size:
            raise ValueError("the shard is truncated; get it again")
        return content

    def _read_part(self) -> bytes:
        with open(self.shard, "rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


class CompressedTarImage(TarImage):
    """The image at an offset of the unpacked content of a compressed tar file.

    Fast in ascending order only.
    """

    __slots__ = ()

    def _read_part(self) -> bytes:
        return read_part(self.shard, self.offset, self.size)


@dataclass
class Sample:
    """The files of one key, by extension: images by their place, others by their content."""

    key: str
    images: dict[str, TarImage] = field(default_factory=dict)
    texts: dict[str, bytes] = field(default_factory=dict)


@dataclass
class ShardReader:
    """Reads the index and labels of shards one after another, without the pixels.

    image_key, label_key, json_key: settings of the user; None selects the only candidate.
    splits: the splits of samples in shards whose names tell none.
    used: extensions of images and labels. skipped: kind of member → number of skipped members.
    """

    image_key: str | None = None
    label_key: str | None = None
    json_key: str | None = None
    splits: JsonSplits = field(default_factory=JsonSplits)
    used: dict[str, set[str]] = field(default_factory=lambda: {"images": set(), "labels": set()})
    skipped: dict[str, int] = field(default_factory=dict)

    def add(self, listings: dict[str, Listing], split: str, path: Path) -> None:
        """Append the samples of one shard of a split. Raises DataError for an unusable one."""
        time = changed_at(path.stat())
        for sample in self._samples(path):
            image = self._image(sample, path)
            if image is None:
                self._skip("samples without an image")
                continue
            label = self._label(sample, path)
            chosen = split
            if split == "train":
                text = sample.texts.get("json")
                chosen = self.splits.split(text, f"{path}: {sample.key}.json")
            listings[chosen].add(image, label, image.size, time)

    def _samples(self, path: Path) -> Iterator[Sample]:
        """Group consecutive members by key."""
        finished: set[str] = set()
        for key, members in itertools.groupby(self._members(path), key=itemgetter(0)):
            if key in finished:
                raise DataError(
                    f"{path}: the files of {key!r} are not consecutive; write each sample's files "
                    "together, as the WebDataset format requires."
                )
            finished.add(key)
            sample = Sample(key)
            for _, extension, content in members:
                parts = sample.images if isinstance(content, TarImage) else sample.texts
                if extension in parts:
                    raise DataError(f"{path}: {key}.{extension} occurs twice.")
                parts[extension] = content  # type: ignore[assignment]
            yield sample

    def _members(self, path: Path) -> Iterator[tuple[str, str, TarImage | bytes]]:
        """(key, extension, image or label text) of each image and label."""
        endings = image_extensions()
        try:
            compressed = is_compressed(path)
            image_type = CompressedTarImage if compressed else TarImage
            with tarfile.open(path, "r:*" if compressed else "r:") as tar:
                while (info := tar.next()) is not None:
                    tar.members = []  # type: ignore[attr-defined]  # else tarfile keeps all headers in memory
                    name = info.name.removeprefix("./")
                    match = SAMPLE.fullmatch(name)
                    if info.isdir():
                        continue
                    if not info.isreg() or info.issparse():
                        self._skip("links and special files")
                    elif match is None or name.rsplit("/", 1)[-1].startswith((".", "__")):
                        self._skip("hidden files and files without an extension")
                    elif "." + match[2].rsplit(".", 1)[-1].lower() in endings:
                        image = image_type(str(path), name, info.offset_data, info.size)
                        yield match[1], match[2].lower(), image
                    elif self._is_label(match[2].lower(), info.size):
                        yield match[1], match[2].lower(), self._content(tar, info, path)
                    else:
                        self._skip(f"*.{match[2].lower()}")
                _check_end(tar, path)
        except (tarfile.TarError, OSError, EOFError, zlib.error, lzma.LZMAError) as error:
            raise _damaged(path, error) from None

    def _is_label(self, extension: str, size: int) -> bool:
        """Whether a member holds the label, or a JSON file that may hold the split."""
        if extension == "json" and self.splits.key is not False:
            return size <= LARGEST_LABEL or self.label_key in (None, "json")
        if self.label_key is not None:
            return extension == self.label_key.lower()
        return extension in ("cls", "json")

    def _content(self, tar: tarfile.TarFile, info: tarfile.TarInfo, path: Path) -> bytes:
        if info.size > LARGEST_LABEL:
            raise DataError(f"{path}: {info.name} is too large for a label.")
        file = tar.extractfile(info)
        assert file is not None  # a regular file
        content = file.read()
        if len(content) < info.size:
            raise DataError(f"{path} is truncated at {info.name}: get it again.")
        return content

    def _image(self, sample: Sample, path: Path) -> TarImage | None:
        if self.image_key is not None:
            key = self.image_key.lower().lstrip(".")
            self.used["images"].add(key)
            return sample.images.get(key)
        if len(sample.images) > 1:
            keys = sorted(sample.images)
            raise DataError(
                f"{path}: {sample.key} has several images ({', '.join(keys)}): set "
                f"dataset.image_key={keys[0]}."
            )
        for key, image in sample.images.items():
            self.used["images"].add(key)
            return image
        return None

    def _label(self, sample: Sample, path: Path) -> str:
        """The label of a sample, as text."""
        where = f"{path}: {sample.key}"
        key = (self.label_key or "").lower()
        if not key:
            key = "json" if self.json_key or "cls" not in sample.texts else "cls"
        if key not in sample.texts:
            extensions = sorted([*sample.images, *sample.texts])
            raise DataError(
                f"{where} has no label (it has {abbreviate(extensions)}): expected "
                f"{sample.key}.cls or {sample.key}.json; set dataset.label_key to another "
                "extension, or, if folders are the classes, unpack the tar files and use "
                "dataset=imagefolder."
            )
        try:
            text = sample.texts[key].decode("utf-8-sig").strip()
        except UnicodeDecodeError:
            raise DataError(f"{where}.{key} is not text: set dataset.label_key.") from None
        if key == "json" or key.endswith(".json"):
            text = self._from_json(text, f"{where}.{key}", key)
        else:
            self.used["labels"].add(key)
        if not text:
            raise DataError(f"{where}.{key} is empty: every image needs a label.")
        if "\n" in text:
            raise DataError(f"{where}.{key} has several lines, not one label.")
        return text

    def _from_json(self, text: str, where: str, key: str) -> str:
        try:
            value: Any = json.loads(text)
        except (ValueError, RecursionError):
            raise DataError(f"{where} is not JSON.") from None
        if isinstance(value, dict):
            name = self.json_key or self._json_key(value, where)
            self.used["labels"].add(f"{key}:{name}")
            for part in name.split("."):
                value = value.get(part) if isinstance(value, dict) else None
            if value is None:
                raise DataError(f"{where} has no {name!r}: set dataset.json_key.")
        else:
            self.used["labels"].add(key)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise DataError(
                f"{where} holds {json.dumps(value)[:60]}, not a class number or name: set "
                "dataset.json_key."
            )
        return str(value).strip()

    def _json_key(self, value: dict[str, Any], where: str) -> str:
        names = [name for name in value if str(name).lower() in JSON_LABELS]
        if len(names) == 1:
            return str(names[0])
        candidates = names or list(value)
        what = "several labels" if names else "no label"
        raise DataError(f"{where} has {what} ({abbreviate(candidates)}): set dataset.json_key.")

    def _skip(self, what: str) -> None:
        self.skipped[what] = self.skipped.get(what, 0) + 1

    def notes(self, name: str) -> list[str]:
        """Extensions of images and labels, and what was skipped."""
        images, labels = (", ".join(sorted(self.used[what])) for what in ("images", "labels"))
        key = self.splits.key
        splits = f", splits from {key!r} in the JSON files" if isinstance(key, str) else ""
        notes = [f"{name}: images from .{images}, labels from .{labels}{splits}."]
        if self.skipped:
            parts = [f"{count:,} {what}" for what, count in self.skipped.items()]
            notes.append(f"{name}: not read: {abbreviate(parts, 8)}.")
        return notes


def _check_end(tar: tarfile.TarFile, path: Path) -> None:
    """Raise DataError for a file that ends between two members, which tarfile does not detect."""
    assert tar.fileobj is not None
    tar.fileobj.seek(tar.offset)
    if len(tar.fileobj.read(tarfile.BLOCKSIZE)) < tarfile.BLOCKSIZE:
        raise DataError(f"{path} is truncated (no end marker): get it again, or pack it again.")


def _damaged(path: Path, error: Exception) -> DataError:
    try:
        with path.open("rb") as file:
            start = file.read(64)
    except OSError:
        return DataError(f"{path} cannot be read ({error}): check its permissions.")
    if start.startswith(ZSTANDARD):
        return DataError(
            f"{path} is compressed with Zstandard, which Python cannot read: unpack it to a plain "
            ".tar (unzstd)."
        )
    if start.startswith(b"version https://git-lfs"):
        return DataError(f"{path} is a Git LFS pointer: fetch the file with git lfs pull.")
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return DataError(f"{path} is not a complete tar file ({reason}): get it again.")
