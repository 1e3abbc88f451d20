"""Tar shards: equal to an image folder, and whatever cannot be read is refused by name."""

import bz2
import gzip
import io
import json
import lzma
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from kdrun.data.containers import compressed
from kdrun.data.containers.shards import braces
from kdrun.data.imagefolder import imagefolder
from kdrun.data.images import RawDataset
from kdrun.data.webdataset import webdataset
from kdrun.errors import ConfigError, DataError

Write = Callable[..., Path]
Files = dict[str, bytes]
CLASSES = ("cat", "dog")


@pytest.fixture
def folder(tree: Path, tmp_path: Path) -> RawDataset:
    return imagefolder(root=str(tree), cache_root=tmp_path / "cache")


def cls_of(name: str) -> Files:
    return {"cls": str(CLASSES.index(name)).encode()}


@pytest.fixture
def write(tree: Path, tmp_path: Path) -> Write:
    """write(split, name, label=) packs the images of a split, in the order of the image folder."""

    def call(
        split: str,
        name: str,
        label: Callable[[str], Files] = cls_of,
        part: slice = slice(None),
        ending: str = "png",
    ) -> Path:
        path = tmp_path / "wds" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(path, "w") as tar:
            for number, file in list(enumerate(sorted((tree / split).rglob("*.png"))))[part]:
                content = {ending: file.read_bytes(), **label(file.parent.name)}
                put(tar, {f"{number:06d}.{key}": value for key, value in content.items()})
        return path

    return call


def put(tar: tarfile.TarFile, files: Files) -> None:
    for name, content in files.items():
        info = tarfile.TarInfo(name)
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))


def read(root: object, tmp_path: Path, **settings: Any) -> RawDataset:
    given = None if root is None else str(root)
    return webdataset(root=given, cache_root=tmp_path / "decoded", **settings)


def assert_same(raw: RawDataset, folder: RawDataset) -> None:
    assert raw.classes == folder.classes
    assert raw.fingerprint == folder.fingerprint
    for one, other in ((raw.train, folder.train), (raw.test, folder.test)):
        assert one is not None
        assert other is not None
        assert torch.equal(one.in_memory(), other.in_memory())
        assert torch.equal(one.targets, other.targets)


def test_numbers_with_a_list_of_names(write: Write, folder: RawDataset, tmp_path: Path) -> None:
    for number, part in enumerate((slice(0, 2), slice(2, 4), slice(4, 6))):
        write("train", f"birds-train-{number:03d}.tar", part=part)
    write("test", "birds-test-000.tar")
    base = tmp_path / "wds"
    (base / "classes.txt").write_text("cat\ndog\n")
    raw = read(base, tmp_path)
    assert_same(raw, folder)
    assert raw.notes[:3] == (
        "wds: train from 3 files, test from 1 file.",
        "wds: images from .png, labels from .cls.",
        f"Class names are read from {base / 'classes.txt'}.",
    )
    assert_same(read(base, tmp_path, class_names=["cat", "dog"]), folder)
    pattern = f"{base}/birds-{{train-{{000..002}},test-000}}.tar"
    assert_same(read(pattern, tmp_path), folder)
    assert_same(read(f"{base}/*.tar", tmp_path), folder)
    with pytest.raises(DataError, match=r"1 of 4 files do not exist: .*birds-train-003\.tar"):
        read(f"{base}/birds-train-{{000..003}}.tar", tmp_path)


LABELS: dict[str, tuple[Callable[[str], Files], dict[str, Any]]] = {
    "name": (lambda name: {"cls": f"{name}\n".encode()}, {}),
    "json": (lambda name: {"json": json.dumps({"label": name, "width": 6}).encode()}, {}),
    "json number": (
        lambda name: {"json": json.dumps({"label": CLASSES.index(name)}).encode()},
        {"class_names": CLASSES},
    ),
    "bare json": (lambda name: {"json": json.dumps(name).encode()}, {}),
    "nested": (
        lambda name: {"json": json.dumps({"meta": {"kind": name}}).encode()},
        {"json_key": "meta.kind"},
    ),
    "text": (lambda name: {"txt": name.encode(), "cls": b"7"}, {"label_key": ".txt"}),
    "cls before json": (lambda name: {"json": b'{"label": "x"}', "cls": name.encode()}, {}),
}


