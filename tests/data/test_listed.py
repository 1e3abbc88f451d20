"""Splits of class folders that lists near the images or file names tell."""

import json
from pathlib import Path

import pytest

from kdrun.data.folders.read import read_tree
from kdrun.data.tree import Tree
from kdrun.errors import ConfigError, DataError

FOOD = {"train": ["cat/0", "cat/1", "dog/0"], "test": ["cat/2", "dog/2"]}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """data/images/{cat,dog}/{0,1,2}.jpg, empty files."""
    for label in ("cat", "dog"):
        (tmp_path / "data" / "images" / label).mkdir(parents=True)
        for number in range(3):
            (tmp_path / "data" / "images" / label / f"{number}.jpg").touch()
    return tmp_path / "data"


def write(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def shape(tree: Tree) -> dict[str, list[str]]:
    """Split → `cat/0` of its images."""
    return {
        split: ["/".join(Path(str(path)).with_suffix("").parts[-2:]) for path in files.paths]
        for split, files in tree.splits.items()
    }


@pytest.mark.parametrize("below", [False, True])
@pytest.mark.parametrize("line", ["{}", "{}.jpg", "./images/{}.jpg 3", "/x/{}.jpg,label", "{}\t1"])
@pytest.mark.parametrize("place", ["meta", ".", "meta/splits"])
def test_lists_are_read(root: Path, line: str, place: str, below: bool) -> None:
    for split, names in FOOD.items():
        write(root / place / f"{split}.txt", *map(line.format, names))
    write(root / "meta" / "classes.txt", "cat", "dog")
    tree = read_tree(root / "images" if below else root, folders={})
    assert shape(tree) == FOOD
    notes = " ".join(tree.notes)
    assert "train.txt and " in notes
    assert f"dataset.train_folder={'.' if below else 'images'} ignores them" in notes
    assert "1 images are in none of these splits: not used." in tree.notes
    everything = read_tree(root, folders={"train": "images"})
    assert {split: len(files) for split, files in everything.splits.items()} == {"train": 6}
    assert set(read_tree(root).splits) == {"train"}  # a published data set has splits of its own


def test_as_the_birds_of_caltech_come(root: Path) -> None:
    names = [f"{label}/{number}.jpg" for label in ("cat", "dog") for number in range(3)]
    write(root / "images.txt", *(f"{at} {name}" for at, name in enumerate(names, 1)))
    write(root / "train_test_split.txt", *(f"{at} {int(at % 3 > 0)}" for at in range(1, 7)))
    assert shape(read_tree(root, folders={})) == {
        "train": ["cat/0", "cat/1", "dog/0", "dog/1"],
        "test": ["cat/2", "dog/2"],
    }


@pytest.mark.parametrize("name", ["split.json", "two files"])
def test_json_lists(root: Path, name: str) -> None:
    if name == "split.json":
        entries = {split: [[f"{x}.jpg", 0, "x"] for x in names] for split, names in FOOD.items()}
        (root / name).write_text(json.dumps(entries))
    else:
        for split, names in FOOD.items():
            (root / f"{split}.json").write_text(json.dumps({"any": names}))
            write(root / f"{split}.txt", *names)
    assert shape(read_tree(root, folders={})) == FOOD


@pytest.mark.parametrize(("test", "val"), [("testing_list", "validation_list"), ("test", "val")])
def test_the_rest_is_for_training(root: Path, test: str, val: str) -> None:
    write(root / f"{test}.txt", "cat/0.jpg", "dog/0.jpg")
    write(root / f"{val}.txt", "cat/1.jpg")
    found = shape(read_tree(root, folders={}))
    assert found == {
        "train": ["cat/2", "dog/1", "dog/2"],
        "val": ["cat/1"],
        "test": ["cat/0", "dog/0"],
    }


def test_validation_alone_is_for_testing(root: Path) -> None:
    write(root / "val.txt", "cat/0.jpg", "dog/0.jpg")
    tree = read_tree(root, folders={})
    assert shape(tree)["test"] == ["cat/0", "dog/0"]
    assert any("No test split" in note for note in tree.notes)


def test_several_partitions_are_refused_and_one_is_chosen(root: Path) -> None:
    for number in range(1, 12):
        for split, names in FOOD.items():
            write(root / "labels" / f"{split}{number}.txt", *(f"{name}.jpg" for name in names))
    text = (
        r"dataset\.train_folder=labels/train1\.txt dataset\.test_folder=labels/test1\.txt reads "
        r"them, dataset\.train_folder=images ignores them\."
    )
    with pytest.raises(DataError, match=text):
        read_tree(root, folders={})
    one = {"train": "labels/train1.txt", "test": "labels/test1.txt"}
    tree = read_tree(root, folders=one)
    assert shape(tree) == FOOD
    assert tree.origin != read_tree(root, folders={"train": "images"}).origin
    rest = read_tree(root, folders={"test": "labels/test1.txt"})
    assert shape(rest)["train"] == ["cat/0", "cat/1", "dog/0", "dog/1"]
    write(root / "notes.txt", "cats and dogs")
    with pytest.raises(ConfigError, match=r"lists no images below .*images: give a file"):
        read_tree(root, folders={"train": "notes.txt"})


def test_a_list_of_a_part_is_refused(root: Path) -> None:
    write(root / "train.txt", "cat/0.jpg", "dog/0.jpg")
    with pytest.raises(DataError, match=r"dataset\.train_folder=train\.txt reads them"):
        read_tree(root, folders={})
    assert shape(read_tree(root, folders={"train": "train.txt"})) == {"train": ["cat/0", "dog/0"]}


def test_lists_that_overlap_or_lack_a_class_are_refused(root: Path) -> None:
    write(root / "train.txt", "cat/0.jpg", "dog/0.jpg")
    write(root / "test.txt", "cat/0.jpg", "dog/1.jpg")
    with pytest.raises(
        DataError, match=r"1 images are in the train and the test split, e\.g\. .*0"
    ):
        read_tree(root, folders={})
    write(root / "train.txt", "cat/1.jpg", "cat/2.jpg")
    with pytest.raises(DataError, match=r"1 of 2 classes have no training images \(dog\)"):
        read_tree(root, folders={})
    (root / "train.txt").unlink()
    write(root / "test.txt", *(f"{x}/{n}.jpg" for x in ("cat", "dog") for n in range(3)))
    with pytest.raises(DataError, match=r"2 of 2 classes have no training images \(cat, dog\)"):
        read_tree(root, folders={})


def test_trainval_is_the_same_as_its_parts(root: Path) -> None:
    lists = {"train": ["cat/0", "dog/0"], "val": ["cat/1"], "test": ["cat/2", "dog/1"]}
    for split, names in lists.items():
        write(root / f"{split}.txt", *names)
    write(root / "trainval.txt", *lists["train"], *lists["val"])
    assert shape(read_tree(root, folders={})) == lists


def test_a_table_with_splits_is_named(root: Path) -> None:
    rows = [f"images/{name}.jpg,x,{split}" for split, names in FOOD.items() for name in names]
    write(root / "meta.csv", "path,label,split", *rows)
    text = r"dataset=table dataset\.file=.*meta\.csv dataset\.root=.*images reads it, "
    with pytest.raises(DataError, match=text):
        read_tree(root, folders={})
    assert set(read_tree(root, folders={"train": "images"}).splits) == {"train"}


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("train.txt", ["epoch 1 loss 0.3", "epoch 2 loss 0.2"]),
        ("test.txt", ["lion/0.jpg", "tiger/1.jpg"]),
        ("train.txt", [f"{x}/{n}.jpg 0" for x in ("cat", "dog") for n in range(3)]),
        ("README.txt", ["cat/0.jpg"]),
        ("train.json", ["{"]),
        ("labels.csv", ["path,label", "cat/0.jpg,cat"]),
        ("train_test_split.txt", ["1 0"]),
    ],
)
def test_other_files_are_no_lists(root: Path, name: str, lines: list[str]) -> None:
    write(root / name, *lines)
    assert set(read_tree(root, folders={}).splits) == {"train"}


