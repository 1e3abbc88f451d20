"""Layouts of image folders: what is recognised, what stops, and what each remedy then reads."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from kdrun.data.folders.read import read_tree
from kdrun.data.folders.split_names import split_names
from kdrun.data.tree import Tree
from kdrun.errors import ConfigError, DataError

Make = Callable[..., Path]
PETS = ("cat", "dog")


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """make("train/{cat,dog}/2", ...) writes empty image files: so many into each folder."""

    def write(*patterns: str) -> Path:
        root = tmp_path / "root"
        root.mkdir(exist_ok=True)
        for pattern in patterns:
            match = re.fullmatch(r"(.*?)\{(.*?)\}(.*)", pattern)
            names = [match[1] + one + match[3] for one in match[2].split(",")] if match else []
            if match:
                write(*names)
                continue
            folder, _, number = pattern.rpartition("/")
            (root / folder).mkdir(parents=True, exist_ok=True)
            for index in range(int(number)):
                (root / folder / f"{index}.png").touch()
        return root

    return write


def sizes(tree: Tree) -> dict[str, int]:
    return {name: len(files) for name, files in tree.splits.items()}


def read(root: Path, *settings: str) -> Tree:
    """The tree read with settings as a user types them."""
    words = [word.removeprefix("dataset.").partition("=") for word in settings]
    folders = {key.removesuffix("_folder"): value.strip('"') for key, _, value in words}
    return read_tree(root, folders=folders)


def remedies(error: DataError) -> list[str]:
    """The settings a message names, as the shell passes them on."""
    found = re.findall(r"'dataset\.\w+_folder=.*?'|dataset\.\w+_folder=[^ ,;:]+", str(error))
    return [shlex.split(word.rstrip("."))[0] if word[0] == "'" else word for word in found]


def stops(root: Path, words: str, *settings: str) -> list[str]:
    """The settings named by the error that reading ends in."""
    with pytest.raises(DataError, match=words) as caught:
        read(root, *settings)
    return remedies(caught.value)


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (("training_set", "test_set"), ("train", "test")),
        (("train_set", "testset"), ("train", "test")),
        (("TRAIN", "Test"), ("train", "test")),
        (("Training", "Testing"), ("train", "test")),
        (("train", "valid", "test"), ("train", "val", "test")),
        (("train", "dev", "test"), ("train", "val", "test")),
        (("train", "eval"), ("train", "test")),
        (("train", "holdout"), ("train", "test")),
        (("train", "hold_out"), ("train", "test")),
        (("train", "validation", "holdout"), ("train", "val", "test")),
        (("train_images", "test_images"), ("train", "test")),
        (("images-train", "images-val"), ("train", "test")),
        (("train2017", "val2017"), ("train", "test")),
        (("TrainingData", "ValidationData"), ("train", "test")),
        (("seg_train", "seg_test"), ("train", "test")),
        (("signs_train", "signs_test"), ("train", "test")),
        (("Training Data", "Testing Data"), ("train", "test")),
        (("trn", "tst"), ("train", "test")),
    ],
)
@pytest.mark.parametrize("nested", [False, True])
def test_usual_names(make: Make, names: tuple[str, ...], splits: list[str], nested: bool) -> None:
    for size, name in enumerate(names, 2):
        make(f"{name}/{name}/{{cat,dog}}/{size}" if nested else f"{name}/{{cat,dog}}/{size}")
    tree = read(make())
    assert tree.classes == PETS
    assert sizes(tree) == {split: 2 * size for size, split in enumerate(splits, 2)}
    assert not any("not read" in note.lower() for note in tree.notes)


def test_val_used_as_the_test_split_is_said(make: Make) -> None:
    assert read(make("{train,eval}/{cat,dog}/1")).notes == (
        "No test split: eval/ is used for testing.",
    )


@pytest.mark.parametrize("wrapper", ["archive", "data/inner", "chest_xray", "images"])
def test_wrapping_folders_are_entered(make: Make, wrapper: str) -> None:
    root = make(f"{wrapper}/{{train,test}}/{{cat,dog}}/1")
    (root / "labels").mkdir()
    (root / "labels" / "train1.txt").touch()
    tree = read(root)
    assert sizes(tree) == {"train": 2, "test": 2}
    assert tree.notes[0] == f"Read from {wrapper}/, the only folder with images."
    assert "Folders not read: labels/ (no images)." in tree.notes


def test_as_the_textures_come(make: Make) -> None:
    root = make("dtd/dtd/images/{banded,braided,dotted}/2")
    for name in ("labels", "imdb"):
        (root / "dtd" / "dtd" / name).mkdir()
    tree = read(root)
    assert tree.classes == ("banded", "braided", "dotted")
    assert sizes(tree) == {"train": 6}
    assert tree.notes[-1] == (
        "Folders not read: dtd/dtd/imdb/ (no images), dtd/dtd/labels/ (no images)."
    )


def test_as_intel_scenes_come(make: Make) -> None:
    root = make("seg_{train,test}/seg_{train,test}/{sea,street}/2")
    for wrong in ("seg_train/seg_test", "seg_test/seg_train"):
        for label in ("sea", "street"):
            for image in (root / wrong / label).iterdir():
                image.unlink()
            (root / wrong / label).rmdir()
        (root / wrong).rmdir()
    make("seg_pred/seg_pred/3")
    tree = read(root)
    assert tree.classes == ("sea", "street")
    assert sizes(tree) == {"train": 4, "test": 4}
    assert tree.notes == ("Folders not read: seg_pred/ (3 images).",)


def test_as_kaggle_cats_and_dogs_come(make: Make) -> None:
    root = make("training_set/training_set/{cats,dogs}/3", "test_set/test_set/{cats,dogs}/2")
    for folder in root.rglob("cats"):
        (folder / "_DS_Store").touch()
    tree = read(root)
    assert tree.classes == ("cats", "dogs")
    assert sizes(tree) == {"train": 6, "test": 4}
    assert tree.notes == ("Skipped, not images: 2 without extension.",)


def test_every_unread_folder_is_named_with_its_images(make: Make) -> None:
    tree = read(make("{train,test}/{cat,dog}/1", "extra/a/3", "drafts/0", "one/1"))
    assert tree.notes == (
        "Folders not read: drafts/ (no images), extra/ (3 images), one/ (1 image).",
    )


def test_images_outside_class_folders_are_counted(make: Make) -> None:
    tree = read(make("{train,test}/{cat,dog}/1", "train/2", "1"))
    assert sizes(tree) == {"train": 2, "test": 2}
    assert "1 image in ./ lies outside the class folders: not read." in tree.notes
    assert "2 images in train/ lie outside the class folders: not read." in tree.notes


@pytest.mark.parametrize("inside", ["test/5", "test/test/5", "test/images/5", "test1/5"])
def test_unlabelled_test_images_are_said_and_not_used(make: Make, inside: str) -> None:
    tree = read(make("train/{cat,dog}/2", inside))
    assert sizes(tree) == {"train": 4}
    folder = inside.split("/")[0]
    assert tree.notes == (
        f"{folder}/ has 5 images without class folders: they have no labels and are not used.",
        f"Folders not read: {folder}/ (5 images).",
    )


def test_with_unlabelled_test_images_val_is_the_test_split(make: Make) -> None:
    tree = read(make("train/{cat,dog}/2", "val/{cat,dog}/1", "test/9"))
    assert sizes(tree) == {"train": 4, "test": 2}
    assert tree.notes[:2] == (
        "test/ has 9 images without class folders: they have no labels and are not used.",
        "No test split: val/ is used for testing.",
    )


def test_an_unsorted_imagenet_val_is_not_used(make: Make) -> None:
    tree = read(make("train/{n01,n02}/2", "val/7"))
    assert sizes(tree) == {"train": 4}
    assert "val/ has 7 images without class folders" in tree.notes[0]


def test_a_class_may_have_no_test_images(make: Make) -> None:
    tree = read(make("train/{cat,dog,emu}/2", "test/{cat,dog}/1", "test/emu/0"))
    assert tree.classes == ("cat", "dog", "emu")
    assert list(tree.splits["test"].targets) == [0, 1]


@pytest.mark.parametrize("split", ["test", "val", "dev"])
def test_a_class_only_outside_of_training_is_named(make: Make, split: str) -> None:
    root = make("train/{cat,dog}/2", f"{split}/{{cat,dog,dgo,emu}}/1")
    stops(
        root, rf"Classes only in {split}/, without training images: dgo, emu\. Did you mean 'dog'"
    )


def test_the_remedies_for_such_a_class_work(make: Make) -> None:
    root = make("train/{cat,dog}/2", "test/{cat,dog,emu}/1")
    stops(root, r"A class only in test/, without training images: emu.*move .*test/emu\.")
    (root / "test" / "emu").rename(root.parent / "emu")
    assert sizes(read(root)) == {"train": 4, "test": 2}
    make("train/emu/1", "test/emu/1")
    assert sizes(read(root)) == {"train": 5, "test": 3}


def test_the_only_class_of_a_test_split_is_a_class(make: Make) -> None:
    root = make("train/{cat,dog}/2", "test/dog/1")
    assert list(read(root).splits["test"].targets) == [1]
    make("train2/{cat,dog}/a/1", "test2/cat/a/3")
    tree = read(root, "train_folder=train2", "test_folder=test2")
    assert list(tree.splits["test"].targets) == [0, 0, 0]


def test_names_in_two_unicode_forms_are_one_class(make: Make) -> None:
    tree = read(make("train/{caf\u00e9,dog}/2", "test/{cafe\u0301,dog}/1"))
    assert sizes(tree) == {"train": 4, "test": 2}


@pytest.mark.parametrize("split", ["train", "test"])
def test_two_classes_that_are_one_name_are_refused(make: Make, split: str) -> None:
    other = {"train": "test", "test": "train"}[split]
    root = make(f"{split}/{{caf\u00e9,cafe\u0301,dog}}/2", f"{other}/{{caf\u00e9,dog}}/1")
    stops(root, rf"{split} has the classes 'cafe\\u0301' and 'caf\\xe9'")


def test_classes_that_look_alike_are_noted(make: Make) -> None:
    notes = read(make("{Cat,cat,dog,dog\u200b}/2")).notes
    assert any("'Cat' and 'cat'; 'dog' and 'dog\\u200b'" in note for note in notes)


# What can be read in two ways.


def test_two_validation_splits(make: Make) -> None:
    root = make("{train,val,eval}/{cat,dog}/1")
    words = stops(root, "both val/ and eval/, names of the same split")
    assert words == ["dataset.val_folder=val", "dataset.test_folder=eval"]
    assert sizes(read(root, *words)) == {"train": 2, "val": 2, "test": 2}


@pytest.mark.parametrize("other", ["training", "train_set", "Train1"])
def test_two_training_splits(make: Make, other: str) -> None:
    root = make(f"{{train,{other},test}}/{{cat,dog}}/1")
    words = stops(root, "names of the same split")
    assert sizes(read(root, words[0])) == {"train": 2, "test": 2}


def test_a_plain_name_wins_over_one_with_a_meaning_of_its_own(make: Make) -> None:
    tree = read(make("{Training,Test}/{apple,kiwi}/2", "test-multiple_fruits/4"))
    assert sizes(tree) == {"train": 4, "test": 4}
    assert tree.notes == ("Folders not read: test-multiple_fruits/ (4 images).",)


def test_unknown_names_of_splits(make: Make) -> None:
    root = make("{part_a,part_b}/{cat,dog}/1")
    words = stops(root, r"part_a/, part_b/ have the same sub-folders \(cat, dog")
    assert words == [
        "dataset.train_folder=part_a",
        "dataset.test_folder=part_b",
        "dataset.train_folder=*",
    ]
    assert sizes(read(root, *words[:2])) == {"train": 2, "test": 2}
    mixed = read(root, words[2])
    assert mixed.classes == ("part_a", "part_b")
    assert sizes(mixed) == {"train": 4}


def test_unknown_names_around_wrappers(make: Make) -> None:
    root = make("a/x/{cat,dog}/1", "b/y/{cat,dog,emu}/1", "c/1")
    words = stops(root, "a/, b/ have the same sub-folders")
    assert sizes(read(root, "train_folder=b", "test_folder=a")) == {"train": 3, "test": 2}
    assert "dataset.train_folder=a" in words


def test_folds_inside_the_training_split(make: Make) -> None:
    root = make("train/{fold1,fold2}/{cat,dog}/1", "test/{cat,dog}/1")
    words = stops(root, "same sub-folders")
    assert words[0] == "dataset.train_folder=train/fold1"
    assert sizes(read(root, words[0])) == {"train": 2, "test": 2}


@pytest.mark.parametrize("more", [(), ("emu/train/1",)])
def test_splits_below_classes(make: Make, more: tuple[str, ...]) -> None:
    root = make("{cat,dog}/{train,test}/2", *more)
    words = stops(root, "contain the splits")
    assert words[:2] == ["dataset.train_folder=*/train", "dataset.test_folder=*/test"]
    tree = read(root, *words[:2])
    assert tree.classes == (*PETS, *(["emu"] if more else []))
    assert sizes(tree) == {"train": 4 + len(more), "test": 4}
    assert sizes(read(root, words[2])) == {"train": 8 + len(more)}


def test_splits_below_classes_below_a_wrapper(make: Make) -> None:
    root = make("data/{cat,dog}/{Train,Val,Test}/2")
    words = stops(root, "contain the splits")
    tree = read(root, *words[:3])
    assert sizes(tree) == {"train": 4, "val": 4, "test": 4}


def test_split_names_beside_the_images_of_classes(make: Make) -> None:
    root = make("{cat,dog}/2", "{cat,dog}/Testing/1")
    words = stops(root, "contain images and Testing/, the name of a split: move the images of each")
    assert words == ["dataset.train_folder=*"]
    assert sizes(read(root, *words)) == {"train": 6}
    for name in PETS:
        (root / name / "train").mkdir()
        for image in (root / name).glob("*.png"):
            image.rename(root / name / "train" / image.name)
    words = stops(root, "contain the splits")
    assert sizes(read(root, *words[:2])) == {"train": 4, "test": 2}


def test_one_class_with_such_a_folder_is_no_split(make: Make) -> None:
    assert sizes(read(make("{cat,dog}/2", "cat/test/1"))) == {"train": 5}


def test_images_and_test_below_classes(make: Make) -> None:
    root = make("{cat,dog}/images/3", "{cat,dog}/test/1")
    words = stops(root, "contain the splits")
    assert words[:2] == ["dataset.train_folder=*/images", "dataset.test_folder=*/test"]
    assert sizes(read(root, *words[:2])) == {"train": 6, "test": 2}


def test_folds_with_splits_of_their_own_are_no_classes(make: Make) -> None:
    root = make("fold{1,2}/train/4", "fold{1,2}/test/2")
    for path in list(root.rglob("*.png")):  # fold1/train/{cat,dog}/…
        folder = path.parent / PETS[int(path.stem) % 2]
        folder.mkdir(exist_ok=True)
        path.rename(folder / path.name)
    with pytest.raises(
        DataError, match="fold1/, fold2/ contain splits with class folders"
    ) as caught:
        read(root)
    (named,) = re.findall(r"dataset\.root=([^ ,]+)", str(caught.value))
    tree = read(Path(named))
    assert tree.classes == PETS
    assert sizes(tree) == {"train": 4, "test": 2}


def test_folds_beside_a_test_split(make: Make) -> None:
    root = make("fold1/{cat,dog}/2", "fold2/{cat,dog}/2", "test/{cat,dog}/1")
    words = stops(root, "fold1/, fold2/ have the same sub-folders")
    assert sizes(read(root, words[0])) == {"train": 4, "test": 2}


def test_sub_folders_of_their_own_belong_to_their_class(make: Make) -> None:
    tree = read(make("cat/{siamese,tabby}/1", "dog/{beagle,poodle}/1", "emu/1"))
    assert tree.classes == ("cat", "dog", "emu")
    assert sizes(tree) == {"train": 5}
    assert sizes(read(make("cat/images/2", "dog/images/2"), "train_folder=.")) == {"train": 9}


def test_one_equal_sub_folder_per_class_belongs_to_it(make: Make) -> None:
    assert sizes(read(make("{cat,dog}/images/2"))) == {"train": 4}


def test_a_test_folder_among_class_folders(make: Make) -> None:
    root = make("{cat,dog}/2", "test/3")
    words = stops(root, r"test/ may be a split or a class like cat/, dog/")
    assert words == ["dataset.train_folder=.", "dataset.train_folder=*"]
    without = read(root, words[0])
    assert without.classes == PETS
    assert sizes(without) == {"train": 4}
    assert "test/ has 3 images without class folders" in without.notes[0]
    assert read(root, words[1]).classes == ("cat", "dog", "test")


def test_a_labelled_test_folder_among_class_folders(make: Make) -> None:
    root = make("{cat,dog}/2", "test/{cat,dog}/1")
    words = stops(root, "may be a split or a class")
    assert sizes(read(root, words[0])) == {"train": 4, "test": 2}
    assert sizes(read(root, "test_folder=test")) == {"train": 4, "test": 2}


def test_a_class_called_train(make: Make) -> None:
    assert read(make("{bus,car,train}/2")).classes == ("bus", "car", "train")
    make("train/{steam,diesel}/1")
    root = make()
    for image in (root / "train").glob("*.png"):
        image.unlink()
    words = stops(root, r"train/ may be the training split or a class like bus/, car/")
    assert read(root, words[0]).classes == ("diesel", "steam")
    assert read(root, words[1]).classes == ("bus", "car", "train")


def test_a_test_split_of_an_unknown_name(make: Make) -> None:
    root = make("train/{cat,dog}/2", "final/{cat,dog}/1")
    words = stops(root, "final/ has class folders like train/")
    assert words == ["dataset.test_folder=final", "dataset.train_folder=train"]
    assert sizes(read(root, words[0])) == {"train": 4, "test": 2}
    alone = read(root, words[1])
    assert sizes(alone) == {"train": 4}
    assert alone.notes == ("Folders not read: final/ (2 images).",)


def test_held_splits_without_train(make: Make) -> None:
    root = make("{test,valid,other}/{cat,dog}/1")
    stops(root, "may be a split or a class")
    assert sizes(read(root, "train_folder=other")) == {"train": 2, "val": 2, "test": 2}


def test_train_without_images(make: Make) -> None:
    root = make("test/{cat,dog}/1", "train/{cat,dog}/0")
    stops(root, "train/ has no images next to test/")


@pytest.mark.parametrize("patterns", [("train/3", "test/2"), ("train/train/3",), ("4",), ("a/5",)])
def test_images_without_class_folders(make: Make, patterns: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match=r"no class folders|1 class folder; a classifier needs"):
        read(make(*patterns))


def test_words_that_only_contain_a_split_are_classes(make: Make) -> None:
    names = ("dev_board", "test_tube", "training_shoe")
    assert read(make(*(f"{name}/1" for name in names))).classes == names
    assert split_names(["testament", "validity", "trains", "evaluate_me"]) == {}


# The settings themselves.


def test_folders_elsewhere(make: Make, tmp_path: Path) -> None:
    root = make("{cat,dog}/2")
    for name in PETS:
        (tmp_path / "held out" / name).mkdir(parents=True)
        (tmp_path / "held out" / name / "1.png").touch()
    tree = read(root, "train_folder=.", f"test_folder={tmp_path / 'held out'}")
    assert sizes(tree) == {"train": 4, "test": 2}
    assert tree.root == tmp_path
    assert sizes(read(root, "test_folder=../held out")) == {"train": 4, "test": 2}


def test_caches_of_different_settings_are_different(make: Make) -> None:
    root = make("{a,b}/{cat,dog}/1")
    one = read(root, "train_folder=a", "test_folder=b")
    other = read(root, "train_folder=b", "test_folder=a")
    assert one.origin != other.origin
    assert read(make("{train,test}/{cat,dog}/1"), "train_folder=train").origin != ""


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("", "must be a folder"),
        ("*/*", "one '\\*'"),
        ("a*", "stands for a whole class folder"),
        ("trian", "is not a folder. Did you mean 'train'"),
        ("*/nothing", "matches no folder"),
        ("~nobody-of-that-name/x", "dataset.train_folder="),
        ("x" * 300, "is not a folder"),
    ],
)
def test_settings_that_name_nothing(make: Make, value: str, words: str) -> None:
    root = make("{train,test}/{cat,dog}/1")
    with pytest.raises((ConfigError, DataError), match=words):
        read_tree(root, folders={"train": value})


def test_settings_that_name_one_folder_twice(make: Make) -> None:
    root = make("{train,test}/{cat,dog}/1")
    with pytest.raises(
        ConfigError, match=r"dataset\.val_folder and dataset\.test_folder name the same"
    ):
        read(root, "val_folder=test", "test_folder=./test")


def test_a_chosen_folder_without_classes(make: Make) -> None:
    root = make("train/{cat,dog}/1", "test/2")
    with pytest.raises(DataError, match="test contains 2 images and no class folders"):
        read(root, "test_folder=test")


def test_orders_of_classes(make: Make) -> None:
    root = make("{0,1,2,10,01}/1")
    assert read_tree(root).classes == ("0", "01", "1", "2", "10")
    assert "dataset.class_order=lexicographic" in read_tree(root).notes[0]
    tree = read_tree(root, class_order="lexicographic")
    assert tree.classes == ("0", "01", "1", "10", "2")
    assert tree.notes == ()
    assert tree.origin != read_tree(root).origin == ""
    assert [Path(str(path)).parent.name for path in tree.splits["train"].paths] == [*tree.classes]
    assert read_tree(root, class_order=[2, 1, "0", 10, "01"]).classes[0] == "2"


def test_a_copy_of_the_classes_is_no_class(make: Make) -> None:
    root = make("{cat,dog,backup/cat,backup/dog}/2")
    (remedy,) = stops(root, "backup holds folders named like the classes next to it")
    assert read(root, remedy).classes == ("backup", "cat", "dog")


def test_a_class_may_have_a_part_named_like_another_class(make: Make) -> None:
    assert read(make("{cat,dog,other/cat}/2")).classes == ("cat", "dog", "other")


def test_splits_inside_one_class_folder(make: Make) -> None:
    root = make("{ant,bee}/2", "cat/{train,test}/2")
    stops(root, "contain the splits")


@pytest.mark.parametrize(
    ("images", "drawn"),
    [
        ("images", "masks"),
        ("Images", "annotations/trimaps"),
        ("JPEGImages", "SegmentationClass"),
        ("img", "gt"),
        ("train_images", "train_masks"),
        ("train/images", "train/masks"),
    ],
)
def test_masks_are_no_classes(make: Make, images: str, drawn: str) -> None:
    root = make(f"{images}/2", f"{drawn}/2")
    (setting,) = stops(root, "as for segmentation or detection")
    assert "*" in setting
    assert len(read(root, setting).classes) == 2


def test_masks_beside_class_folders(make: Make) -> None:
    root = make("images/{cat,dog}/2", "masks/{cat,dog}/2")
    settings = stops(root, "masks/ is next to images/")
    assert settings[0] == "dataset.train_folder=images"
    assert read(root, settings[0]).classes == PETS
    assert read(make("mask/2", "no_mask/2"), "dataset.train_folder=*").classes


@pytest.mark.parametrize("name", ["unlabeled", "Unsorted", "nan"])
@pytest.mark.parametrize("parent", ["", "train/"])
def test_images_without_a_label_are_no_class(make: Make, name: str, parent: str) -> None:
    root = make(f"{parent}{{cat,dog,{name}}}/2")
    (setting,) = stops(root, "images without a label")
    assert len(read(root, setting).classes) == 3