@pytest.mark.parametrize("kind", LABELS)
def test_ways_to_store_a_label(write: Write, folder: RawDataset, tmp_path: Path, kind: str) -> None:
    label, settings = LABELS[kind]
    settings = {key: list(v) if isinstance(v, tuple) else v for key, v in settings.items()}
    for split in ("train", "test"):
        write(split, f"{split}.tar", label=label)
    assert_same(read(tmp_path / "wds", tmp_path, **settings), folder)


def test_numbers_alone_are_the_class_names(
    write: Write, folder: RawDataset, tmp_path: Path
) -> None:
    for split in ("train", "test"):
        write(split, f"{split}.tar")
    raw = read(tmp_path / "wds", tmp_path)
    assert raw.classes == ("0", "1")
    assert torch.equal(raw.train.targets, folder.train.targets)


def test_class_order_of_numbers_as_text(write: Write, tmp_path: Path) -> None:
    numbers = {"cat": b"9", "dog": b"10"}
    for split in ("train", "test"):
        write(split, f"{split}.tar", label=lambda name: {"cls": numbers[name]})
    raw = read(tmp_path / "wds", tmp_path, num_classes=2, class_order="lexicographic")
    assert raw.classes == ("10", "9")
    assert raw.train.targets.tolist() == [1, 1, 1, 0, 0, 0]


def test_named_shards_of_each_split(write: Write, folder: RawDataset, tmp_path: Path) -> None:
    write("train", "shard-0.tar", part=slice(0, 3))
    write("train", "shard-1.tar", part=slice(3, 6))
    write("test", "shard-2.tar")
    base, names = tmp_path / "wds", {"class_names": ["cat", "dog"]}
    assert_same(read(base, tmp_path, train="shard-{0..1}.tar", test="shard-2.tar", **names), folder)
    raw = read(None, tmp_path, train=f"{base}/shard-[01].tar", val=f"{base}/shard-2.tar", **names)
    assert_same(raw, folder)
    assert any("no test split: the validation split is used" in note for note in raw.notes)


def test_without_a_cache_images_are_decoded_on_access(
    write: Write, folder: RawDataset, tmp_path: Path
) -> None:
    for split in ("train", "test"):
        write(split, f"{split}.tar")
    raw = read(tmp_path / "wds", tmp_path, cache=False)
    order = torch.tensor([5, 0, 3])
    assert torch.equal(raw.train.gather(order), folder.train.gather(order))