def test_lists_that_cannot_be_read_are_noted(root: Path) -> None:
    (root / "test_list.mat").touch()
    said = "These may list images of splits, and are not read: test_list.mat."
    assert said in read_tree(root, folders={}).notes


@pytest.mark.parametrize("name", ["{0}/{1}.txt", "splits/{0}/{1}.txt", "s/{1}_{0}_split1.txt",
                                  "images/{1}/{0}.txt"])  # fmt: skip
def test_lists_for_each_class_are_noted(root: Path, name: str) -> None:
    for label in ("cat", "dog"):
        write(root / name.format("train", label), "0.jpg 1", "1.jpg 1")
        write(root / name.format("test", label), "2.jpg 2")
    tree = read_tree(root, folders={})
    assert "These may list images of splits, and are not read: " in " ".join(tree.notes)
    assert name.format("test", "dog") in " ".join(tree.notes)


def test_other_names_count_in_pairs(root: Path) -> None:
    write(root / "test_results.txt", "cat/0.jpg 0.9", "dog/0.jpg 0.4")
    tree = read_tree(root, folders={})
    assert set(tree.splits) == {"train"}
    said = "These may list images of splits, and are not read: test_results.txt."
    assert said in tree.notes
    for split, names in FOOD.items():
        write(root / f"birds_{split}.txt", *names)
    assert shape(read_tree(root, folders={})) == FOOD


