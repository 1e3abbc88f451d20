"""Parquet files of images: equal to an image folder, in the layouts that are published."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from kdrun.data.containers.parquet_reader import ColumnReader
from kdrun.data.imagefolder import imagefolder
from kdrun.data.images import RawDataset
from kdrun.data.parquet import parquet
from kdrun.errors import ConfigError, DataError, MissingExtraError

pa = pytest.importorskip("pyarrow", reason="needs kdrun[parquet]")
pq = pytest.importorskip("pyarrow.parquet")

Write = Callable[..., Path]
CLASSES = ("cat", "dog")


@pytest.fixture
def folder(tree: Path, tmp_path: Path) -> RawDataset:
    return imagefolder(root=str(tree), cache_root=tmp_path / "cache")


@pytest.fixture
def write(tree: Path, tmp_path: Path) -> Write:
    """write(split, name, ...) writes the images of a split, in the order of the image folder."""

    def call(
        split: str,
        name: str,
        image: str = "struct",
        label: Callable[[str], Any] = CLASSES.index,
        columns: tuple[str, str] = ("image", "label"),
        names: tuple[str, ...] | None = CLASSES,
        part: slice = slice(None),
        **more: list[Any],
    ) -> Path:
        files = sorted((tree / split).rglob("*.png"))[part]
        content = [path.read_bytes() for path in files]
        images: Any = {
            "struct": [{"bytes": item, "path": "x.png"} for item in content],
            "bytes": content,
            "path": [str(path.relative_to(tree)) for path in files],
            "struct of paths": [
                {"bytes": None, "path": str(path.relative_to(tree))} for path in files
            ],
        }[image]
        if image == "struct of paths":
            images = pa.array(images, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
        table = pa.table(
            {columns[0]: images, columns[1]: [label(path.parent.name) for path in files], **more}
        )
        if names is not None:
            features = {
                columns[0]: {"_type": "Image"},
                columns[1]: {"_type": "ClassLabel", "names": list(names)},
            }
            note = json.dumps({"info": {"features": features}})
            table = table.replace_schema_metadata({"huggingface": note})
        path = tmp_path / "hf" / name if image in ("struct", "bytes") else tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path, row_group_size=2)
        return path

    return call


def read(root: object, tmp_path: Path, **settings: Any) -> RawDataset:
    return parquet(root=None if root is None else str(root), cache_root=tmp_path / "pq", **settings)


def assert_same(raw: RawDataset, folder: RawDataset) -> None:
    assert raw.classes == folder.classes
    assert raw.fingerprint == folder.fingerprint
    for one, other in ((raw.train, folder.train), (raw.test, folder.test)):
        assert one is not None
        assert other is not None
        assert torch.equal(one.in_memory(), other.in_memory())
        assert torch.equal(one.targets, other.targets)


LAYOUTS = {
    "export": ("data/train-00000-of-00001.parquet", "data/test-00000-of-00001.parquet"),
    "with a hash": (
        "data/train-00000-of-00001-0123456789abcdef.parquet",
        "data/test-00000-of-00001-fedcba9876543210.parquet",
    ),
    "converted": ("default/train/0000.parquet", "default/test/0000.parquet"),
    "plain": ("train.parquet", "test.parquet"),
    "named": ("beans-train.parquet", "beans-test.parquet"),
    "validation": ("train.parquet", "validation.parquet"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_published_layouts(write: Write, folder: RawDataset, tmp_path: Path, layout: str) -> None:
    for split, name in zip(("train", "test"), LAYOUTS[layout], strict=True):
        write(split, name)
    raw = read(tmp_path / "hf", tmp_path)
    assert_same(raw, folder)
    assert raw.notes[0] == (
        "hf: train from 1 file, "
        + ("val" if layout == "validation" else "test")
        + " from 1 file; images from column 'image', labels from column 'label'."
    )


def write_all(tree: Path, tmp_path: Path, column: str, image: str, category: bool) -> Path:
    """All images of the tree in one file, with a column of splits."""
    files = [path for split in ("train", "test") for path in sorted((tree / split).rglob("*.png"))]
    splits = pa.array([path.relative_to(tree).parts[0] for path in files])
    images = {
        "bytes": [path.read_bytes() for path in files],
        "path": [str(path.relative_to(tree)) for path in files],
    }[image]
    table = {
        "image": images,
        "label": [path.parent.name for path in files],
        "note": ["train"] * len(files),
        column: splits.dictionary_encode() if category else splits,
    }
    path = (tree if image == "path" else tmp_path) / "train-00000-of-00001.parquet"
    pq.write_table(pa.table(table), path, row_group_size=3)
    return path


@pytest.mark.parametrize(("image", "category"), [("bytes", False), ("path", True)])
def test_a_column_of_splits(
    tree: Path, folder: RawDataset, tmp_path: Path, image: str, category: bool
) -> None:
    raw = read(write_all(tree, tmp_path, "split", image, category), tmp_path)
    assert_same(raw, folder)
    assert "splits from column 'split'" in raw.notes[0]


def test_a_column_of_splits_is_not_overlooked(
    tree: Path, folder: RawDataset, write: Write, tmp_path: Path
) -> None:
    path = write_all(tree, tmp_path, "kind", "bytes", False)
    with pytest.raises(DataError, match=r"set dataset\.split_column=kind .*split_column=false"):
        read(path, tmp_path)
    assert_same(read(path, tmp_path, split_column="kind"), folder)
    assert len(read(path, tmp_path, split_column=False, test_fraction=0.4).train) == 6
    with pytest.raises(ConfigError, match=r"has no such column\. Did you mean 'kind'"):
        read(path, tmp_path, split_column="kid")
    with pytest.raises(DataError, match=r"row 1: 'cat' in column 'label' names no"):
        read(path, tmp_path, split_column="label")
    for split in ("train", "test"):
        path = write(split, f"{split}.parquet")
    with pytest.raises(ConfigError, match="already tell their splits"):
        read(path.parent, tmp_path, split_column="kind")


@pytest.mark.parametrize("image", ["struct", "bytes", "path", "struct of paths"])
def test_ways_to_store_an_image(
    write: Write, folder: RawDataset, tmp_path: Path, image: str
) -> None:
    for split in ("train", "test"):
        path = write(split, f"{split}.parquet", image=image)
    assert_same(read(path.parent, tmp_path), folder)


def test_several_files_are_read_in_order(write: Write, folder: RawDataset, tmp_path: Path) -> None:
    write("train", "train-00000-of-00002.parquet", part=slice(0, 4))
    second = write("train", "train-00001-of-00002.parquet", part=slice(4, 9))
    write("test", "test-00000-of-00001.parquet")
    assert_same(read(tmp_path / "hf", tmp_path), folder)
    second.unlink()
    with pytest.raises(DataError, match=r"1 of 2 files are missing: .*train-00001-of-00002"):
        read(tmp_path / "hf", tmp_path)


def test_patterns_and_named_splits(write: Write, folder: RawDataset, tmp_path: Path) -> None:
    write("train", "a_0.parquet", part=slice(0, 3))
    write("train", "a_1.parquet", part=slice(3, 9))
    write("test", "b.parquet")
    base = tmp_path / "hf"
    assert_same(read(base, tmp_path, train="a_{0..1}.parquet", test="b.parquet"), folder)
    assert_same(read(base, tmp_path, train="a_*.parquet", test=["b.parquet"]), folder)
    with pytest.raises(DataError, match=r"1 of 3 files do not exist: .*a_2\.parquet"):
        read(base, tmp_path, train="a_{0..2}.parquet")
    with pytest.raises(DataError, match="share files"):
        read(base, tmp_path, train="*.parquet", test="b.parquet")


@pytest.mark.parametrize("label", [str, lambda name: f" {name} "])
def test_labels_that_are_names(
    write: Write, folder: RawDataset, tmp_path: Path, label: Callable[[str], str]
) -> None:
    for split in ("train", "test"):
        write(split, f"{split}.parquet", label=label, names=None)
    assert_same(read(tmp_path / "hf", tmp_path), folder)


def test_the_class_names_of_the_file_count(write: Write, tmp_path: Path) -> None:
    numbers = {"cat": 2, "dog": 0}
    for split in ("train", "test"):
        write(split, f"{split}.parquet", label=numbers.get, names=("dog", "cow", "cat"))
    raw = read(tmp_path / "hf", tmp_path)
    assert raw.classes == ("dog", "cow", "cat")
    assert raw.train.targets.tolist() == [2, 2, 2, 0, 0, 0]
    assert any("1 of 3 classes have no training images: cow" in note for note in raw.notes)


def test_numbers_without_names(write: Write, tmp_path: Path) -> None:
    for split in ("train", "test"):
        write(split, f"{split}.parquet", label={"cat": 1, "dog": 2}.get, names=None)
    base = tmp_path / "hf"
    with pytest.raises(DataError, match=r"from 1 to 2, not 0 to 1: set dataset\.num_classes=2"):
        read(base, tmp_path)
    raw = read(base, tmp_path, num_classes=2)
    assert raw.classes == ("1", "2")
    assert raw.train.targets.tolist() == [0, 0, 0, 1, 1, 1]
    raw = read(base, tmp_path, num_classes=3)
    assert raw.classes == ("0", "1", "2")
    assert raw.train.targets.tolist() == [1, 1, 1, 2, 2, 2]
    raw = read(base, tmp_path, class_names=["cow", "cat", "dog"])
    assert raw.classes == ("cow", "cat", "dog")
    with pytest.raises(ConfigError, match=r"set 3 to keep these numbers, or 2"):
        read(base, tmp_path, num_classes=1)
    (base / "classes.txt").write_text("1 cat\n0 cow\n2 dog\n")
    raw = read(base, tmp_path)
    assert raw.classes == ("cow", "cat", "dog")
    assert any("classes.txt" in note for note in raw.notes)


def test_fine_and_coarse_labels_are_asked_for(
    write: Write, folder: RawDataset, tmp_path: Path
) -> None:
    for split, count in (("train", 6), ("test", 4)):
        write(split, f"{split}.parquet", columns=("img", "fine_label"), coarse_label=[0] * count)
    base = tmp_path / "hf"
    # the note of the writing library names one of them as the label
    assert_same(read(base, tmp_path), folder)
    for split, count in (("train", 6), ("test", 4)):
        write(
            split,
            f"{split}.parquet",
            columns=("img", "fine_label"),
            names=None,
            coarse_label=[0] * count,
        )
    with pytest.raises(DataError, match=r"dataset\.label_column=fine_label or dataset\.label_col"):
        read(base, tmp_path)
    assert len(read(base, tmp_path, label_column="fine_label").classes) == 2
    with pytest.raises(ConfigError, match="Did you mean 'fine_label'"):
        read(base, tmp_path, label_column="fine_lable")


def test_without_test_files_test_images_are_held_out(write: Write, tmp_path: Path) -> None:
    path = write("train", "all.parquet")
    raw = read(path, tmp_path, test_fraction=0.34)
    assert raw.test is not None
    assert (len(raw.train), len(raw.test)) == (4, 2)


def test_without_a_cache_rows_are_decoded_on_access(
    write: Write, folder: RawDataset, tmp_path: Path
) -> None:
    for split in ("train", "test"):
        write(split, f"{split}.parquet")
    raw = read(tmp_path / "hf", tmp_path, cache=False)
    order = torch.tensor([5, 0, 3, 1, 4, 2, 0])
    assert torch.equal(raw.train.gather(order), folder.train.gather(order))
    assert not (tmp_path / "pq").exists()


def test_rows_in_any_order_and_little_kept(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    values = [bytes([number]) * 10 for number in range(100)]
    pq.write_table(pa.table({"image": values}), path, row_group_size=7)
    reader = ColumnReader(str(path), "image")
    reader.rows = 3
    for row in [*range(100), 5, 99, 0, 50, 49, 48, 51]:
        assert reader.value(row) == values[row]
        assert len(reader.cached) <= 3
    with pytest.raises(ValueError, match="the file has changed"):
        reader.value(100)


def test_changed_files_are_read_again(write: Write, tmp_path: Path) -> None:
    for split in ("train", "test"):
        write(split, f"{split}.parquet")
    first = read(tmp_path / "hf", tmp_path)
    write("train", "train.parquet", part=slice(0, 5))
    assert len(read(tmp_path / "hf", tmp_path).train) == len(first.train) - 1


def test_a_row_without_an_image_is_named(write: Write, tmp_path: Path) -> None:
    table = pa.table({"image": [b"x", None], "label": ["a", "b"]})
    (tmp_path / "hf").mkdir()
    pq.write_table(table, tmp_path / "hf" / "train.parquet")
    with pytest.raises(DataError, match=r"train\.parquet\[\d\]"):
        read(tmp_path / "hf", tmp_path)


BAD: dict[str, tuple[dict[str, list[Any]], dict[str, Any], str]] = {
    "no label": ({"image": [b"a", b"b"], "label": [0, None]}, {}, "row 2: column .* no label"),
    "hidden labels": ({"image": [b"a"], "label": [-1]}, {}, "label -1, .*train=FILES"),
    "arrays": ({"image": [[1, 2]], "label": [0]}, {}, "no column of encoded images"),
    "no labels": ({"image": [b"a"], "text": ["x"]}, {}, r"set dataset\.label_column=NAME"),
    "two images": ({"a": [b"a"], "b": [b"a"], "label": [0]}, {},
                   r"dataset\.image_column=a or dataset\.image_column=b"),
    "fractions": ({"image": [b"a"], "label": [0.5]}, {}, "holds float values"),
    "wrong column": ({"image": [b"a"], "label": [0]}, {"image_column": "label"}, "has type int64"),
    "outside": ({"image": ["../secret.png"], "label": ["a"]}, {}, "row 1: .* leaves"),
    "not there": ({"image": ["no.png"], "label": ["a"]}, {}, "1 of 1 listed files do not exist"),
    "names": ({"image": [b"a"], "label": [3]}, {"class_names": ["a", "b"]}, "there are 2 class"),
    "other names": ({"image": [b"a"], "label": ["z"]}, {"class_names": ["a", "b"]},
                    "1 labels are not class names: z"),
    "a class twice": ({"image": [b"a"], "label": [0]}, {"class_names": ["a", "a"]}, "twice: a"),
    "no such names": ({"image": [b"a"], "label": [0]}, {"class_names": "no.txt"}, "is not a file"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_what_is_refused(tmp_path: Path, kind: str) -> None:
    columns, settings, words = BAD[kind]
    (tmp_path / "secret.png").write_bytes(b"")
    (tmp_path / "hf").mkdir()
    pq.write_table(pa.table(columns), tmp_path / "hf" / "train.parquet")
    with pytest.raises((DataError, ConfigError), match=words):
        read(tmp_path / "hf", tmp_path, **settings)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is not a complete Parquet file"),
        (b"PAR1 and nothing else", "is not a complete Parquet file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    ],
)
def test_damaged_files(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "train.parquet").write_bytes(content)
    with pytest.raises(DataError, match=words):
        read(tmp_path / "hf", tmp_path)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"dataset\.root has no value"):
        read(None, tmp_path)
    with pytest.raises(DataError, match=r"there is no .*nowhere"):
        read(tmp_path / "nowhere", tmp_path)
    with pytest.raises(DataError, match=r"a folder without \*\.parquet"):
        read(tmp_path, tmp_path)
    with pytest.raises(DataError, match="is a URL"):
        read("hf://datasets/beans", tmp_path)


def test_a_link_to_a_file_elsewhere(write: Write, tmp_path: Path) -> None:
    path = write("train", "train.parquet")
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "train.parquet").symlink_to(path)
    with pytest.raises(DataError, match=r"leaves .* set dataset\.follow_links=true"):
        read(tmp_path / "links", tmp_path)
    assert len(read(tmp_path / "links", tmp_path, follow_links=True).classes) == 2


def test_the_missing_library_is_named(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("train", "train.parquet")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'kdrun\[parquet\]'"):
        read(tmp_path / "hf", tmp_path)


@pytest.mark.parametrize(
    ("column", "type"), [("is_train", "bool"), ("train", "int64"), ("test", "bool")]
)
def test_a_column_of_yes_and_no(
    tree: Path, folder: RawDataset, write: Write, tmp_path: Path, column: str, type: str
) -> None:
    path = write_all(tree, tmp_path, "split", "bytes", False)
    table = pq.read_table(path)
    yes = "test" if column == "test" else "train"
    flags = pa.array([split == yes for split in table["split"].to_pylist()]).cast(type)
    pq.write_table(table.drop(["split"]).append_column(column, flags), path)
    if column == "is_train":
        assert_same(read(path, tmp_path), folder)
    else:
        with pytest.raises(DataError, match=rf"set dataset\.split_column={column} .*=false"):
            read(path, tmp_path)
    assert_same(read(path, tmp_path, split_column=column), folder)
    assert len(read(path, tmp_path, split_column=False, test_fraction=0.4).train) == 6


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("small/{0}-00000-of-00001.parquet", "full/{0}-00000-of-00001.parquet"),
        ("small/{0}/0000.parquet", "full/{0}/0000.parquet"),
        ("{0}.parquet", "copy/{0}.parquet"),
    ],
)
def test_several_configurations_below_one_folder(
    write: Write, folder: RawDataset, tmp_path: Path, one: str, other: str
) -> None:
    for split in ("train", "test"):
        for name in (one, other):
            write(split, name.format(split))
    with pytest.raises(DataError, match=r"several data sets .*/hf.* set dataset\.root to one"):
        read(tmp_path / "hf", tmp_path)
    if one.startswith("small"):
        assert_same(read(tmp_path / "hf" / "full", tmp_path), folder)
        both = parquet(
            root=[str(tmp_path / "hf" / name) for name in ("small", "full")],
            cache_root=tmp_path / "pq",
        )
        assert len(both.train) == 2 * len(folder.train)


@pytest.mark.parametrize(
    "name", ["part-{}/{}.parquet", "00{}/{}.parquet", "{1}/year={0}/x.parquet"]
)
def test_folders_that_divide_a_split_are_one_data_set(
    write: Write, folder: RawDataset, tmp_path: Path, name: str
) -> None:
    for split in ("train", "test"):
        write(split, name.format(0, split), part=slice(0, 2))
        write(split, name.format(1, split), part=slice(2, None))
    assert_same(read(tmp_path / "hf", tmp_path), folder)


def test_folders_of_several_roots_tell_the_split(
    write: Write, folder: RawDataset, tmp_path: Path
) -> None:
    for split in ("train", "test"):
        write(split, f"a/{split}/0.parquet", part=slice(0, 2))
        write(split, f"b/{split}/0.parquet", part=slice(2, None))
    roots = [str(tmp_path / "hf" / name) for name in ("a", "b")]
    for root in (roots, str(tmp_path / "hf" / "{a,b}"), str(tmp_path / "hf" / "?" / "*" / "0.*")):
        assert_same(parquet(root=root, cache_root=tmp_path / "pq"), folder)


@pytest.mark.parametrize("odd", ["extra", None])
@pytest.mark.parametrize("column", ["split", "kind"])
def test_a_column_of_splits_with_one_odd_value(
    tree: Path, tmp_path: Path, column: str, odd: str | None
) -> None:
    path = write_all(tree, tmp_path, column, "bytes", False)
    table = pq.read_table(path)
    values = table[column].to_pylist()
    table = table.drop([column]).append_column(column, pa.array([odd, *values[1:]]))
    pq.write_table(table, path)
    wanted = "names no split" if column == "split" else "column 'kind' tells the splits"
    with pytest.raises(DataError, match=wanted):
        read(path, tmp_path)
    assert len(read(path, tmp_path, split_column=False, test_fraction=0.4).train) == 6


@pytest.mark.parametrize(("column", "type"), [("split", "int64"), ("is_train", "float64")])
def test_numbers_in_a_column_of_splits(
    tree: Path, folder: RawDataset, tmp_path: Path, column: str, type: str
) -> None:
    path = write_all(tree, tmp_path, "kind", "bytes", False)
    table = pq.read_table(path)
    codes = pa.array([int(split == "train") for split in table["kind"].to_pylist()]).cast(type)
    pq.write_table(table.drop(["kind"]).append_column(column, codes), path)
    if column == "split":
        with pytest.raises(DataError, match=r"1 in column 'split' names no split"):
            read(path, tmp_path)
    else:
        assert_same(read(path, tmp_path), folder)


def test_a_file_that_is_replaced_is_read_anew(tree: Path, tmp_path: Path) -> None:
    """In the same process, with as many rows."""
    path = write_all(tree, tmp_path, "split", "bytes", False)
    before = read(path, tmp_path)
    table = pq.read_table(path)
    order = list(reversed(range(table.num_rows)))
    pq.write_table(table.take(order), path)
    after = parquet(root=str(path), cache_root=tmp_path / "other")
    again = read(path, tmp_path)
    for raw in (after, again):
        assert torch.equal(raw.train.in_memory().flip(0), before.train.in_memory())
        assert torch.equal(raw.train.targets.flip(0), before.train.targets)


def test_two_exports_of_one_set(write: Write, tmp_path: Path) -> None:
    write("train", "data/train-00000-of-00001.parquet")
    write("train", "data/train-00000-of-00001-0123456789abcdef.parquet")
    with pytest.raises(DataError, match="has part 00000 of train twice"):
        read(tmp_path / "hf", tmp_path)


def test_folders_in_a_column_of_paths_tell_the_splits(
    tree: Path, folder: RawDataset, tmp_path: Path
) -> None:
    path = write_all(tree, tmp_path, "split", "path", False)
    pq.write_table(pq.read_table(path).drop(["split"]), path)
    assert_same(read(path, tmp_path), folder)
    assert len(read(path, tmp_path, split_column=False, test_fraction=0.4).train) == 6
