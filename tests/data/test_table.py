"""Tables of paths and labels: equal to an image folder, and every unusable row refused by line."""

import os
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from kdrun.data.containers.classes import classes_in_order
from kdrun.data.imagefolder import imagefolder
from kdrun.data.images import RawDataset
from kdrun.data.table import table
from kdrun.errors import ConfigError, DataError

Save = Callable[..., Path]
Read = Callable[..., RawDataset]
ROWS = [
    (f"{split}/{name}/{number}.png", name, split)
    for split, count in (("test", 2), ("train", 3))
    for name in ("dog", "cat")
    for number in reversed(range(count))
]


@pytest.fixture
def read(tree: Path, tmp_path: Path) -> Read:
    """read(text, name="labels.csv", ...) writes a table beside the images and reads it."""

    def call(text: str | bytes, name: str = "labels.csv", **changes: Any) -> RawDataset:
        path = tree / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        settings: dict[str, Any] = {"file": str(path), "cache_root": tmp_path / "cache"}
        return table(**settings | changes)

    return call


def lines(rows: list[tuple[str, ...]], header: str = "path,label,split", by: str = ",") -> str:
    return "\n".join([header.replace(",", by), *(by.join(row) for row in rows)]) + "\n"


def assert_same_images(raw: RawDataset, folder: RawDataset) -> None:
    for one, other in ((raw.train, folder.train), (raw.test, folder.test)):
        assert one is not None
        assert other is not None
        assert torch.equal(one.in_memory(), other.in_memory())
        assert torch.equal(one.targets, other.targets)


def assert_same(raw: RawDataset, folder: RawDataset) -> None:
    assert raw.classes == folder.classes
    assert raw.fingerprint == folder.fingerprint
    assert_same_images(raw, folder)


@pytest.fixture
def folder(tree: Path, tmp_path: Path) -> RawDataset:
    return imagefolder(root=str(tree), cache_root=tmp_path / "cache")


def test_the_images_and_labels_of_the_folder(read: Read, folder: RawDataset) -> None:
    raw = read(lines(ROWS))
    assert_same(raw, folder)
    assert raw.notes[0] == (
        "labels.csv: paths from column 'path', labels from column 'label', splits from column "
        "'split'."
    )


TABLES: dict[str, tuple[str | bytes, str, dict[str, object]]] = {
    "tsv": (lines(ROWS, by="\t"), "labels.tsv", {}),
    "semicolon": (lines(ROWS, by=";"), "labels.csv", {}),
    "pipe": (lines(ROWS, by="|"), "labels.txt", {"delimiter": "pipe"}),
    "bom": (lines(ROWS).encode("utf-8-sig"), "labels.csv", {}),
    "utf-16 of a spreadsheet": (lines(ROWS, by="\t").encode("utf-16"), "labels.txt", {}),
    "windows": (lines(ROWS).replace("\n", "\r\n"), "labels.csv", {}),
    "backslashes": (lines([(a.replace("/", "\\"), b, c) for a, b, c in ROWS]), "a.csv", {}),
    "quoted": (lines([(f'"{a}"', f'"{b}"', f' "{c}"') for a, b, c in ROWS]), "labels.csv", {}),
    "sep line": ("sep=;\n" + lines(ROWS, by=";"), "labels.csv", {}),
    "synonyms": (lines(ROWS, "Image_Path,Class Name,Data Set"), "labels.csv", {}),
    "id": (lines([(a[:-4], b, c) for a, b, c in ROWS], "id,breed,set"), "labels.csv",
           {"extension": "png", "label_column": "breed"}),
    "row number and path": (
        lines([(str(at), *row) for at, row in enumerate(ROWS)], "id,filename,label,split"),
        "labels.csv",
        {},
    ),
    "index of pandas": (
        lines([(str(at), *row) for at, row in enumerate(ROWS)], ",path,label,split"),
        "labels.csv",
        {},
    ),
    "no header": (lines(ROWS).split("\n", 1)[1], "labels.csv", {"header": False}),
    "list of Caffe": (
        lines([(a, b) for a, b, _ in ROWS], by=" ").split("\n", 1)[1],
        "list.txt",
        {"header": False, "test_fraction": 0.4},
    ),
    "empty rows": (lines(ROWS).replace("\n", "\n,,\n\n"), "labels.csv", {}),
    "names of split folders": (
        lines([(a, b, {"test": "Test Set", "train": "training_set"}[c]) for a, b, c in ROWS]),
        "labels.csv",
        {},
    ),
    "repeated rows": (lines(ROWS + ROWS[:3]), "labels.csv", {}),
    "other split names": (
        lines([(a, b, {"test": "B", "train": "A"}[c]) for a, b, c in ROWS]),
        "labels.csv",
        {"train": "A", "test": ["B"]},
    ),
    "validation alone": (lines([(a, b, c.replace("test", "Valid")) for a, b, c in ROWS]),
                         "labels.csv", {}),
    "numbered columns": (lines(ROWS, "x,y1,z"), "labels.csv",
                         {"path_column": 1, "label_column": 2, "split_column": 3}),
}  # fmt: skip