def test_names_without_a_class_and_an_extension(root: Path) -> None:
    for label in ("cat", "dog"):
        for image in (root / "images" / label).iterdir():
            image.rename(image.with_name(f"{label}_{image.name}"))
    write(root / "train.txt", "cat_0", "cat_1", "dog_0 1")
    write(root / "test.txt", "cat_2", "dog_2 1")
    assert len(read_tree(root, folders={}).splits["test"]) == 2


def renamed(root: Path, pattern: str, *splits: str) -> None:
    for number, split in enumerate(splits):
        for label in ("cat", "dog"):
            old = root / "images" / label / f"{number}.jpg"
            old.rename(old.with_name(pattern.format(split, label, number) + ".jpg"))


@pytest.mark.parametrize("pattern", ["{0}_{2}", "{0}_{1}_{2}", "{1}-{2}-{0}", "{1}{2}.{0}"])
def test_file_names_tell_the_splits(root: Path, pattern: str) -> None:
    renamed(root, pattern, "train", "Test", "train")
    tree = read_tree(root, folders={})
    assert {split: len(files) for split, files in tree.splits.items()} == {"train": 4, "test": 2}
    said = "Splits from the file names; dataset.train_folder=images ignores them."
    assert said in tree.notes
    assert set(read_tree(root, folders={"train": "images"}).splits) == {"train"}


def test_file_names_of_one_word_tell_nothing(root: Path) -> None:
    renamed(root, "train_{2}", "", "", "")
    assert set(read_tree(root, folders={}).splits) == {"train"}
    for image in (root / "images" / "dog").iterdir():
        image.rename(image.with_name(image.name.replace("train", "test_tube")))
    assert set(read_tree(root, folders={}).splits) == {"train"}


def test_file_names_of_most_images_are_refused(root: Path) -> None:
    renamed(root, "{0}_{2}", "train", "test", "train")
    for number in range(4, 9):
        (root / "images" / "cat" / f"train_{number}.jpg").touch()
    (root / "images" / "cat" / "3.jpg").touch()
    with pytest.raises(DataError, match=r"names of most images tell their splits .*train_0"):
        read_tree(root, folders={})


def test_lists_in_a_folder_next_to_the_classes(root: Path) -> None:
    for split, names in FOOD.items():
        write(root / "images" / "meta" / f"{split}.txt", *names)
    assert shape(read_tree(root / "images", folders={})) == FOOD


def test_lists_that_number_the_classes_in_another_order(root: Path) -> None:
    for split, names in FOOD.items():
        write(root / f"{split}.txt", *(f"{name}.jpg {int('cat' in name)}" for name in names))
    notes = read_tree(root, folders={}).notes
    assert sum("numbers the classes in another order: dog, cat" in note for note in notes) == 2
    for split, names in FOOD.items():
        write(root / f"{split}.txt", *(f"{name}.jpg {int('dog' in name)}" for name in names))
    assert "another order" not in " ".join(read_tree(root, folders={}).notes)


def test_lists_whose_labels_are_not_the_folders(root: Path) -> None:
    names = [f"{label}/{number}.jpg" for label in ("cat", "dog") for number in range(3)]
    write(root / "train.txt", *(f"{name} {at % 3}" for at, name in enumerate(names)))
    text = r"several labels \(0, 1, 2\), so the folders are no classes: dataset=table"
    with pytest.raises(DataError, match=text):
        read_tree(root, folders={})
    write(
        root / "train.txt", *(f"{name} {at // 3}" for at, name in enumerate(names)), "dog/0.jpg 0"
    )
    assert "train.txt gives images in dog/ several labels: not read." in (
        read_tree(root, folders={}).notes
    )
