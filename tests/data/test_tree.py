"""What counts as a split, a class and an image, and what is refused."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from kdrun.data.class_order import natural
from kdrun.data.decoding.formats import image_extensions
from kdrun.data.folders.read import read_tree, unlabelled_tree
from kdrun.data.tree import PathList
from kdrun.errors import DataError
from kdrun.evaluation.predict import image_files

Save = Callable[..., Path]


def counts(root: Path) -> dict[str, int]:
    return {name: len(files) for name, files in read_tree(root).splits.items()}


def test_train_and_test_folders(tree: Path) -> None:
    found = read_tree(tree)
    assert found.classes == ("cat", "dog")
    assert counts(tree) == {"train": 6, "test": 4}
    assert list(found.splits["train"].targets) == [0, 0, 0, 1, 1, 1]
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
    (tree / "test").rename(tree.parent / "unused")
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


@pytest.mark.parametrize(
    "name", ["@eaDir", "@Recycle", "#recycle", "$RECYCLE.BIN", "System Volume Information"]
)
def test_folders_that_systems_leave_are_passed_over(tree: Path, save: Save, name: str) -> None:
    save(f"set/train/cat/{name}/0.png")
    save(f"set/train/{name}/0.png")
    save(f"set/{name}/1.png")
    assert counts(tree) == {"train": 6, "test": 4}
    assert read_tree(tree).classes == ("cat", "dog")
    assert len(unlabelled_tree(tree, "transfer.folder").splits["train"]) == 10
    assert len(image_files([str(tree)])) == 10


def test_folders_below_a_class_belong_to_it(tree: Path, save: Save) -> None:
    save("set/train/cat/images/deep/x.JPEG")
    assert counts(tree)["train"] == 7


def test_links_within_the_folder_are_followed(tree: Path) -> None:
    (tree / "train" / "cat" / "again.png").symlink_to(tree / "train" / "cat" / "0.png")
    (tree / "held").mkdir()
    (tree / "test" / "dog").rename(tree / "held" / "dog")
    (tree / "test" / "dog").symlink_to(tree / "held" / "dog")
    assert counts(tree) == {"train": 7, "test": 4}


def test_links_out_of_the_folder_need_a_word(tree: Path, tmp_path: Path) -> None:
    linked = tmp_path / "linked"
    for name in ("cat", "dog"):
        (linked / "train" / name).mkdir(parents=True)
        (linked / "train" / name / "x.png").symlink_to(tree / "train" / name / "0.png")
    (linked / "test").symlink_to(tree / "test")
    with pytest.raises(DataError, match=r"leaves .*dataset\.follow_links=true"):
        read_tree(linked)
    found = read_tree(linked, follow_links=True)
    assert {name: len(files) for name, files in found.splits.items()} == {"train": 2, "test": 4}
    with pytest.raises(DataError, match="set its target instead"):
        unlabelled_tree(linked, "transfer.folder")


def test_a_root_that_is_a_link_is_no_way_out(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "there").symlink_to(tree)
    assert counts(tmp_path / "there") == {"train": 6, "test": 4}


@pytest.mark.parametrize(
    ("link", "target"),
    [
        ("train/dog2", "train/dog"),  # a class doubled
        ("train/cat/more", "train/dog"),  # a class inside another one
        ("train/cat/round", "train/cat"),
        ("val", "test"),  # a split doubled
        ("test/cat/more", "train/cat"),
    ],
)
def test_a_folder_that_is_read_twice_is_named(tree: Path, link: str, target: str) -> None:
    (tree / link).symlink_to(tree / target)
    with pytest.raises(DataError, match=r"and .* are the same folder: remove"):
        read_tree(tree)


@pytest.mark.parametrize(
    ("link", "target"),
    [
        ("train/cat/gone.png", "nowhere.png"),
        ("train/emu", "nowhere"),
        ("train/001.Albatross", "nowhere"),
        ("val", "nowhere"),
        ("train/cat/self.png", "train/cat/self.png"),
        ("train/emu", "train/emu"),
        ("test", "test"),
    ],
)
def test_links_to_nothing_and_to_themselves_are_named(tree: Path, link: str, target: str) -> None:
    if (tree / link).exists():
        (tree / link).rename(tree / "others")
    (tree / link).symlink_to(tree / target)
    why = "Too many levels of symbolic links" if link == target else "a broken link"
    with pytest.raises(DataError, match=rf"{link} cannot be read \({why}\)"):
        read_tree(tree)


def test_links_to_each_other_are_named(tree: Path) -> None:
    (tree / "train" / "x").symlink_to(tree / "train" / "y")
    (tree / "train" / "y").symlink_to(tree / "train" / "x")
    with pytest.raises(DataError, match="train/x cannot be read"):
        read_tree(tree)


def test_a_folder_that_holds_itself_is_named(tmp_path: Path) -> None:
    (tmp_path / "loop").mkdir()
    (tmp_path / "loop" / "again").symlink_to(tmp_path / "loop")
    with pytest.raises(DataError, match=r"again leads back to a folder above it"):
        read_tree(tmp_path / "loop")


@pytest.mark.parametrize(
    ("root", "words"),
    [
        ("self", "self cannot be read .Too many levels"),
        ("dangling", "dangling is a broken link"),
        ("n" * 300, "cannot be read .File name too long"),
        ("p/" * 3000, "cannot be read .File name too long"),
        ("nul\0", "cannot be read"),
    ],
)
def test_roots_that_are_none(tmp_path: Path, root: str, words: str) -> None:
    (tmp_path / "self").symlink_to(tmp_path / "self")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for read in (read_tree, lambda path: unlabelled_tree(path, "transfer.folder")):
        with pytest.raises(DataError, match=words) as caught:
            read(tmp_path / root)
        assert len(str(caught.value)) < 600


def test_folders_within_folders_beyond_any_path(tree: Path) -> None:
    here = os.getcwd()
    try:
        os.chdir(tree / "train" / "cat")
        for _ in range(30):
            os.mkdir("x" * 200)
            os.chdir("x" * 200)
    finally:
        os.chdir(here)
    with pytest.raises(DataError, match=r"….* cannot be read .File name too long"):
        read_tree(tree)


def test_many_levels_are_read(tree: Path) -> None:
    folder = tree / "train" / "cat" / "/".join(["d"] * 300)
    folder.mkdir(parents=True)
    (folder / "x.png").touch()
    assert counts(tree)["train"] == 7


def test_a_class_name_that_is_no_text_is_refused(tree: Path) -> None:
    os.mkdir(os.fsencode(tree / "train") + b"/caf\xe9")
    (Path(os.fsdecode(os.fsencode(tree / "train") + b"/caf\xe9")) / "1.png").touch()
    with pytest.raises(DataError, match=r"caf\\udce9 is not UTF-8: rename it") as caught:
        read_tree(tree)
    str(caught.value).encode()


def test_image_names_that_are_no_text_are_read(tree: Path) -> None:
    with open(os.fsencode(tree / "train" / "cat") + b"/\xff.png", "wb"):
        pass
    assert counts(tree)["train"] == 7
    assert len(read_tree(tree).digest()) == 64


def test_what_is_passed_over_is_counted_with_its_reader(tree: Path) -> None:
    cat = tree / "train" / "cat"
    for name in ("a.HEIC", "b.heic", "c.svg", "d.CR2", "e.nef", "f.txt", "g", ".h", "i.mp4"):
        (cat / name).touch()
    (tree / "README.md").touch()
    (tree / "__MACOSX").mkdir()
    assert read_tree(tree).notes == (
        "Not read: 1 .cr2, 1 .nef; to use them: convert them to PNG, e.g. with rawpy.",
        "Not read: 2 .heic; to use them: pip install pillow-heif.",
        "Not read: 1 .mp4; to use them: extract frames, e.g. with ffmpeg.",
        "Not read: 1 .svg; to use them: convert them to PNG, e.g. with cairosvg.",
        "Skipped, not images: 1 without extension, 1 .md, 1 .txt, 2 hidden.",
    )


def test_a_class_of_unread_formats_names_the_package(tree: Path) -> None:
    (tree / "train" / "emu").mkdir()
    for number in range(12):
        (tree / "train" / "emu" / f"{number}.heic").touch()
    (tree / "train" / "emu" / "x.txt").touch()
    words = r"emu has no images \(it has 12 \.heic and 1 other kind of files; pip install pillow-"
    with pytest.raises(DataError, match=words):
        read_tree(tree)


def test_pictures_of_unread_formats_are_counted(tree: Path) -> None:
    (tree / "x.heic").touch()
    (note,) = unlabelled_tree(tree, "transfer.folder").notes
    assert note == "Not read: 1 .heic; to use them: pip install pillow-heif."


def test_order_does_not_depend_on_the_file_system(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("1", "01", "001", "2"):
        (tree / "train" / name).mkdir()
        (tree / "train" / name / "x.png").touch()
    expected = read_tree(tree)
    assert expected.classes == ("001", "01", "1", "2", "cat", "dog")
    scan = os.scandir

    class Backwards:
        def __init__(self, path: str) -> None:
            with scan(path) as entries:
                self.entries = sorted(entries, key=lambda entry: entry.name, reverse=True)

        def __enter__(self) -> list[os.DirEntry[str]]:
            return self.entries

        def __exit__(self, *error: object) -> None:
            return None

    monkeypatch.setattr(os, "scandir", Backwards)
    assert read_tree(tree) == expected


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
    with pytest.raises(DataError, match="contains 0 class folders"):
        read_tree(tmp_path / "empty")
    save("one/cat/1.png")
    with pytest.raises(DataError, match=r"contains 1 class folder; .* at least two"):
        read_tree(tmp_path / "one")


def test_an_empty_class_is_named(tree: Path) -> None:
    (tree / "train" / "emu").mkdir()
    with pytest.raises(DataError, match="train/emu has no images"):
        read_tree(tree)


def test_classes_that_differ_between_splits_are_named(tree: Path) -> None:
    (tree / "test" / "dog").rename(tree / "test" / "dgo")
    with pytest.raises(DataError, match=r"only in test/, without training images: dgo"):
        read_tree(tree)


def test_test_without_train(tree: Path) -> None:
    (tree / "train").rename(tree / "valid")
    with pytest.raises(DataError, match="no train/ next to test/, valid/"):
        read_tree(tree)


def test_two_names_for_one_split(tree: Path, save: Save) -> None:
    save("set/training/cat/1.png")
    with pytest.raises(DataError, match="both train/ and training/, names of the same split"):
        read_tree(tree)


def test_a_list_of_paths_holds_any_name() -> None:
    paths = ["/a/1.png", "/a/b/ü 2.png", "/a/3.png", "no folder.png", "/c/\udcff.png", "/c/字.png"]
    stored = PathList(paths[:2])
    stored.extend(paths[2:3])
    stored.extend(PathList(paths[3:]))
    assert list(stored) == paths
    assert stored == paths
    assert [stored[row] for row in (0, 4, -1)] == [paths[row] for row in (0, 4, -1)]
    assert stored[1:5:2] == paths[1:5:2]
    assert list(pickle.loads(pickle.dumps(stored))) == paths
    with pytest.raises(IndexError):
        stored[6]