@pytest.mark.parametrize("kind", TABLES)
def test_ways_to_write_a_table(read: Read, folder: RawDataset, kind: str) -> None:
    text, name, settings = TABLES[kind]
    raw = read(text, name, **settings)
    if kind == "list of Caffe":  # without splits
        assert raw.classes == folder.classes
        assert raw.test is not None
        assert (len(raw.train), len(raw.test)) == (6, 4)
        return
    assert_same(raw, folder)


def test_skipped_and_repeated_rows_are_counted(read: Read) -> None:
    text = lines(ROWS + ROWS[:3]).replace("\n", "\n,,\n", 2)
    notes = read(text).notes
    assert "labels.csv: 2 empty rows were skipped." in notes
    assert any("3 rows repeat an image with the same label" in note for note in notes)


def test_without_splits_test_images_are_held_out(read: Read) -> None:
    text = lines([row[:2] for row in ROWS], "path,label")
    raw = read(text, test_fraction=0.4, split_column=False)
    assert raw.test is not None
    assert (len(raw.train), len(raw.test)) == (6, 4)
    again = read(lines(ROWS), split_column=False, test_fraction=0.4)
    assert again.fingerprint == raw.fingerprint


def test_folders_in_the_paths_tell_the_splits(read: Read, folder: RawDataset) -> None:
    """Unless an image lies elsewhere."""
    rows = [row[:2] for row in ROWS]
    raw = read(lines(rows, "path,label"))
    assert_same(raw, folder)
    assert any("splits from the folders in the paths" in note for note in raw.notes)
    train = [row for row in rows if row[0].startswith("train")]
    assert read(lines(train, "path,label")).test_is_drawn


def test_numeric_labels_are_ordered_by_value(read: Read, save: Save) -> None:
    rows = [("train/cat/0.png", "10"), ("train/cat/1.png", "9"), ("train/cat/2.png", "1")]
    rows += [("train/dog/0.png", "10"), ("train/dog/1.png", "9"), ("train/dog/2.png", "1")]
    raw = read(lines(rows, "path,label"), test_fraction=0.5)
    assert raw.classes == ("1", "9", "10")
    rows = [(path, f"class{label}") for path, label in rows]
    assert read(lines(rows, "path,label"), test_fraction=0.5).classes == (
        "class1",
        "class9",
        "class10",
    )


def test_classes_in_the_order_that_is_asked_for(read: Read) -> None:
    rows = [(path, "c9" if "cat" in path else "c10") for path, _, _ in ROWS]
    text = lines(rows, "path,label")
    raw = read(text)
    assert raw.classes == ("c9", "c10")
    assert any("dataset.class_order=lexicographic" in note for note in raw.notes)
    raw = read(text, class_order="lexicographic")
    assert raw.classes == ("c10", "c9")
    assert not any("lexicographic" in note for note in raw.notes)
    assert read(text, class_order=["c10", "c9"]).classes == ("c10", "c9")
    with pytest.raises(ConfigError, match="leaves out: c9"):
        read(text, class_order=["c10"])


