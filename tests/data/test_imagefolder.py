"""Folders of images from end to end: form, cache, damage, and runs that start together."""

import json
import multiprocessing
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from kdrun.data.decoding import cache
from kdrun.data.decoding import decode_pass as decoding
from kdrun.data.decoding import image as decode
from kdrun.data.imagefolder import imagefolder
from kdrun.data.images import RawDataset, StoredImages
from kdrun.errors import ConfigError, DataError

Save = Callable[..., Path]
Read = Callable[..., RawDataset]


@pytest.fixture
def read(tree: Path, tmp_path: Path) -> Read:
    def call(**changes: object) -> RawDataset:
        settings = {"root": str(tree), "cache_root": tmp_path / "cache"} | changes
        return imagefolder(**settings)  # type: ignore[arg-type]

    return call


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths that were decoded, as they are."""
    seen: list[str] = []
    original = decode.decode_image

    def spy(path: str, *arguments: object) -> decode.Decoded:
        seen.append(path)
        return original(path, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(decoding, "decode_image", spy)
    return seen


def folders(tmp_path: Path) -> list[Path]:
    return sorted(path for path in (tmp_path / "cache").iterdir() if path.is_dir())


def test_pixels_labels_and_classes(read: Read, tree: Path) -> None:
    raw = read()
    assert raw.classes == ("cat", "dog")
    assert raw.val is None
    assert raw.notes == ()
    assert raw.test is not None
    assert (len(raw.train), len(raw.test)) == (6, 4)
    expected = np.asarray(Image.open(tree / "train" / "dog" / "1.png")).transpose(2, 0, 1)
    assert np.array_equal(raw.train.in_memory()[4].numpy(), expected)
    assert raw.train.targets.tolist() == [0, 0, 0, 1, 1, 1]


def test_a_second_reading_decodes_nothing(read: Read, decoded: list[str]) -> None:
    first = read()
    assert len(decoded) == 10
    second = read()
    assert len(decoded) == 10
    assert torch.equal(first.train.in_memory(), second.train.in_memory())
    assert first.fingerprint == second.fingerprint
    assert first.normalisation == second.normalisation


def test_the_fingerprint_is_that_of_the_pixels(read: Read, save: Save, tree: Path) -> None:
    before = read().fingerprint
    (tree / "train" / "cat" / "0.png").touch()
    assert read().fingerprint == before
    save("set/train/cat/0.png", seed=99)
    assert read().fingerprint != before


@pytest.mark.parametrize("change", ["touched", "added", "removed", "replaced"])
def test_changed_files_are_decoded_again(
    read: Read, decoded: list[str], save: Save, tree: Path, tmp_path: Path, change: str
) -> None:
    read()
    target = tree / "train" / "cat" / "0.png"
    if change == "touched":
        os.utime(target, ns=(1, 1))
    elif change == "added":
        save("set/train/dog/new.png", seed=50)
    elif change == "removed":
        target.unlink()
    else:
        save("set/train/cat/0.png", seed=51)
    decoded.clear()
    raw = read()
    assert len(decoded) == len(raw.train) + 4
    assert len(raw.train) == {"added": 7, "removed": 5}.get(change, 6)
    assert len(folders(tmp_path)) == 1


def test_files_of_equal_size_and_age_that_change_places_are_decoded_again(
    read: Read, save: Save, tree: Path
) -> None:
    cat, dog = save("set/train/cat/0.bmp", seed=50), save("set/train/dog/0.bmp", seed=51)
    for path in (cat, dog):
        os.utime(path, ns=(1, 1))
    before = read().train.in_memory()
    cat.rename(tree / "aside")
    dog.rename(cat)
    (tree / "aside").rename(dog)
    after = read().train.in_memory()
    assert torch.equal(after[[0, 4]], before[[4, 0]])


@pytest.mark.parametrize(
    "damage", ["cut", "header", "meta", "no meta", "missing", "schema", "digit", "sums"]
)
def test_a_damaged_cache_is_rebuilt(
    read: Read, decoded: list[str], tmp_path: Path, damage: str
) -> None:
    expected = read().train.in_memory()
    (folder,) = folders(tmp_path)
    array, meta = folder / "train.npy", folder / "meta.json"
    if damage == "cut":
        array.write_bytes(array.read_bytes()[:-1])
    elif damage == "header":
        array.write_bytes(b"\0" * array.stat().st_size)
    elif damage == "meta":
        meta.write_text(meta.read_text()[:40])
    elif damage == "no meta":
        meta.unlink()
    elif damage == "missing":
        (folder / "test.npy").unlink()
    elif damage == "digit":  # of a mean, say: still JSON, and wrong
        text = meta.read_text()
        last = max(position for position, letter in enumerate(text) if letter.isdigit())
        meta.write_text(text[:last] + str((int(text[last]) + 1) % 10) + text[last + 1 :])
    elif damage == "sums":
        sums = folder / "train.crc.npy"
        sums.write_bytes(sums.read_bytes()[:-1] + b"\0")
    else:
        meta.write_text(json.dumps(json.loads(meta.read_text()) | {"schema": 0}))
    decoded.clear()
    assert torch.equal(read().train.in_memory(), expected)
    assert len(decoded) == 10


def test_a_turned_bit_in_a_pixel_is_refused(read: Read, tmp_path: Path) -> None:
    read()
    (folder,) = folders(tmp_path)
    content = bytearray((folder / "train.npy").read_bytes())
    content[-1] ^= 0x04
    (folder / "train.npy").write_bytes(content)
    images = read().train
    images.gather(torch.tensor([0, 1]))  # the others are good
    with pytest.raises(DataError, match=r"Image 5 in .*train\.npy fails its checksum: delete"):
        images.in_memory()


def test_a_killed_decode_leaves_nothing_that_counts(
    read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read()
    (folder,) = folders(tmp_path)
    leftover = folder.with_name(f".{folder.name}.tmp")
    folder.rename(leftover)  # what a kill leaves: the unfinished folder under its other name
    (leftover / "test.npy").unlink()
    (leftover / "junk").write_text("x")
    raw = read()
    assert raw.test is not None
    assert len(raw.test) == 4
    assert folders(tmp_path) == [leftover, folder]
    assert list(leftover.iterdir()) == [leftover / "junk"]  # not kdrun's: it stays
    assert not (folder / "junk").exists()


def test_what_is_not_kdruns_stays_when_images_are_decoded_again(
    read: Read, tree: Path, tmp_path: Path
) -> None:
    read()
    (folder,) = folders(tmp_path)
    (folder / "notes.txt").write_text("mine")
    (folder / "plots").mkdir()
    (folder / "plots" / "a.png").write_text("mine")
    for number in range(2):
        Image.new("RGB", (9, 9)).save(tree / "train" / "dog" / f"new{number}.png")
        read()
        assert folders(tmp_path) == [folder]
        assert (folder / "notes.txt").read_text() == "mine"
        assert (folder / "plots" / "a.png").read_text() == "mine"


def test_a_failed_decode_leaves_no_folder(read: Read, tree: Path, tmp_path: Path) -> None:
    (tree / "test" / "dog" / "bad.png").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"bad\.png cannot be decoded"):
        read(image_size=6, channels=3)
    assert folders(tmp_path) == []


def test_another_class_order_is_another_data_set(
    save: Save, read: Read, decoded: list[str], tmp_path: Path
) -> None:
    for seed, name in enumerate(("0", "2", "10")):
        for split in ("train", "test"):
            save(f"numbers/{split}/{name}/x.png", seed=seed + 3 * (split == "test"))
    root = str(tmp_path / "numbers")
    for cache_it in (True, False):
        found = [
            read(root=root, class_order=order, cache=cache_it)
            for order in ("natural", "lexicographic", ["0", "2", "10"], "natural")
        ]
        assert [raw.classes for raw in found] == [
            ("0", "2", "10"),
            ("0", "10", "2"),
            ("0", "2", "10"),
            ("0", "2", "10"),
        ]
        assert torch.equal(
            found[1].train.in_memory(), found[0].train.in_memory()[torch.tensor([0, 2, 1])]
        )
        prints = [raw.fingerprint for raw in found]
        assert prints[0] == prints[2] == prints[3] != prints[1]
    assert len(folders(tmp_path)) == 3  # no order evicts the other's images


def test_settings_have_caches_of_their_own(read: Read, tmp_path: Path) -> None:
    shapes = [
        read(**settings).train.shape
        for settings in ({}, {"image_size": 4}, {"image_size": [3, 5]}, {"channels": 1})
    ]
    assert shapes == [(3, 6, 6), (3, 4, 4), (3, 3, 5), (1, 6, 6)]
    assert len(folders(tmp_path)) == 4


def _start(root: str, cache_root: str, gate: object, results: object) -> None:
    seen: list[str] = []
    original = decode.decode_image

    def spy(path: str, *arguments: object) -> decode.Decoded:
        seen.append(path)
        return original(path, *arguments)  # type: ignore[arg-type]

    decoding.decode_image = spy
    gate.wait()  # type: ignore[attr-defined]
    raw = imagefolder(root=root, cache_root=Path(cache_root))
    results.put((len(seen), raw.fingerprint))  # type: ignore[attr-defined]


@pytest.mark.skipif(os.name == "nt", reason="starts processes by fork")
def test_runs_that_start_together_decode_once(tree: Path, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    gate, results = context.Barrier(3), context.Queue()
    arguments = (str(tree), str(tmp_path / "cache"), gate, results)
    processes = [context.Process(target=_start, args=arguments) for _ in range(3)]
    for process in processes:
        process.start()
    found = [results.get(timeout=300) for _ in processes]
    for process in processes:
        process.join(timeout=300)
    assert sorted(count for count, _ in found) == [0, 0, 10]
    assert len({digest for _, digest in found}) == 1


def test_waiting_for_another_run_is_said(read: Read, tmp_path: Path) -> None:
    read()
    (folder,) = folders(tmp_path)
    shutil.rmtree(folder)
    seen = []
    lock = cache.FileLock(folder.with_name(f".{folder.name}.lock"))
    lock.acquire()

    def report(what: str, done: int, total: int) -> None:
        seen.append(what)
        if what.startswith("waiting"):
            lock.release()

    read(progress=report)
    assert seen[0].startswith("waiting: another run")
    assert "decoding images" in seen


def test_grey_files_have_one_channel_unless_asked(save: Save, read: Read, tmp_path: Path) -> None:
    for name in ("a", "b"):
        for number in range(2):
            save(f"grey/{name}/{number}.png", mode="L", seed=number)
    root = str(tmp_path / "grey")
    assert read(root=root, test_fraction=0.5).train.shape == (1, 6, 6)
    assert read(root=root, test_fraction=0.5, channels=3).train.shape == (3, 6, 6)
    save("grey/a/2.png", mode="RGB")
    assert read(root=root, test_fraction=0.5).train.shape == (3, 6, 6)


def test_unlike_sizes_take_the_median_and_say_so(save: Save, read: Read, tree: Path) -> None:
    for number, size in enumerate([(9, 20), (30, 9), (9, 9), (40, 50), (9, 12), (9, 11), (12, 9)]):
        save(f"set/train/cat/x{number}.png", size=size)
    shutil.rmtree(tree / "test")
    raw = read()
    assert raw.train.shape == (3, 9, 9)
    assert "different sizes (shorter sides 6 to 40 pixels)" in raw.notes[0]
    assert "9×9" in raw.notes[0]
    assert read().notes == raw.notes  # also from the cache


def test_the_median_is_capped(save: Save, read: Read, tmp_path: Path) -> None:
    for name in ("a", "b"):
        save(f"large/{name}/1.jpg", size=(300, 310))
        save(f"large/{name}/2.jpg", size=(320, 310))
    assert read(root=str(tmp_path / "large")).train.shape == (3, 224, 224)


def test_equal_sizes_are_kept_however_long(save: Save, read: Read, tmp_path: Path) -> None:
    for name in ("a", "b"):
        for number in range(2):
            save(f"wide/{name}/{number}.png", size=(7, 3))
    assert read(root=str(tmp_path / "wide")).train.shape == (3, 3, 7)


def test_a_single_tree_gives_test_images(read: Read, tree: Path) -> None:
    raw = read(root=str(tree / "train"), test_fraction=0.34)
    assert raw.test is not None
    assert raw.train.targets.tolist() == [0, 0, 1, 1]
    assert raw.test.targets.tolist() == [0, 1]
    other = read(root=str(tree / "train"), test_fraction=0.34, split_seed=1)
    assert raw.fingerprint != other.fingerprint
    assert raw.normalisation is None  # that of the whole tree would know the test images


def test_without_a_cache_images_are_decoded_on_access(
    read: Read, tmp_path: Path, tree: Path
) -> None:
    kept, lazy = read(), read(cache=False)
    assert isinstance(kept.train.images, StoredImages)
    assert isinstance(lazy.train.images, decode.DecodedImages)
    assert torch.equal(kept.train.in_memory(), lazy.train.in_memory())
    shutil.rmtree(tmp_path / "cache")
    first = lazy.fingerprint
    (tree / "train" / "cat" / "0.png").touch()
    assert read(cache=False).fingerprint == first
    assert read(cache=False, image_size=4).fingerprint != first
    assert not (tmp_path / "cache").exists()


def test_without_a_cache_too_the_fingerprint_is_that_of_the_pixels(
    read: Read, save: Save, tree: Path
) -> None:
    path = save("set/train/cat/more.bmp")
    size, before = path.stat().st_size, read(cache=False).fingerprint
    assert save("set/train/cat/more.bmp", seed=99).stat().st_size == size
    assert read(cache=False).fingerprint != before


@pytest.mark.parametrize(
    "wrong", [{"image_size": 0}, {"image_size": [4]}, {"channels": 2}, {"test_fraction": 1.5}]
)
def test_wrong_settings_are_refused_by_name(read: Read, wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=f"dataset.{next(iter(wrong))}="):
        read(**wrong)


def test_a_cache_that_cannot_be_written(read: Read, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"dataset\.cache=false"):
        read(cache_root=tmp_path / "file" / "below")


@pytest.mark.needs_data
def test_original_cifar100_files(data_dir: Path, tmp_path: Path) -> None:
    for split in ("train", "test"):
        (tmp_path / "some" / split).mkdir(parents=True)
        for name in ("apple", "wolf"):
            link = tmp_path / "some" / split / name
            link.symlink_to((data_dir / "cifar100" / split / name).resolve())
    root, cache = str(tmp_path / "some"), tmp_path / "cache"
    raw = imagefolder(root=root, cache_root=cache, follow_links=True)
    assert raw.classes == ("apple", "wolf")
    assert raw.test is not None
    assert (len(raw.train), len(raw.test)) == (1000, 200)
    assert raw.train.shape == (3, 32, 32)
    assert raw.normalisation is not None
    assert all(0.1 < value < 0.9 for value in raw.normalisation.mean)
