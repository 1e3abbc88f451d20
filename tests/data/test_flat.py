"""A flat folder of images is answered with the table that reads it."""

import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from kdrun.data.imagefolder import imagefolder
from kdrun.data.table import table
from kdrun.errors import DataError

Save = Callable[..., Path]
NAMES = {
    "dots": ["cat.0.png", "cat.1.png", "cat.12.png", "dog.0.png", "dog.1.png", "dog.7.png"],
    "numbers": ["Bengal_1.png", "Bengal_20.png", "Great Dane_3.png", "Great Dane_4.png"],
    "brackets": ["cat (1).png", "cat (2).png", "cat (3).png", "dog (1).png", "dog (2).png"],
    "splits": ["train_cat_1.png", "train_cat_2.png", "test_cat_3.png", "test_dog_1.png",
               "train_dog_2.png", "train_dog_3.png"],
    "splits last": ["cat-train-1.png", "cat-test-2.png", "cat-train3.png", "dog-train-1.png",
                    "dog-val-2.png", "dog-train-3.png"],
    "bare": ["cat1.png", "cat2.png", "dog1.png", "dog2.png"],
}  # fmt: skip
CLASSES = {"numbers": ("Bengal", "Great Dane")}


def refusal(root: Path, tmp_path: Path) -> str:
    with pytest.raises(DataError) as caught:
        imagefolder(root=str(root), cache_root=tmp_path / "cache")
    return str(caught.value)


@pytest.mark.skipif(shutil.which("sed") is None, reason="needs sed")
@pytest.mark.parametrize("below", ["", "train"])
@pytest.mark.parametrize("kind", NAMES)
def test_the_commands_of_the_message_read_the_folder(
    save: Save, tmp_path: Path, kind: str, below: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed, name in enumerate(NAMES[kind]):
        save(f"my set/{below}/{name}", seed=seed)
    text = refusal(tmp_path / "my set", tmp_path)
    recipe = re.search(r"\(echo .* > labels\.csv", text)
    command = re.search(r"dataset=table .*(?=\.$)", text)
    assert recipe is not None
    assert command is not None
    monkeypatch.chdir(tmp_path)
    subprocess.run(recipe[0], shell=True, check=True)
    settings = dict(word.split("=") for word in shlex.split(command[0]))
    raw = table(
        file=settings["dataset.file"],
        root=settings["dataset.root"],
        test_fraction=0.5,
        cache_root=tmp_path / "cache",
    )
    assert raw.classes == CLASSES.get(kind, ("cat", "dog"))
    assert raw.test is not None
    held_out = len(raw.test) + (0 if raw.val is None else len(raw.val))
    assert len(raw.train) + held_out == len(NAMES[kind])
    if "splits" in kind:
        assert len(raw.train) == 4


def test_a_table_beside_the_folder_is_named(save: Save, tmp_path: Path) -> None:
    save("set/train/a8f.png")
    (tmp_path / "set" / "sample_submission.csv").write_text("id,breed\n")
    (tmp_path / "set" / "train_labels.csv").write_text("id,breed\n")
    text = refusal(tmp_path / "set", tmp_path)
    folder = tmp_path / "set" / "train"
    assert f"dataset.file={tmp_path}/set/train_labels.csv dataset.root={folder}." in text


def test_a_table_of_something_else_does_not_hide_the_names(save: Save, tmp_path: Path) -> None:
    for number in range(3):
        save(f"set/cat.{number}.png", seed=number)
        save(f"set/dog.{number}.png", seed=10 + number)
    (tmp_path / "results.csv").write_text("a,b\n")
    assert "labels.csv" in refusal(tmp_path / "set", tmp_path)
    assert "results.csv" not in refusal(tmp_path / "set", tmp_path)


def test_names_without_labels_get_the_general_answer(save: Save, tmp_path: Path) -> None:
    for name in ("a8f3", "77cd", "9x"):
        save(f"set/{name}.png")
    text = refusal(tmp_path / "set", tmp_path)
    assert "sed" not in text
    assert "<class>/<image>" in text
    assert "dataset=table" in text


def test_names_that_do_not_fit_are_counted(save: Save, tmp_path: Path) -> None:
    for number in range(5):
        save(f"set/cat.{number}.png", seed=number)
        save(f"set/dog.{number}.png", seed=10 + number)
    save("set/cover.png")
    assert "; 1 other names would be left out." in refusal(tmp_path / "set", tmp_path)