def test_paths_are_relative_to_the_root_that_is_set(
    read: Read, folder: RawDataset, tree: Path, tmp_path: Path
) -> None:
    other = tmp_path / "elsewhere" / "labels.csv"
    other.parent.mkdir()
    other.write_text(lines(ROWS))
    settings: dict[str, Any] = {"file": str(other), "cache_root": tmp_path / "cache"}
    assert_same(table(root=str(tree), **settings), folder)
    with pytest.raises(DataError, match="10 of 10 listed files do not exist"):
        table(**settings)
    absolute = lines([(f"{tree}/{a}", b, c) for a, b, c in ROWS])
    other.write_text(absolute)
    assert_same(table(root=str(tree), **settings), folder)
    with pytest.raises(DataError, match=r"line 2: .* leaves .*dataset\.root="):
        table(**settings)


def test_minus_one_and_one_are_the_classes_of_a_binary_task(read: Read) -> None:
    signs = [(a, {"cat": "-1"}.get(b, "+1"), c) for a, b, c in ROWS]
    assert read(lines(signs)).classes == ("-1", "+1")


def test_two_tables_of_one_folder_keep_their_caches(read: Read, tmp_path: Path) -> None:
    first = read(lines(ROWS), "a.csv")
    second = read(lines(ROWS[:-1]), "b.csv")
    assert len(second.train) == len(first.train) - 1
    assert len([path for path in (tmp_path / "cache").iterdir() if path.is_dir()]) == 2


@pytest.mark.parametrize("path", ["../secret.png", "{tmp}/secret.png", "train/cat/link.png"])
def test_a_table_cannot_name_files_elsewhere(
    read: Read, save: Save, tree: Path, tmp_path: Path, path: str
) -> None:
    secret = save("secret.png")
    (tree / "train/cat/link.png").symlink_to(secret)
    text = lines([*ROWS, (path.format(tmp=tmp_path), "cat", "train")])
    with pytest.raises(DataError, match=r"line 12: .* leaves .*dataset\.follow_links=true"):
        read(text)
    assert len(read(text, follow_links=True).train) == 7