def test_what_is_not_read_is_counted(tree: Path, tmp_path: Path) -> None:
    image = (tree / "train/cat/0.png").read_bytes()
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as tar:
        for number in range(4):
            key = f"./a/{number}"
            put(tar, {f"{key}.png": image, f"{key}.cls": str(number % 2).encode()})
            put(tar, {f"{key}.txt": b"a caption"})
        put(tar, {"a/._0.png": b"mac", "a/README": b"x", "a/9.cls": b"1"})
        link = tarfile.TarInfo("a/10.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    raw = read(path, tmp_path, test_fraction=0.5)
    assert len(raw.train) == 2
    assert raw.notes[2] == (
        "tmp: not read: ".replace("tmp", path.parent.name) + "4 *.txt, 2 hidden files and files "
        "without an extension, 1 links and special files, 1 samples without an image."
    )


IMAGE = b"\x89PNG..."
BAD: dict[str, tuple[list[Files], dict[str, Any], str]] = {
    "no label": ([{"1.png": IMAGE, "1.txt": b"x"}], {}, "1 has no label .*1.cls or 1.json"),
    "empty label": ([{"1.png": IMAGE, "1.cls": b" "}], {}, "every image needs a label"),
    "caption": ([{"1.png": IMAGE, "1.cls": b"a\nb"}], {}, "several lines"),
    "bytes": ([{"1.png": IMAGE, "1.cls": b"\xff\xfe\xfa"}], {}, "is not text"),
    "damaged json": ([{"1.png": IMAGE, "1.json": b"{"}], {}, "is not JSON"),
    "no label in json": ([{"1.png": IMAGE, "1.json": b'{"w": 1}'}], {}, r"set dataset\.json_key"),
    "two labels in json": ([{"1.png": IMAGE, "1.json": b'{"label": 1, "class": 2}'}], {},
                           r"several labels \(label, class\)"),
    "list in json": ([{"1.png": IMAGE, "1.json": b'{"label": [1]}'}], {}, r"holds \[1\]"),
    "wrong json key": ([{"1.png": IMAGE, "1.json": b'{"a": 1}'}], {"json_key": "b"}, "has no 'b'"),
    "two images": ([{"1.in.png": IMAGE, "1.out.png": IMAGE, "1.cls": b"0"}], {},
                   r"set dataset\.image_key=in\.png"),
    "twice": ([{"1.png": IMAGE}, {"1.png": IMAGE}], {}, r"1\.png occurs twice"),
    "torn apart": ([{"1.png": IMAGE, "1.cls": b"0", "2.png": IMAGE, "2.cls": b"0"},
                    {"1.json": b"{}"}], {}, "not consecutive"),
    "gap": ([{"1.png": IMAGE, "1.cls": b"0", "2.png": IMAGE, "2.cls": b"2"}], {},
            r"set dataset\.num_classes=2 .* dataset\.num_classes=3 to keep"),
    "nothing": ([{"x.md": b"text"}], {}, "no training images"),
    "broken image": ([{"1.png": IMAGE, "1.cls": b"0", "2.png": IMAGE, "2.cls": b"1"}], {},
                     r"x\.tar::1\.png"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_what_is_refused(tmp_path: Path, kind: str) -> None:
    groups, settings, words = BAD[kind]
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as tar:
        for files in groups:
            put(tar, files)
    with pytest.raises((DataError, ConfigError), match=words):
        read(path, tmp_path, **settings)


def test_damaged_shards(write: Write, tmp_path: Path) -> None:
    path = write("train", "train.tar")
    content = path.read_bytes()
    cut, packed = path.with_name("cut.tar"), path.with_name("packed.tar.zst")
    cut.write_bytes(content[: len(content) // 2 - 700])
    packed.write_bytes(b"\x28\xb5\x2f\xfd" + content)
    half = path.with_name("half.tar.gz")
    half.write_bytes(gzip.compress(content)[:-200])
    empty = path.with_name("empty.tar")
    empty.write_bytes(b"")
    pointer = path.with_name("pointer.tar")
    pointer.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    for shard, words in (
        (cut, "not a complete tar file|is truncated"),
        (half, "not a complete tar file"),
        (packed, "compressed with Zstandard.*unpack it"),
        (empty, "not a complete tar file"),
        (pointer, "git lfs pull"),
    ):
        with pytest.raises(DataError, match=words):
            read(shard, tmp_path)


@pytest.mark.parametrize(
    ("ending", "compress"),
    [("tar.gz", gzip.compress), ("tgz", gzip.compress), ("tar.bz2", bz2.compress),
     ("tar.xz", lzma.compress)],
)  # fmt: skip
def test_compressed_shards_equal_plain_ones(
    write: Write, folder: RawDataset, tmp_path: Path, ending: str, compress: Callable[..., bytes]
) -> None:
    for split in ("train", "test"):
        path = write(split, f"{split}-000.tar")
        path.with_name(f"{split}-000.{ending}").write_bytes(compress(path.read_bytes()))
        path.unlink()
    raw = read(tmp_path / "wds", tmp_path, class_names=list(CLASSES))
    assert_same(raw, folder)
    assert_same(read(tmp_path / "wds", tmp_path, class_names=list(CLASSES)), folder)
    with pytest.raises(ConfigError, match=r"dataset\.cache=true, or unpack"):
        read(tmp_path / "wds", tmp_path, class_names=list(CLASSES), cache=False)


def test_parts_of_a_compressed_file_are_read_in_any_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = bytes(range(256)) * 40
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(content))
    monkeypatch.setattr(compressed, "CHUNK_BYTES", 100)
    monkeypatch.setattr(compressed, "WINDOW_BYTES", 300)
    reader = compressed.SequentialReader(str(path))
    for offset, size in ((0, 10), (5000, 700), (4990, 20), (5400, 50), (17, 3), (10_000, 9999)):
        assert reader.read(offset, size) == content[offset : offset + size]


def test_a_shard_that_is_cut_between_two_samples(write: Write, tmp_path: Path) -> None:
    path = write("train", "train.tar")
    with tarfile.open(path) as tar:
        third = tar.getmembers()[4].offset
    path.write_bytes(path.read_bytes()[:third])
    with pytest.raises(DataError, match="is truncated"):
        read(path, tmp_path)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("a-{08..11}.tar", ["a-08.tar", "a-09.tar", "a-10.tar", "a-11.tar"]),
        ("{8..10..2}", ["8", "10"]),
        ("{2..0}", ["2", "1", "0"]),
        ("{a,b}{0..1}", ["a0", "a1", "b0", "b1"]),
        ("x{train-{0,1},test}y", ["xtrain-0y", "xtrain-1y", "xtesty"]),
        ("plain", ["plain"]),
        ("{x}{", ["{x}{"]),
    ],
)
def test_braces_are_those_of_a_shell(pattern: str, expected: list[str]) -> None:
    assert list(braces(pattern, "dataset.root")) == expected


def test_a_pipe_to_a_command_is_not_run(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is a URL"):
        read("pipe:touch x", tmp_path)


def test_too_many_shards_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expands to more than 100,000 files"):
        read("x-{0..99999999}.tar", tmp_path)


def with_split(tree: Path, tmp_path: Path, member: Callable[[str], Any], by_cls: bool) -> Path:
    """All images of the tree in one shard; `member` makes the JSON from the split's name."""
    path = tmp_path / "wds" / "all-000.tar"
    path.parent.mkdir()
    files = [path for split in ("train", "test") for path in sorted((tree / split).rglob("*.png"))]
    with tarfile.open(path, "w") as tar:
        for number, file in enumerate(files):
            split, name = file.relative_to(tree).parts[:2]
            content = {"png": file.read_bytes()}
            if by_cls:
                content["cls"] = name.encode()
            content["json"] = json.dumps({"label": name, "note": "train", **member(split)}).encode()
            put(tar, {f"{number:06d}.{key}": value for key, value in content.items()})
    return path


@pytest.mark.parametrize("by_cls", [False, True])
@pytest.mark.parametrize(
    ("key", "member"),
    [
        ("split", lambda split: {"split": split}),
        ("meta.subset", lambda split: {"meta": {"subset": {"test": "testing"}.get(split, split)}}),
        ("train", lambda split: {"train": split == "train"}),
    ],
)
def test_the_split_in_the_json_file(
    tree: Path,
    folder: RawDataset,
    tmp_path: Path,
    key: str,
    member: Callable[[str], Any],
    by_cls: bool,
) -> None:
    path = with_split(tree, tmp_path, member, by_cls)
    with pytest.raises(DataError, match=rf"'{key}' .*set dataset\.split_key={key} .*=false"):
        read(path, tmp_path)
    raw = read(path, tmp_path, split_key=key)
    assert_same(raw, folder)
    assert f"splits from '{key}' in the JSON files" in " ".join(raw.notes)
    assert len(read(path, tmp_path, split_key=False, test_fraction=0.4).train) == 6
    with pytest.raises(DataError, match="'cat' as 'label', which names no split"):
        read(path, tmp_path, split_key="label")


@pytest.mark.parametrize(
    "member",
    [
        lambda number, split: {"split": split if number else "extra"},
        lambda number, split: {"split": int(split == "train")},
        lambda number, split: {"set": split} if number else {},
        lambda number, split: {"part": [split]},
    ],
)
def test_a_split_key_that_mostly_tells_the_split(
    tree: Path, tmp_path: Path, member: Callable[[int, str], Any]
) -> None:
    numbers = iter(range(99))
    path = with_split(tree, tmp_path, lambda split: member(next(numbers), split), True)
    for settings in ({}, {"label_key": "cls"}):
        with pytest.raises(DataError, match="in the JSON files tells the splits"):
            read(path, tmp_path, **settings)
    assert len(read(path, tmp_path, split_key=False, test_fraction=0.4).train) == 6


def test_a_split_key_beside_names_that_tell_the_splits(write: Write, tmp_path: Path) -> None:
    for split in ("train", "test"):
        write(split, f"{split}.tar")
    with pytest.raises(ConfigError, match="names of the shards already tell"):
        read(tmp_path / "wds", tmp_path, split_key="split")


@pytest.mark.parametrize("header", ["class", "id, class name", "Label", "names"])
@pytest.mark.parametrize("numbers", [True, False])
def test_a_header_in_the_list_of_classes(
    write: Write, folder: RawDataset, tmp_path: Path, header: str, numbers: bool
) -> None:
    """It would move every name by one."""
    for split in ("train", "test"):
        write(split, f"{split}.tar", cls_of if numbers else lambda name: {"cls": name.encode()})
    names = tmp_path / "wds" / "classes.txt"
    names.write_text(f"{header}\ncat\ndog\n")
    with pytest.raises(DataError, match="like the header of a list"):
        read(tmp_path / "wds", tmp_path)
    assert len(read(tmp_path / "wds", tmp_path, num_classes=3).classes) == 3
    names.write_text(f"cat\ndog\n{header}\n")
    assert read(tmp_path / "wds", tmp_path).classes[:2] == folder.classes


@pytest.mark.parametrize(
    "lines", ["1,dog\n0,cat", "dog 1\ncat 0", "[1] dog\n[0] cat", "01 dog\n00 cat"]
)
def test_numbered_class_names(write: Write, folder: RawDataset, tmp_path: Path, lines: str) -> None:
    for split in ("train", "test"):
        write(split, f"{split}.tar")
    (tmp_path / "wds" / "classes.txt").write_text(lines)
    assert_same(read(tmp_path / "wds", tmp_path), folder)


def test_entries_of_a_json_list_that_are_no_names(write: Write, tmp_path: Path) -> None:
    write("train", "train.tar")
    (tmp_path / "wds" / "classes.json").write_text('[{"id": 1, "name": "dog"}, {"id": 0}]')
    with pytest.raises(DataError, match="lists or mappings, not names"):
        read(tmp_path / "wds", tmp_path)


def test_numbers_and_names_in_one_data_set(write: Write, tmp_path: Path) -> None:
    write("train", "train-0.tar", part=slice(0, 3))
    write("train", "train-1.tar", lambda name: {"cls": name.encode()})
    raw = read(tmp_path / "wds", tmp_path, test_fraction=0.4)
    assert any("different labels are numbers" in note for note in raw.notes)


def test_folders_in_the_shards_tell_the_splits(
    tree: Path, folder: RawDataset, tmp_path: Path
) -> None:
    path = tmp_path / "wds" / "all-000.tar"
    path.parent.mkdir()
    with tarfile.open(path, "w") as tar:
        for split in ("test", "train"):
            for number, file in enumerate(sorted((tree / split).rglob("*.png"))):
                name = f"{split}/{number}"
                label = file.parent.name.encode()
                put(tar, {f"{name}.png": file.read_bytes(), f"{name}.cls": label})
    assert_same(read(path, tmp_path), folder)
    assert len(read(path, tmp_path, split_key=False, test_fraction=0.4).train) == 6


def test_a_compressed_shard_that_is_replaced_is_read_anew(write: Write, tmp_path: Path) -> None:
    """In the same process, with files of the same sizes in the same places."""
    first, second = write("train", "a.tar"), write("test", "b.tar")
    path = tmp_path / "packed" / "train.tar.gz"
    path.parent.mkdir()
    found = []
    for part in (first, second):
        path.write_bytes(gzip.compress(part.read_bytes()))
        packed = read(path, tmp_path, test_fraction=0.5, num_classes=2)
        plain = read(part, tmp_path, test_fraction=0.5, num_classes=2)
        assert torch.equal(packed.train.in_memory(), plain.train.in_memory())
        found.append(packed.fingerprint)
    assert found[0] != found[1]


def test_an_empty_list_of_classes(write: Write, tmp_path: Path) -> None:
    write("train", "train.tar")
    (tmp_path / "wds" / "classes.txt").write_text("\n")
    with pytest.raises(DataError, match="there are 0 class names"):
        read(tmp_path / "wds", tmp_path)


def test_large_json_next_to_another_label(tree: Path, tmp_path: Path) -> None:
    """It is no label, so its size does not matter."""
    path = with_split(tree, tmp_path, lambda split: {"text": "x" * 2**20}, True)
    assert read(path, tmp_path, label_key="cls").test_is_drawn
