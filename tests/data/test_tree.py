"""What counts as a split, a class and an image, and what is refused."""

from collections.abc import Callable
from pathlib import Path

import pytest

from kdrun.data.class_order import natural
from kdrun.data.tree import image_extensions, pictures_tree, read_tree
from kdrun.errors import DataError

Save = Callable[..., Path]


def counts(root: Path) -> dict[str, int]:
    return {name: len(files) for name, files in read_tree(root).splits.items()}


def test_train_and_test_folders(tree: Path) -> None:
    found = read_tree(tree)
    assert found.classes == ("cat", "dog")
    assert counts(tree) == {"train": 6, "test": 4}
    assert found.splits["train"].targets == [0, 0, 0, 1, 1, 1]
    assert [Path(p).name for p in found.splits["test"].paths] == ["0.png", "1.png"] * 2


@pytest.mark.parametrize("name", ["val", "valid", "validation", "Val"])
def test_val_alone_is_the_test_split(tree: Path, name: str) -> None:
    (tree / "test").rename(tree / name)
    assert counts(tree) == {"train": 6, "test": 4}


def test_all_three_splits(tree: Path, save: Save) -> None:
    for label in ("cat", "dog"):
        save(f"set/validation/{label}/x.jpg")
    assert counts(tree) == {"train": 6, "val": 2, "test": 4}


def test_a_single_tree_is_all_training(tree: Path) -> None:
    assert counts(tree / "train") == {"train": 6}


def test_train_alone(tree: Path) -> None:
    (tree / "test").rename(tree / "unused")
    assert counts(tree) == {"train": 6}


def test_a_class_may_be_called_train(save: Save, tmp_path: Path) -> None:
    for name in ("bus", "train", "car"):
        save(f"vehicles/{name}/1.png")
    assert read_tree(tmp_path / "vehicles").classes == ("bus", "car", "train")


def test_classes_are_sorted_by_the_value_of_their_numbers(save: Save, tmp_path: Path) -> None:
    for name in ("10", "9", "1"):
        save(f"numbers/{name}/1.png")
    assert read_tree(tmp_path / "numbers").classes == ("1", "9", "10")
    assert sorted(["b2", "b10", "a", "2"], key=natural) == ["2", "a", "b2", "b10"]


def test_hidden_and_other_files_are_passed_over(tree: Path) -> None:
    (tree / "train" / "cat" / "notes.txt").write_text("no image")
    (tree / "train" / "cat" / ".hidden.png").write_text("no image")
    (tree / "train" / ".cache").mkdir()
    (tree / "__MACOSX").mkdir()
    (tree / "README.md").write_text("no image")
    assert counts(tree) == {"train": 6, "test": 4}


def test_folders_below_a_class_belong_to_it(tree: Path, save: Save) -> None:
    save("set/train/cat/images/deep/x.JPEG")
    assert counts(tree)["train"] == 7


def test_links_within_the_folder_are_followed(tree: Path) -> None:
    (tree / "train" / "cat" / "again.png").symlink_to(tree / "train" / "cat" / "0.png")
    (tree / "val").symlink_to(tree / "test")
    assert counts(tree) == {"train": 7, "val": 4, "test": 4}


def test_links_out_of_the_folder_need_a_word(tree: Path, tmp_path: Path) -> None:
    linked = tmp_path / "linked"
    for name in ("cat", "dog"):
        (linked / "train" / name).mkdir(parents=True)
        (linked / "train" / name / "x.png").symlink_to(tree / "train" / name / "0.png")
    (linked / "test").symlink_to(tree / "test")
    with pytest.raises(DataError, match=r"leads out of .*dataset\.follow_links=true"):
        read_tree(linked)
    found = read_tree(linked, follow_links=True)
    assert {name: len(files) for name, files in found.splits.items()} == {"train": 2, "test": 4}
    with pytest.raises(DataError, match="name that place itself"):
        pictures_tree(linked, "transfer.folder")


def test_a_root_that_is_a_link_is_no_way_out(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "there").symlink_to(tree)
    assert counts(tmp_path / "there") == {"train": 6, "test": 4}


def test_links_in_a_circle_are_named(tree: Path) -> None:
    (tree / "train" / "cat" / "round").symlink_to(tree / "train" / "cat")
    with pytest.raises(DataError, match="read already"):
        read_tree(tree)


def test_a_link_to_nothing_is_named(tree: Path) -> None:
    (tree / "train" / "cat" / "gone.png").symlink_to(tree / "nowhere.png")
    with pytest.raises(DataError, match=r"gone\.png cannot be read"):
        read_tree(tree)


def test_the_digest_follows_names_sizes_times_and_form(tree: Path) -> None:
    before, timeless = read_tree(tree).digest(), read_tree(tree).digest(times=False)
    file = tree / "train" / "cat" / "0.png"
    assert read_tree(tree).digest() == before
    file.touch()
    assert read_tree(tree).digest() != before
    assert read_tree(tree).digest(times=False) == timeless
    assert read_tree(tree).digest(times=False, form="8×8") != timeless
    file.write_bytes(file.read_bytes() + b"x")
    assert read_tree(tree).digest(times=False) != timeless


def test_only_pictures_count() -> None:
    endings = image_extensions()
    assert {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".gif", ".ppm"} <= endings
    assert not {".pdf", ".eps", ".mpg", ".h5", ".txt"} & endings


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere does not exist.*train/<class>/<image>"):
        read_tree(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="is a file"):
        read_tree(tmp_path / "file")


def test_an_empty_folder_and_a_single_class(tmp_path: Path, save: Save) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds 0 class folders"):
        read_tree(tmp_path / "empty")
    save("one/cat/1.png")
    with pytest.raises(DataError, match=r"holds 1 class folder; .* at least two"):
        read_tree(tmp_path / "one")


def test_an_empty_class_is_named(tree: Path) -> None:
    (tree / "train" / "emu").mkdir()
    with pytest.raises(DataError, match="train/emu holds no images"):
        read_tree(tree)


def test_classes_that_differ_between_splits_are_named(tree: Path) -> None:
    (tree / "test" / "dog").rename(tree / "test" / "dgo")
    with pytest.raises(DataError, match=r"test has classes that .*train has not: dgo"):
        read_tree(tree)
    (tree / "test" / "dgo" / "0.png").unlink()
    (tree / "test" / "dgo" / "1.png").unlink()
    (tree / "test" / "dgo").rmdir()
    with pytest.raises(DataError, match=r"train has classes that .*test has not: dog"):
        read_tree(tree)


def test_test_without_train(tree: Path) -> None:
    (tree / "train").rename(tree / "valid")
    with pytest.raises(DataError, match="there is no train/ beside test/, valid/"):
        read_tree(tree)


def test_two_names_for_one_split(tree: Path, save: Save) -> None:
    save("set/training/cat/1.png")
    with pytest.raises(DataError, match="both train/ and training/"):
        read_tree(tree)