GOOD = lines(ROWS)
BAD: dict[str, tuple[str | bytes, dict[str, object], str]] = {
    "no label": (GOOD.replace("train/cat/2.png,cat", "train/cat/2.png, "), {},
                 r"1 of 10 rows have no label \(line \d+\)"),
    "no path": (GOOD.replace("train/cat/2.png,cat", ",cat"), {}, r"line \d+: the path is empty"),
    "unknown splits": (GOOD.replace(",test", ",fold1").replace("png,dog,train", "png,dog,"), {},
                       r"unknown split 'fold1' \(4\), empty \(3\): .*split_column=false"),
    "two labels": (GOOD + "train/cat/0.png,dog,train\n", {}, "'cat' in line 11 and 'dog' in line"),
    "two splits": (GOOD + "train/cat/0.png,cat,test\n", {}, "in the train split in line 11 and"),
    "no such file": (GOOD + "train/cat/9.png,cat,train\n", {}, "1 of 11 listed files do not exist"),
    "other case": (GOOD.replace("train/cat/0.png", "train/cat/0.PNG"), {}, "'0.png' differs only"),
    "no extension": (GOOD.replace(".png", ""), {}, r"add dataset\.extension=\.png"),
    "other folder": (GOOD.replace("train/", ""), {}, r"set dataset\.root=.*/train"),
    "address": (GOOD.replace("train/cat/0", "https://x.y/0"), {}, "is a URL: download"),
    "a folder": (GOOD + "train/cat,cat,train\n", {}, "is a folder, not an image file"),
    "fields": (GOOD + "train/cat/0.png,cat\n", {}, "line 12: 2 fields where the first line has 3"),
    "open quote": (GOOD + '"train/cat/0.png,cat,train\n', {}, "line 12: damaged quoting"),
    "no header": (GOOD.split("\n", 1)[1], {}, r"no header .*dataset\.header=false"),
    "header after all": (GOOD, {"header": False}, "names the columns"),
    "unknown columns": (GOOD.replace("label", "breed", 1), {}, r"no column named label .*'breed'"),
    "several": (GOOD.replace("split", "class", 1), {}, "set one of 'dataset.label_column=label'"),
    "wrong column": (GOOD, {"label_column": "lable"}, "Did you mean 'label'"),
    "number": (GOOD, {"label_column": 4}, "no such column"),
    "same column": (GOOD, {"label_column": "path"}, "a column is used twice"),
    "one column": ("path\na.png\n", {}, r"one column .*dataset\.delimiter"),
    "empty": ("", {}, "is empty"),
    "only a header": ("path,label\n", {}, "lists no images"),
    "latin": (lines([(a, b + "é", c) for a, b, c in ROWS]).encode("latin-1"), {},
              r"line 2: not utf-8: set dataset\.encoding"),
    "encoding": (GOOD, {"encoding": "utf-99"}, r"dataset\.encoding=utf-99 does not exist"),
    "delimiter": (GOOD, {"delimiter": "ab"}, r"dataset\.delimiter='ab' must be one character"),
    "spreadsheet": (b"PK\x03\x04....", {}, "export it as CSV"),
    "compressed": (b"\x1f\x8b....", {}, "gunzip"),
    "binary": (b"a\0b,c\0d", {}, "not a text file"),
    "one number": (lines([(a, {"cat": "1"}.get(b, "01"), c) for a, b, c in ROWS]), {},
                   "which are the same number"),
    "two Unicode forms": (
        lines([(a, unicodedata.normalize(f"NF{'CD'[at % 2]}", "é" + b), c)
               for at, (a, b, c) in enumerate(ROWS)]), {},
        r"'e\\u0301cat' and '\\xe9cat'.*NFC and NFD"),
    "no label as -1": (lines([(a, {"cat": "-1"}.get(b, "0"), c) for a, b, c in ROWS]), {},
                       "has the label -1, which usually marks unlabelled images"),
    "test class": (GOOD.replace("test/cat/0.png,cat", "test/cat/0.png,cow"), {},
                   "1 class of the test split has no training images: cow"),
    "no training images": (GOOD.replace(",train", ",test"), {}, "no training images"),
    "split twice": (GOOD, {"train": "x", "test": "x"}, "already names another split"),
    "root": (GOOD, {"root": "nowhere"}, r"dataset\.root=.*nowhere is not a folder"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_what_is_refused(read: Read, kind: str, tmp_path: Path) -> None:
    text, settings, words = BAD[kind]
    with pytest.raises((DataError, ConfigError), match=words):
        read(text, **settings)
    assert not (tmp_path / "cache").exists()


def test_tables_that_are_not_there(tree: Path, tmp_path: Path) -> None:
    (tree / "labels.csv").write_text(GOOD)
    for name, words in (
        ("lables.csv", "does not exist. Did you mean 'labels.csv'"),
        (".", "is a folder: it holds labels.csv"),
    ):
        with pytest.raises(DataError, match=words):
            table(file=str(tree / name), cache_root=tmp_path)
    (tree / "x.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="dataset=parquet"):
        table(file=str(tree / "x.parquet"), cache_root=tmp_path)


@pytest.mark.skipif(os.name == "nt", reason="pipes in the file system")
def test_a_pipe_is_refused(read: Read, tree: Path) -> None:
    os.mkfifo(tree / "pipe.png")
    with pytest.raises(DataError, match="neither a file nor a folder"):
        read(GOOD + "pipe.png,cat,train\n")


def test_classes_that_differ_in_case_are_named(read: Read) -> None:
    text = GOOD.replace("train/cat/0.png,cat", "train/cat/0.png,Cat")
    assert any("'Cat' and 'cat'" in note for note in read(text).notes)


@pytest.mark.parametrize("letter", ["\u200b", "\ufeff", "\u00ad"])
def test_invisible_characters_in_labels_are_noted(read: Read, letter: str) -> None:
    text = GOOD.replace("train/cat/0.png,cat", f"train/cat/0.png,cat{letter}")
    assert any("invisible characters: 'cat' and 'cat\\" in note for note in read(text).notes)


@pytest.mark.parametrize("words", [("True", "False"), ("1", "0"), ("yes", "no")])
@pytest.mark.parametrize("header", ["is_valid", "is_test"])
def test_a_column_of_yes_and_no(
    read: Read, folder: RawDataset, header: str, words: tuple[str, str]
) -> None:
    rows = [(path, name, words[split == "train"]) for path, name, split in ROWS]
    assert_same(read(lines(rows, header=f"path,label,{header}")), folder)
    with pytest.raises(DataError, match="unknown split 'perhaps'"):
        read(lines([*rows[1:], (*rows[0][:2], "perhaps")], header=f"path,label,{header}"))


@pytest.mark.parametrize("header", ["is_train", "is_training_image"])
def test_a_column_of_training_images(read: Read, folder: RawDataset, header: str) -> None:
    rows = [(path, name, str(int(split == "train"))) for path, name, split in ROWS]
    assert_same(read(lines(rows, header=f"path,label,{header}")), folder)


@pytest.mark.parametrize(
    ("header", "yes"),
    [("train", "train"), ("Test set", "test"), ("valid", "val"), ("meta.is_valid", "val")],
)
def test_a_split_as_the_name_of_a_column_of_yes_and_no(
    read: Read, folder: RawDataset, header: str, yes: str
) -> None:
    rows = [(path, name, str((split == "train") == (yes == "train"))) for path, name, split in ROWS]
    text = lines(rows, header=f"path,label,{header}")
    with pytest.raises(DataError, match=rf"'{header}' tells the splits.*split_column={header}"):
        read(text)
    assert_same(read(text, split_column=header), folder)
    assert len(read(text, split_column=False, test_fraction=0.4).train) == 6
    other = [(path, name, str(number)) for number, (path, name, _) in enumerate(rows)]
    assert len(read(lines(other, header=f"path,label,{header}"), test_fraction=0.4).train) == 6
    same = [(path, name, "1") for path, name, _ in rows]
    assert len(read(lines(same, header=f"path,label,{header}"), test_fraction=0.4).train) == 6


@pytest.mark.parametrize(
    "names",
    [
        {"train": "TRAIN", "test": "TEST"},
        {"train": "Training", "test": "PublicTest"},
        {"train": "train", "test": "test", "test/dog/1.png": ""},
        {"train": "train", "test": "test", "test/dog/1.png": "extra"},
    ],
)
def test_a_column_that_mostly_tells_the_splits(read: Read, names: dict[str, str]) -> None:
    rows = [(path, name, names.get(path, names[split])) for path, name, split in ROWS]
    with pytest.raises(DataError, match=r"'Dataset_type' tells the splits"):
        read(lines(rows, header="path,label,Dataset_type"))


@pytest.mark.parametrize(
    "words", [["train", "test", "bus", "car"], ["train"], ["a test", "b", "c"]]
)
def test_a_column_of_other_words_is_no_split(read: Read, words: list[str]) -> None:
    rows = [(path, name, words[at % len(words)]) for at, (path, name, _) in enumerate(ROWS)]
    text = lines(rows, header="path,label,scene")
    assert len(read(text, test_fraction=0.4).train) == 6


def test_two_columns_that_tell_different_splits(read: Read, folder: RawDataset) -> None:
    rows = [(path, name, "train", str(int(split == "test"))) for path, name, split in ROWS]
    text = lines(rows, header="path,label,set,is_test")
    with pytest.raises(DataError, match=r"by column 'is_test', .* held out, and by column 'set'"):
        read(text)
    assert_same(read(text, split_column="is_test"), folder)
    assert len(read(text, split_column="set", test_fraction=0.4).train) == 6
    rows = [(path, name, split, str(int(split == "test"))) for path, name, split in ROWS]
    assert_same(read(lines(rows, header="path,label,set,is_test")), folder)  # they agree


@pytest.mark.parametrize("header", ["phase", "Usage", "data_split", "train_test"])
def test_less_common_names_of_the_split_column(read: Read, folder: RawDataset, header: str) -> None:
    assert_same(read(lines(ROWS, header=f"path,label,{header}")), folder)


def test_a_column_of_splits_is_not_overlooked(read: Read, folder: RawDataset) -> None:
    text = lines(ROWS, header="path,label,Image Type")
    with pytest.raises(DataError, match=r"'Image Type' .*'dataset\.split_column=Image Type'"):
        read(text)
    assert_same(read(text, split_column="Image Type"), folder)
    assert len(read(text, split_column=False, test_fraction=0.4).train) == 6


def test_a_column_with_other_values_or_one_split_is_no_split_column(read: Read) -> None:
    for last in ("train", "sketch"):
        rows = [(path, name, "train") for path, name, _ in ROWS[1:]]
        rows.append((*ROWS[0][:2], last))
        assert len(read(lines(rows, header="path,label,type"), test_fraction=0.4).train) == 6


def test_a_label_column_may_be_called_like_a_split_column(read: Read) -> None:
    text = lines([(path, name) for path, name, _ in ROWS], header="path,phase")
    assert read(text, label_column="phase", test_fraction=0.4).classes == ("cat", "dog")


@pytest.mark.parametrize("column", ["class_id", "class_idx", "Label Index", "target_id"])
def test_class_numbers_in_another_order_are_noted(read: Read, column: str) -> None:
    rows = [(*row, str(int(row[1] == "cat"))) for row in ROWS]
    header = f"path,label,split,{column}"
    (note,) = [note for note in read(lines(rows, header)).notes if "class_order" in note]
    assert f"column '{column}'" in note
    assert "'dataset.class_order=[dog,cat]'" in note
    rows = [(*row, str(int(row[1] == "dog"))) for row in ROWS]
    same = read(lines(rows, header)).notes
    other = read(lines([(*row, str(at)) for at, row in enumerate(ROWS)], header)).notes
    assert not any("class_order" in note for note in (*same, *other))


@pytest.mark.parametrize("word", ["nan", "NaN", "null", "N/A"])
def test_words_for_none_are_no_labels_among_numbers(read: Read, word: str) -> None:
    rows = [(path, str(int(name == "dog")), split) for path, name, split in ROWS]
    rows[3] = (rows[3][0], word, rows[3][2])
    with pytest.raises(DataError, match=r"1 of 10 rows have no label \(line 5\)"):
        read(lines(rows))


def test_words_for_none_are_labels_among_words(read: Read) -> None:
    rows = [(path, "none" if name == "dog" else name, split) for path, name, split in ROWS]
    assert read(lines(rows)).classes == ("cat", "none")


def labelled(*labels: str) -> set[str]:
    return {*labels, "cat", "dog"}


@pytest.mark.parametrize("word", ["nan", "NaN", "NULL", "?", "N/A", "<NA>", "-"])
def test_words_for_none_are_no_classes_among_words(word: str) -> None:
    with pytest.raises(DataError, match=r"which marks a missing one: .* dataset\.class_order"):
        classes_in_order(labelled(word), "a.csv", "natural")
    listed = ["cat", "dog", word]
    assert classes_in_order(labelled(word), "a.csv", listed)[0] == listed


@pytest.mark.parametrize("word", ["none", "NA"])
def test_words_that_may_be_a_class_are_noted(word: str) -> None:
    classes, notes = classes_in_order(labelled(word), "a.csv", "natural")
    assert word in classes
    assert f"the label {word!r} may mark a missing one" in notes[-1]


def test_single_characters_are_classes() -> None:
    assert classes_in_order({"a", "?", "-"}, "a.csv", "natural")[0] == ["-", "?", "a"]


def test_file_names_tell_the_splits(read: Read, folder: RawDataset, tree: Path) -> None:
    renamed = []
    for path, label, split in ROWS:
        new = f"all/{split}_{label}_{Path(path).name}"
        (tree / "all").mkdir(exist_ok=True)
        (tree / path).rename(tree / new)
        renamed.append((new, label))
    raw = read(lines(renamed, "path,label"))
    assert_same_images(raw, folder)
    assert "splits from the file names of the images." in " ".join(raw.notes)
    constant = [(new, new.split("_")[0]) for new, _ in renamed]  # the class itself
    assert "splits from" not in " ".join(read(lines(constant, "path,label")).notes)


@pytest.mark.parametrize("joint", ["|", ", ", ";", " ", "+"])
def test_several_labels_of_one_image_are_noted(joint: str) -> None:
    both = f"cat{joint}dog"
    notes = classes_in_order(labelled(both), "a.csv", "natural")[1]
    assert notes == [
        f"a.csv: 1 of 3 labels join others ({both}): each is a class of its own, because an image "
        "has one class."
    ]
    assert classes_in_order(labelled(f"hot{joint}dog"), "a.csv", "natural")[1] == []
